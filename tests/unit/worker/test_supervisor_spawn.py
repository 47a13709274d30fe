"""What is prepared for a spawn: where its program is, and the file of its output."""

import os
import resource
from pathlib import Path

import pytest

from jarvis.worker.supervisor.orders import Order
from jarvis.worker.supervisor.spawn import NoDescriptors, SpawnError, _candidates, _first_that_runs, open_files


def program(folder: Path, name: str = "it") -> str:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.touch(0o755)
    return str(path)


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    return {"PATH": f"{tmp_path}/a:{tmp_path}/b:{tmp_path}/c"}


def test_a_program_is_looked_for_in_the_order_of_its_path(tmp_path: Path, env: dict[str, str]) -> None:
    b, c = program(tmp_path / "b"), program(tmp_path / "c")
    assert list(_candidates("it", env)) == [b, c]
    a = program(tmp_path / "a")
    assert list(_candidates("it", env)) == [a, b, c], "whatever was found before"
    assert list(_candidates("other", env)) == []


def test_a_directory_is_no_program(tmp_path: Path, env: dict[str, str]) -> None:
    (tmp_path / "a" / "it").mkdir(parents=True)

    def run(path: str) -> int:
        return os.posix_spawn(path, ["it"], env)

    with pytest.raises(SpawnError, match="it: not found") as refused:
        _first_that_runs("it", env, run)
    assert refused.value.code == 127
    script = tmp_path / "b" / "it"
    program(script.parent)
    script.write_text("#!/bin/sh\nexit 3\n")
    _, status = os.waitpid(_first_that_runs("it", env, run), 0)
    assert os.waitstatus_to_exitcode(status) == 3


def test_without_a_descriptor_nothing_is_opened(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    order = Order({"argv": ["it"], "env": {}, "stdout": str(tmp_path / "out")})
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        with pytest.raises(NoDescriptors):
            open_files(order)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert not (tmp_path / "out").exists()


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
