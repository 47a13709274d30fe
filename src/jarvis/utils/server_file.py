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
    born: str = ""
    public: str = ""
    """URL for other machines, if it listens to them."""


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
        return ServerFile(
            str(data["url"]),
            str(data["token"]),
            int(data["pid"]),
            str(data["version"]),
            str(data["born"]),
            str(data.get("public", "")),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def born(pid: int) -> str:
    """When a process began, as its kernel counts; with the pid it names one process for ever. "" where this is not told."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
    return stat[stat.rindex(")") + 2 :].split()[19]


def lives(content: ServerFile) -> bool:
    """Whether the process that wrote it still runs. If not, whoever listens at its URL now is somebody else, who must not
    be told the token. Where processes cannot be looked up, it is taken to run."""
    return born(content.pid) == content.born if Path("/proc/self").exists() else True


def remove(directory: Path, pid: int) -> None:
    """Take the file away if it is still this server's own."""
    content = read(directory)
    if content is not None and content.pid == pid:
        (directory / NAME).unlink(missing_ok=True)
