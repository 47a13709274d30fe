"""Only what was left as it was given is given again, only to the same owner, and to one at a time."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from jarvis.worker import places as module
from jarvis.worker.places import INNER, MOST, OUTPUT_MODE, OUTPUT_MOST, Places, made

ME = os.geteuid()


def given(places: Places) -> str:
    """The name of a place, fresh."""
    name = places.name()
    scratch = f"{places.base(name)}.d"
    assert made([scratch, *(f"{scratch}/{inner}" for inner in INNER)])
    os.close(os.open(f"{places.base(name)}.out", os.O_CREAT, OUTPUT_MODE))
    return name


def test_a_place_that_was_left_empty_is_given_again(tmp_path: Path) -> None:
    places = Places(tmp_path / "places")
    assert places.take(ME) is None, "there is none yet"
    left = given(places)
    assert places.keep(left)
    assert places.take(ME + 1) is None, "it is not theirs"
    assert [places.take(ME), places.take(ME)] == [left, None]
    assert places.name() != left


def test_what_it_said_is_gone_before_the_next_one_comes(tmp_path: Path) -> None:
    places = Places(tmp_path / "places")
    left = given(places)
    Path(f"{places.base(left)}.out").write_text("said")
    assert places.keep(left)
    assert Path(f"{places.base(left)}.out").read_text() == ""
    Path(f"{places.base(left)}.out").unlink()
    assert places.take(ME) == left
    assert places.keep(left), "its output went elsewhere"


def _swap(base: str) -> None:
    Path(f"{base}.d/tmp").rmdir()
    Path(f"{base}.d/tmp").symlink_to("outputs")


CHANGES = [
    lambda base: Path(f"{base}.d/tmp/left").touch(),
    lambda base: Path(f"{base}.d/outputs/left").mkdir(),
    lambda base: Path(f"{base}.d/output.json").touch(),
    lambda base: Path(f"{base}.d/tmp").rmdir(),
    lambda base: Path(f"{base}.d/tmp").chmod(0o777),
    lambda base: Path(f"{base}.d/tmp").chmod(0o2700),
    lambda base: Path(f"{base}.d").chmod(0o500),
    lambda base: Path(f"{base}.out").chmod(0o644),
    lambda base: os.link(f"{base}.out", f"{base}.d.kept"),
    lambda base: os.truncate(f"{base}.out", OUTPUT_MOST + 1),
    _swap,
]


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("settled_ns", [-1, 10**12])
def test_a_place_that_was_changed_is_not(
    tmp_path: Path, change: Callable[[str], None], settled_ns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SETTLED_NS", settled_ns)
    places = Places(tmp_path / "places")
    left = given(places)
    assert places.keep(left)
    assert places.take(ME) == left
    change(places.base(left))
    assert not places.keep(left)
    assert places.take(ME) is None


def test_a_place_that_was_not_touched_for_a_while_is_not_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SETTLED_NS", -1)
    places = Places(tmp_path / "places")
    left = given(places)
    assert places.keep(left)
    read: list[str] = []
    listdir = os.listdir

    def reading(path: str) -> list[str]:
        read.append(path)
        return listdir(path)

    monkeypatch.setattr(os, "listdir", reading)
    assert places.keep(left)
    assert not read


def test_the_next_agent_finds_what_is_not_in_use(tmp_path: Path) -> None:
    before = Places(tmp_path / "places")
    free, used, full = given(before), given(before), given(before)
    Path(f"{before.base(full)}.d/tmp/left").touch()
    places = Places(tmp_path / "places")
    assert places.find({used, ""}) == [full]
    assert [places.take(ME), places.take(ME)] == [free, None]
    assert places.name() not in {free, used, full}


def test_no_more_are_kept_than_are_of_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert MOST > 100
    monkeypatch.setattr(module, "MOST", 1)
    places = Places(tmp_path / "places")
    assert [places.keep(given(places)), places.keep(given(places))] == [True, False]
    assert not Places(tmp_path / "others").keep("1")
