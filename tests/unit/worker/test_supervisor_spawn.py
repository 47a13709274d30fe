"""What is prepared for a spawn: where its program is, and the file of its output."""

import os
from pathlib import Path

import pytest

from jarvis.worker.supervisor import spawn as module
from jarvis.worker.supervisor.orders import Order
from jarvis.worker.supervisor.spawn import FOUND_FOR, FOUND_MOST, _candidates, open_files
from jarvis.worker.supervisor.system import now


def program(folder: Path, name: str = "it") -> str:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.touch(0o755)
    return str(path)


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    return {"PATH": f"{tmp_path}/a:{tmp_path}/b:{tmp_path}/c"}


def test_a_program_is_looked_for_where_it_was_found_last(tmp_path: Path, env: dict[str, str]) -> None:
    b, c = program(tmp_path / "b"), program(tmp_path / "c")
    assert list(_candidates("it", env)) == [b, c]
    assert next(_candidates("it", env)) == c, "the last that was tried is the one that could be run"
    Path(c).unlink()
    assert list(_candidates("it", env)) == [b], "it is there no more"
    assert list(_candidates("other", env)) == ["/nonexistent/other"]


def test_what_came_further_ahead_is_seen_after_a_while(
    tmp_path: Path, env: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    b = program(tmp_path / "b")
    assert next(_candidates("it", env)) == b
    a = program(tmp_path / "a")
    assert list(_candidates("it", env)) == [b, a, b], "who cannot be run is followed by all others"
    later = now() + FOUND_FOR
    monkeypatch.setattr(module, "now", lambda: later)
    assert next(_candidates("it", env)) == a


def test_what_depends_on_the_working_directory_is_not_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    program(tmp_path)
    before = dict(module._found)
    assert next(_candidates("it", {"PATH": "."})) == "./it"
    assert next(_candidates("it", {"PATH": ""})) == "./it"
    assert module._found == before


def test_no_more_is_remembered_than_is_of_use(tmp_path: Path, env: dict[str, str]) -> None:
    module._found.update({(str(n), ""): ("/", 0.0) for n in range(FOUND_MOST)})
    b = program(tmp_path / "b")
    assert list(_candidates("it", env)) == [b]
    assert len(module._found) == 1


@pytest.mark.parametrize(("append", "left"), [(False, ""), (True, "said before")])
@pytest.mark.parametrize("chosen", [False, True])
def test_output_starts_empty_unless_it_is_appended_to(tmp_path: Path, append: bool, left: str, chosen: bool) -> None:
    out = tmp_path / "out"
    out.write_text("said before")
    fields = {"argv": ["it"], "env": {}, "stdout": str(out), "append": append, "output_as_user": chosen}
    files = open_files(Order(fields))
    os.write(files.child[1], b"!")
    files.close_child_ends()
    assert out.read_text() == f"{left}!"


def test_who_reads_nothing_shares_what_stays_open() -> None:
    for _ in range(2):
        files = open_files(Order({"argv": ["it"], "env": {}}))
        assert os.read(files.child[0], 1) == b""
        files.close_child_ends()
