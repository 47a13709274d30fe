"""Only what was left as it was given is given again, and only to the same owner."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from jarvis.worker.spares import INNER, MOST, Spares, made

ME = os.geteuid()


def given(output: Path, task: int) -> Path:
    """The directory of an attempt, fresh."""
    scratch = output / str(task) / "task.1.d"
    scratch.parent.mkdir(parents=True, mode=0o711)
    assert made([str(scratch), *(f"{scratch}/{name}" for name in INNER)])
    return scratch


def test_a_directory_that_was_left_empty_is_given_again(tmp_path: Path) -> None:
    spares, left, wanted = Spares(tmp_path / "spares"), given(tmp_path / "o", 1), tmp_path / "o" / "2" / "task.1.d"
    assert not spares.take(str(wanted), ME), "there is none yet"
    same = left.stat().st_ino
    assert spares.keep(str(left))
    assert not left.exists()
    assert not spares.take(str(wanted), ME + 1), "it is not theirs"
    assert spares.take(str(wanted), ME)
    assert (wanted.stat().st_ino, wanted.stat().st_mode & 0o777) == (same, 0o700)
    assert sorted(path.name for path in wanted.iterdir()) == sorted(INNER)
    assert not spares.take(str(tmp_path / "o" / "3" / "task.1.d"), ME)


def _swap(scratch: Path) -> None:
    (scratch / "tmp").rmdir()
    (scratch / "tmp").symlink_to("outputs")


@pytest.mark.parametrize(
    "change",
    [
        lambda scratch: (scratch / "tmp" / "left").touch(),
        lambda scratch: (scratch / "outputs" / "left").mkdir(),
        lambda scratch: (scratch / "output.json").touch(),
        lambda scratch: (scratch / "tmp").rmdir(),
        lambda scratch: (scratch / "tmp").chmod(0o777),
        lambda scratch: scratch.chmod(0o500),
        _swap,
    ],
)
def test_a_directory_that_was_changed_is_not(tmp_path: Path, change: Callable[[Path], None]) -> None:
    scratch = given(tmp_path / "o", 1)
    change(scratch)
    assert not Spares(tmp_path / "spares").keep(str(scratch))
    assert scratch.exists()


def test_what_is_there_already_stays(tmp_path: Path) -> None:
    spares, first, second = Spares(tmp_path / "spares"), given(tmp_path / "o", 1), given(tmp_path / "o", 2)
    assert spares.keep(str(first))
    (second / "tmp" / "mine").touch()
    assert not spares.take(str(second), ME)
    assert (second / "tmp" / "mine").exists()


def test_the_next_agent_finds_them(tmp_path: Path) -> None:
    assert Spares(tmp_path / "spares").keep(str(given(tmp_path / "o", 1)))
    spares = Spares(tmp_path / "spares")
    assert spares.keep(str(given(tmp_path / "o", 2)))
    assert [spares.take(str(tmp_path / "o" / str(task) / "task.1.d"), ME) for task in (3, 4, 5)] == [True, True, False]


def test_no_more_are_kept_than_are_of_use(tmp_path: Path) -> None:
    (tmp_path / "spares").mkdir()
    for name in range(MOST):
        (tmp_path / "spares" / str(name)).mkdir()
    assert not Spares(tmp_path / "spares").keep(str(given(tmp_path / "o", 1)))
    assert not Spares(tmp_path / "others").keep(str(tmp_path / "absent"))
