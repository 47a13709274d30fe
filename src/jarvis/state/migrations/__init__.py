"""Numbered schema changes, one folder per dialect; the number of the last one applied is kept in the database."""

from importlib import resources


def load(dialect: str) -> list[tuple[int, str, str]]:
    """(number, name, SQL) in order."""
    found = []
    for file in (resources.files(__package__) / dialect).iterdir():
        if file.name.endswith(".sql"):
            found.append((int(file.name[:4]), file.name[:-4], file.read_text(encoding="utf-8")))
    return sorted(found)
