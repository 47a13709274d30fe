"""What a node keeps of itself over restarts of its agent."""

import os
from pathlib import Path

import msgspec


class Identity(msgspec.Struct):
    """Its id, and the newest leader that it has seen."""

    node: int | None = None
    incarnation: int = 0
    epoch: int = 0


def load(directory: Path) -> Identity:
    """A new one where there is none."""
    try:
        return msgspec.json.decode((directory / "node.json").read_bytes(), type=Identity)
    except (OSError, msgspec.DecodeError):
        return Identity()


def save(directory: Path, identity: Identity) -> None:
    temporary = directory / ".node.json"
    temporary.write_bytes(msgspec.json.encode(identity))
    os.replace(temporary, directory / "node.json")
