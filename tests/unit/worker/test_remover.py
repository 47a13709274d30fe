"""What attempts left goes: of this agent and of those before it, whoever is about to begin."""

import asyncio
import contextlib
from pathlib import Path

import pytest

from jarvis.worker import remover
from jarvis.worker.remover import Remover, remove_folders


def left_by(root: Path, task: int, *names: str) -> Path:
    """The folder of a task with attempts that left files; its path."""
    folder = root / str(task)
    for name in names:
        (folder / f"{name}.d" / "tmp").mkdir(parents=True)
        (folder / f"{name}.d" / "tmp" / "left").write_text("behind")
        (folder / f"{name}.out").write_text("said")
    return folder


async def test_what_is_left_is_moved_aside_at_once_and_goes_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remover, "AFTER_S", 0.0)
    monkeypatch.setattr(remover, "PAUSE_S", 0.0)
    root, leftover = tmp_path / "output", tmp_path / "leftover"
    here, gone, ended = left_by(root, 1, "task.1"), left_by(root, 2, "task.1", "task.2"), left_by(root, 3, "4.1", "5.1")
    (tmp_path / "spares" / "1" / "tmp").mkdir(parents=True)  # of an agent of an earlier version
    made = Remover(root)
    made.sweep(lambda task: task != 2)
    assert not gone.exists()
    assert not (tmp_path / "spares").exists()
    assert len(list(leftover.iterdir())) == 2
    made.add(f"{ended}/4.1")
    running = asyncio.create_task(made.run())
    async with asyncio.timeout(30):
        while list(leftover.iterdir()) or (ended / "4.1.d").exists():  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.01)
    assert (ended / "5.1.out").exists()
    assert (here / "task.1.d" / "tmp" / "left").exists()
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running


def test_a_backlog_goes_faster_the_longer_it_is(tmp_path: Path) -> None:
    made = Remover(tmp_path)
    for at in range(60_000):
        made.add(f"{tmp_path}/{at}/task.1")
    assert [made._remove_some() for _ in range(2)] == [300, 298]


def test_so_many_at_a_time(tmp_path: Path) -> None:
    for at in range(5):
        left_by(tmp_path, at, "task.1")
    assert [remove_folders(tmp_path, 3), remove_folders(tmp_path, 3), remove_folders(tmp_path, 3)] == [3, 2, 0]
    assert remove_folders(tmp_path / "absent", 3) == 0
