"""One element's work: parse the Python files of one package (JARVIS_ENTRY) and print their syntax facts as JSON.

An entry is a package folder, or a module file. Bad files are counted, not hidden.
"""

import ast
import json
import os
import warnings
from collections import Counter
from pathlib import Path

KINDS = {
    ast.FunctionDef: "functions", ast.AsyncFunctionDef: "functions", ast.ClassDef: "classes", ast.Import: "imports",
    ast.ImportFrom: "imports", ast.If: "branches", ast.For: "loops", ast.While: "loops", ast.Try: "try blocks",
    ast.Call: "calls", ast.Return: "returns",
}  # fmt: skip


def files_of(entry: Path) -> list[Path]:
    return sorted(entry.rglob("*.py")) if entry.is_dir() else [entry]


def count(entry: Path) -> Counter[str]:
    """Facts by kind over all files of the entry."""
    facts: Counter[str] = Counter()
    for path in files_of(entry):
        facts["files"] += 1
        try:
            tree = ast.parse(path.read_bytes())
        except (SyntaxError, ValueError):
            facts["unreadable files"] += 1
            continue
        facts.update(kind for node in ast.walk(tree) if (kind := KINDS.get(type(node))))
    return facts


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    entry = Path(os.environ["JARVIS_ENTRY"])
    print(json.dumps({"package": entry.stem, "facts": count(entry)}))
