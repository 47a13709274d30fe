"""What a simulated cluster decided, under every fault, comes out again byte for byte."""

import itertools
import os
from pathlib import Path

import pytest

from jarvis.scheduler.replay import recording
from jarvis.scheduler.replay.recording import Record, RecordedScheduler
from jarvis.scheduler.replay.replaying import check
from jarvis.sim.knobs import turned
from jarvis.sim.run import simulate
from jarvis.sim.world import Parts
from jarvis.utils.record_file import RecordFiles

SEEDS = range(1, 151) if os.environ.get("JARVIS_SOAK") else range(1, 9)
pytestmark = pytest.mark.timeout(1200 if os.environ.get("JARVIS_SOAK") else 120)


def recorded_in(directory: Path) -> tuple[type[RecordedScheduler], list[RecordFiles]]:
    """A scheduler whose every life writes into a directory of its own."""
    lives, files = itertools.count(), []

    class Recorded(RecordedScheduler):
        def __init__(self, *ports: object, **more: object) -> None:
            files.append(RecordFiles(directory / str(next(lives)), 1 << 26))
            super().__init__(*ports, record=Record(files[-1], "rows"), **more)  # type: ignore[arg-type]

    return Recorded, files


@pytest.mark.parametrize("servers", [0, 3])
@pytest.mark.parametrize("seed", SEEDS)
def test_every_commit_is_decided_again(seed: int, servers: int, tmp_path: Path) -> None:
    _decided_again(seed, tmp_path, servers=servers)


@pytest.mark.parametrize("seed", SEEDS[:3])
def test_also_with_gangs(seed: int, tmp_path: Path) -> None:
    _decided_again(seed, tmp_path, gangs=True)


@pytest.mark.parametrize("seed", SEEDS[:3])
def test_also_where_licences_and_nodes_are_scarce(seed: int, tmp_path: Path) -> None:
    _decided_again(seed, tmp_path, scarce=True)


@pytest.mark.parametrize("servers", [0, 3])
def test_also_where_what_a_rebuild_was_told_is_written_in_parts(
    servers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recording, "PART_BYTES", 1)
    _decided_again(1, tmp_path, servers=servers)


def _decided_again(
    seed: int, tmp_path: Path, servers: int = 0, *, gangs: bool = False, scarce: bool = False
) -> None:  # fmt: skip
    scheduler, files = recorded_in(tmp_path)
    verdict = simulate(seed, 4, Parts(scheduler=scheduler), servers=servers, gangs=gangs, scarce=scarce)
    for file in files:
        file.end()
    commits = 0
    with turned(seed):  # what is set is not recorded
        for file in files:
            if file.directory.is_dir():
                commits += sum(replay.commits for replay in check(file.directory))
    assert not verdict.error
    assert commits > 20
