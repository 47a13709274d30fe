"""Python functions on the real thing."""

import os
import sys
import time
from pathlib import Path

import pytest
from tests.e2e.cluster.harness import Home

from jarvis.sdk.errors import ClientError, TaskFailed
from jarvis.sdk.functions import Executor, as_completed

pytestmark = pytest.mark.timeout(180)


def square(x: int) -> int:
    return x * x


def tell(data: bytes) -> bytes:
    sys.stdout.write(f"seen {len(data)}\n")
    return data * 2


def boom(x: int) -> None:
    raise ValueError(f"no {x}")


def test_map_keeps_the_order(up: Home) -> None:
    with up.client() as client, Executor(client=client) as pool:
        assert list(pool.map(square, range(500))) == [x * x for x in range(500)]


def test_exceptions_come_back_with_the_remote_traceback(up: Home) -> None:
    with up.client() as client, Executor(client=client) as pool:
        error = pool.submit(boom, 3).exception(timeout=60)
    assert isinstance(error, ValueError)
    assert str(error) == "no 3"
    assert "in boom" in str(error.__cause__)


def test_large_arguments_results_and_what_is_printed(up: Home) -> None:
    with up.client() as client, Executor(client=client) as pool:
        future = pool.submit(tell, b"x" * 300_000)
        assert future.result(timeout=60) == b"x" * 600_000
        assert client.logs(future.task_id or 0) == b"seen 300000\n"


def test_a_process_that_dies_ends_its_own_call_only(up: Home) -> None:
    with up.client() as client, Executor(client=client) as pool:
        others = [pool.submit(square, x) for x in range(20)]
        with pytest.raises(TaskFailed):
            pool.submit(os._exit, 9).result(timeout=60)
        assert [f.result(timeout=60) for f in others] == [x * x for x in range(20)]


def test_calls_run_side_by_side_and_finish_as_they_do(up: Home) -> None:
    with up.client() as client, Executor(client=client) as pool:
        slow, quick = pool.submit(time.sleep, 1.0), pool.submit(time.sleep, 0.0)
        assert list(as_completed([slow, quick], timeout=60)) == [quick, slow]


def test_calls_one_after_another_meet_the_process_that_was_at_work_last(up: Home) -> None:
    with up.client() as client, Executor(client=client) as pool:
        for slow in [pool.submit(time.sleep, 1.0) for _ in range(2)]:
            slow.result(timeout=60)
        assert len({pool.submit(os.getpid).result(timeout=60) for _ in range(6)}) == 1


def test_cancel_kills_the_call(up: Home, tmp_path: Path) -> None:
    with up.client() as client, Executor(client=client) as pool:
        future = pool.submit(time.sleep, 600)
        assert future.cancel()
        assert pool.submit(square, 3).result(timeout=60) == 9


def test_shutdown_refuses_more(up: Home) -> None:
    with up.client() as client:
        pool = Executor(client=client)
        pool.shutdown()
        with pytest.raises(RuntimeError, match="shutdown"):
            pool.submit(square, 1)


def test_unknown_options_are_refused() -> None:
    with pytest.raises(TypeError, match="colour"):
        Executor(client=None, colour="red")


def summary(name: str) -> str:
    Path("out").mkdir()
    Path("out", name).write_text(Path("in", "words.txt").read_text().upper())
    return name


def breaks_off() -> str:
    Path("why").write_text("because")
    raise ValueError("no")


def test_files_go_with_calls_and_come_back(up: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "words.txt").write_text("some words")
    monkeypatch.chdir(tmp_path)
    with up.client() as client, Executor(client=client, push="in", pull=["out/*", "why"]) as pool:
        futures = [pool.submit(summary, name) for name in ("a", "b")]
        assert [future.result(60) for future in futures] == ["a", "b"]
        for future in futures:
            future.get_artifacts("back")
        assert {path.name: path.read_text() for path in (tmp_path / "back" / "out").iterdir()} == {
            "a": "SOME WORDS", "b": "SOME WORDS",
        }  # fmt: skip
        failing = pool.submit(breaks_off)
        assert failing.get_artifacts("back") == [Path("back", "why")]
        assert isinstance(failing.exception(), ValueError)
    with up.client() as client, Executor(client=client, push="nothing") as pool:
        with pytest.raises(ClientError, match="no such file"):
            pool.submit(summary, "c").result(60)
        with pytest.raises(RuntimeError, match="did not reach"):
            pool.submit(summary, "c").get_artifacts()
