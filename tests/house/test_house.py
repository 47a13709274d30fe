"""The repository's own promises: what a newcomer types works, and the locks install anywhere."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LOCKS = sorted((ROOT / "requirements").glob("*.lock"))


def pinned(lock: Path) -> dict[str, str]:
    return dict(re.findall(r"^([a-z0-9][a-z0-9._-]*)==([^ ;\\]+)", lock.read_text(), re.MULTILINE))


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: str(path.name))
def test_a_lock_names_no_place(lock: Path) -> None:
    assert not re.search(r"://|file:|--index|--find-links|(^|[ =])/", lock.read_text(), re.MULTILINE)


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: str(path.name))
def test_every_pin_has_a_hash(lock: Path) -> None:
    entries = re.split(r"^(?=[a-z0-9])", lock.read_text(), flags=re.MULTILINE)[1:]
    assert entries
    assert [entry.split()[0] for entry in entries if "--hash=sha256:" not in entry] == []


def test_the_two_locks_agree() -> None:
    base, dev = (pinned(ROOT / "requirements" / name) for name in ("base.lock", "dev.lock"))
    assert base.items() <= dev.items()


def test_every_base_dependency_is_locked() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = {re.split(r"[<>=\[ ;]", line)[0] for line in project["dependencies"]}
    assert names <= pinned(ROOT / "requirements" / "base.lock").keys()


def test_help_names_every_public_target() -> None:
    told = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for target in ("run", "test", "check", "bench", "chaos", "soak", "docs", "lock", "clean"):
        assert f"make {target} " in told


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "docs/quickstart.md"])
def test_links_between_pages_lead_somewhere(page: str) -> None:
    path = ROOT / page
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", path.read_text())
    # The description of the architecture is written beside the code it describes.
    missing = [link for link in links if not (path.parent / link).exists() and not link.endswith("architecture.md")]
    assert missing == []


def test_decisions_are_numbered_without_gaps_and_have_their_three_parts() -> None:
    decisions = sorted((ROOT / "docs" / "decisions").glob("[0-9]*.md"))
    assert [int(path.name[:4]) for path in decisions] == list(range(1, len(decisions) + 1))
    for path in decisions:
        parts = re.findall(r"^## (.+)$", path.read_text(), re.MULTILINE)
        assert parts == ["Context", "Decision", "Rationale"], path.name


def test_every_block_of_the_quick_start_says_whether_it_runs() -> None:
    lines = (ROOT / "docs" / "quickstart.md").read_text().splitlines()
    marks = {lines[i - 1] for i, line in enumerate(lines) if line == "```bash"}
    assert marks <= {"<!-- runs -->", "<!-- not yet -->"}
