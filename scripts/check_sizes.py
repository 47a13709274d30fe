"""Fails when a file or function has grown too long to be read at once.

Files stay under 500 lines. A function's body (its docstring apart) stays within 60 lines, unless it stands with a
reason in `scripts/long_functions.toml`; a line there that is no longer needed fails too, so the list only shrinks.
"""

import ast
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("src", "tests", "scripts", "examples", "benchmarks")
MAX_FILE_LINES = 499
MAX_FUNCTION_LINES = 60


def function_lengths(tree: ast.AST, prefix: str = "") -> Iterator[tuple[str, int, int]]:
    """Qualified name, first line and number of lines of every function, nested ones included."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield f"{prefix}{node.name}", node.lineno, body_lines(node)
            yield from function_lengths(node, f"{prefix}{node.name}.")
        elif isinstance(node, ast.ClassDef):
            yield from function_lengths(node, f"{prefix}{node.name}.")
        else:
            yield from function_lengths(node, prefix)


def body_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    lines = (node.end_lineno or node.lineno) - node.lineno + 1
    if ast.get_docstring(node) is not None:
        docstring = node.body[0]
        lines -= (docstring.end_lineno or docstring.lineno) - docstring.lineno + 1
    return lines


def check(root: Path, reasons: dict[str, str]) -> list[str]:
    """Everything that is too long below `root`, and every reason that is idle or empty."""
    problems = []
    needed = set()
    for path in sorted(path for folder in FOLDERS for path in (root / folder).rglob("*.py")):
        name = path.relative_to(root).as_posix()
        text = path.read_text(encoding="utf-8")
        if text.count("\n") > MAX_FILE_LINES:
            problems.append(f"{name}: {text.count(chr(10))} lines; split it (at most {MAX_FILE_LINES})")
        for function, line, lines in function_lengths(ast.parse(text, name)):
            if lines > MAX_FUNCTION_LINES:
                key = f"{name}:{function}"
                needed.add(key)
                if not reasons.get(key, "").strip():
                    problems.append(
                        f"{name}:{line}: {function} has {lines} lines (at most {MAX_FUNCTION_LINES}); split it, or "
                        f'list "{key}" with a reason in scripts/long_functions.toml'
                    )
    problems += [f"scripts/long_functions.toml: {key} is no longer needed" for key in sorted(reasons.keys() - needed)]
    return problems


def main() -> int:
    reasons = tomllib.loads((ROOT / "scripts" / "long_functions.toml").read_text(encoding="utf-8"))
    problems = check(ROOT, reasons)
    for problem in problems:
        print(problem, file=sys.stderr)
    print(f"sizes: {len(problems)} problem(s)")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
