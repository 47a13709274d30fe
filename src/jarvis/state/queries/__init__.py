"""SQL, one folder per dialect: named, commented queries, loaded once."""

from importlib import resources


def load(dialect: str) -> dict[str, str]:
    """Name → statement of every ``-- name: x`` in the dialect's files."""
    queries: dict[str, str] = {}
    for file in (resources.files(__package__) / dialect).iterdir():
        if not file.name.endswith(".sql"):
            continue
        for block in file.read_text(encoding="utf-8").split("-- name: ")[1:]:
            name, _, body = block.partition("\n")
            lines = [line for line in body.splitlines() if not line.startswith("--")]
            queries[name.strip()] = "\n".join(lines).strip().rstrip(";")
    return queries
