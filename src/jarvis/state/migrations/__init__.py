"""Numbered schema changes, one folder per dialect; the number of the last one applied is kept in the database."""

from importlib import resources


def load(dialect: str) -> list[tuple[int, str, str]]:
    """(number, name, SQL) in order."""
    files = (resources.files(__package__) / dialect).iterdir()
    return sorted(
        (int(f.name[:4]), f.name[:-4], f.read_text(encoding="utf-8")) for f in files if f.name.endswith(".sql")
    )
