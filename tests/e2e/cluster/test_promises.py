"""What the README and the quick start promise, done as a reader would."""

import ast
import json
import re
import shutil
import subprocess
import sys
import sysconfig
from collections import Counter
from pathlib import Path

import pytest
from tests.e2e.cluster.harness import home

ROOT = Path(__file__).resolve().parents[3]
pytestmark = pytest.mark.timeout(300)


def blocks() -> list[str]:
    """The blocks of the quick start that run, in order."""
    text = (ROOT / "docs" / "quickstart.md").read_text()
    return re.findall(r"^<!-- runs -->\n```bash\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def test_the_quick_start_runs_from_its_first_line_to_its_last() -> None:
    """One shell, each block as it stands; an error in any of them ends the script."""
    script = "set -eu -o pipefail\n" + "\n".join(f"echo '=== block {i}'\n{b}" for i, b in enumerate(blocks()))
    script = script.replace("source .venv/bin/activate", "")
    with home() as made:
        made.env["PATH"] = f"{Path(sys.executable).parent}:{made.env['PATH']}"
        done = subprocess.run(
            ["bash", "-c", script], env=made.env, cwd=made.directory.parent, capture_output=True, text=True, timeout=240,
            check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr + made.logs()
        assert len(blocks()) >= 9
        for text in (
            "hello\n",
            "done\n",
            "element 7\n",
            "332833500\n",
            "HELLO FROM HERE\n",
            "beside task",
            "Jarvis is down",
        ):
            assert text in done.stdout, f"{text!r} is missing in\n{done.stdout}"


def recount(root: Path) -> Counter[str]:
    """What the first example counts, counted by another way: no packages, no cluster, names of nodes alone."""
    left_out = {"site-packages", "dist-packages", "__pycache__", "test", "idlelib", "lib2to3"}
    facts: Counter[str] = Counter()
    for path in root.rglob("*.py"):
        if path.relative_to(root).parts[0] in left_out:
            continue
        facts["files"] += 1
        try:
            names = Counter(type(node).__name__ for node in ast.walk(ast.parse(path.read_bytes())))
        except (SyntaxError, ValueError):
            continue
        facts["functions"] += names["FunctionDef"] + names["AsyncFunctionDef"]
        facts["classes"] += names["ClassDef"]
        facts["calls"] += names["Call"]
    return facts


def first_example(root: Path) -> dict[str, int]:
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "stdlib_facts.py"), "--root", str(root), "--json"],
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def sample(target: Path) -> None:
    """Four packages and the modules of the library: enough to count, quick to parse."""
    stdlib = Path(sysconfig.get_paths()["stdlib"])
    target.mkdir()
    for name in ("json", "email", "asyncio", "unittest"):
        shutil.copytree(stdlib / name, target / name, ignore=shutil.ignore_patterns("__pycache__"))
    for path in sorted(stdlib.glob("[a-f]*.py")):
        shutil.copy(path, target)


@pytest.mark.filterwarnings("ignore::SyntaxWarning", "ignore::DeprecationWarning")
def test_the_first_example_counts_right_and_sees_a_missing_file(tmp_path: Path) -> None:
    root = tmp_path / "library"
    sample(root)
    facts = first_example(root)
    counted = recount(root)
    assert {name: facts[name] for name in counted} == dict(counted)
    assert sum(n for name, n in facts.items() if not name.endswith("files")) >= 10_000
    (root / "json" / "decoder.py").unlink()
    without = first_example(root)
    assert without != facts
    assert {name: without[name] for name in counted} == dict(recount(root))
