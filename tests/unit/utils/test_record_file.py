"""A record is never waited for: not when its disk is too slow, and not when it fails."""

import os
import time
from pathlib import Path

import pytest

from jarvis.utils import record_file
from jarvis.utils.record_file import RecordFiles, frames, segments


def test_what_was_appended_is_read_in_order_and_the_oldest_goes(tmp_path: Path) -> None:
    files = RecordFiles(tmp_path, 8 * 4096)
    noise = [os.urandom(1000) for _ in range(60)]
    for at in range(0, 60, 5):
        files.begin()
        for frame in noise[at : at + 5]:
            files.append(frame)
    assert files.end()
    found = [frame for path in segments(tmp_path) for frame in frames(path)]
    assert found == noise[-len(found) :]
    assert 5 <= len(found) < 60
    assert sum(path.stat().st_size for path in segments(tmp_path)) <= 8 * 4096 + 8192


def test_a_disk_that_stands_still_ends_the_segment_and_keeps_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is a pipe that nobody reads."""
    read, write = os.pipe()
    monkeypatch.setattr("jarvis.utils.record_file.os.open", lambda *_: write)
    monkeypatch.setattr(record_file, "WAITING_MOST", 10)
    files = RecordFiles(tmp_path, 1 << 20)
    files.begin()
    begun, count = time.monotonic(), 0
    while not files.broken:
        files.append(os.urandom(100_000))
        count += 1
    assert count < 100
    assert not files.wants_segment, "not at once"
    files.begin()
    assert files.broken
    assert not files.end(0.01)
    assert time.monotonic() - begun < 30, "nothing waits for the reader, who never comes"
    os.close(read)


def test_a_disk_that_fails_is_left_alone_for_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file can only be read."""
    (tmp_path / "x").touch()
    descriptor = os.open(tmp_path / "x", os.O_RDONLY)
    monkeypatch.setattr("jarvis.utils.record_file.os.open", lambda *_: descriptor)
    files = RecordFiles(tmp_path, 1 << 20)
    files.begin()
    files.append(b"frame")
    files.end()
    assert files.broken
    assert not files.wants_segment
