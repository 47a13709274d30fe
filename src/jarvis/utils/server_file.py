"""``server.json``: how clients of the same user find a live server: URL, token and pid, readable by the owner alone."""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

NAME = "server.json"


@dataclass(frozen=True, slots=True)
class ServerFile:
    """What a server says about itself to its owner."""

    url: str
    token: str
    pid: int
    version: str


def write(directory: Path, content: ServerFile) -> None:
    """Replace the file in one step; it never exists with wider rights than 0600."""
    temporary = directory / f".{NAME}.{os.getpid()}"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump(asdict(content), file)
    os.replace(temporary, directory / NAME)


def read(directory: Path) -> ServerFile | None:
    """What the last server wrote, or None. Whether it lives is for the caller to find out."""
    try:
        data = json.loads((directory / NAME).read_text(encoding="utf-8"))
        return ServerFile(str(data["url"]), str(data["token"]), int(data["pid"]), str(data["version"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def remove(directory: Path, pid: int) -> None:
    """Take the file away if it is still this server's own."""
    content = read(directory)
    if content is not None and content.pid == pid:
        (directory / NAME).unlink(missing_ok=True)
