"""The table of CPython's tests says what is so."""

import ast
import re
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs" / "executor-tests.md").read_text()
ROW = re.compile(r"^\| `(\w+\.test_\w+)` \| (.+?) \| (.*?) ?\|$", re.MULTILINE)


def cases_of(path: Path) -> set[str]:
    """Functions named test_… of a file, those of classes with their class."""
    found = set()
    for node in ast.parse(path.read_text()).body:
        inside = node.body if isinstance(node, ast.ClassDef) else [node]
        prefix = f"{node.name}." if isinstance(node, ast.ClassDef) else ""
        found |= {prefix + f.name for f in inside if isinstance(f, ast.FunctionDef) and f.name.startswith("test_")}
    return found


def test_every_test_that_is_named_exists_and_the_others_have_a_reason() -> None:
    exist = {f"{path.stem}.{name}" for path in Path(__file__).parent.glob("test_*.py") for name in cases_of(path)}
    for theirs, ours, reason in ROW.findall(PAGE):
        if ours == "none":
            assert reason, theirs
        else:
            assert set(re.findall(r"`([\w.]+)`", ours)) <= exist, theirs


def test_the_counts_are_right() -> None:
    rows = ROW.findall(PAGE)
    ported = sum(ours != "none" for _, ours, _ in rows)
    assert f"\n{len(rows)} tests, {ported} ported ({100 * ported / len(rows):.0f} %)." in PAGE
    assert len({theirs for theirs, _, _ in rows}) == len(rows)
    assert ported >= 0.9 * len(rows)


@pytest.mark.skipif(sys.version_info[:2] != (3, 13), reason="the table is of Python 3.13")
def test_the_table_has_all_of_cpython_s_tests() -> None:
    folder = Path(sysconfig.get_paths()["stdlib"]) / "test" / "test_concurrent_futures"
    if not folder.is_dir():
        pytest.skip("this Python came without its tests")
    theirs = set().union(*(cases_of(path) for path in folder.glob("*.py")))
    assert {name for name, _, _ in ROW.findall(PAGE)} == theirs
