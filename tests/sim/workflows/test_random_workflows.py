"""Random workflows under leaders that end at any moment: none gets stuck, nothing begins early or twice, every end is right."""

import os
from typing import Any

import pytest
from tests.sim.workflows.documents import Documents
from tests.sim.workflows.drive import Drive, Wrong, compare, copied

from jarvis.dag.rerun import kept

SOAK = bool(os.environ.get("JARVIS_SOAK"))
SEEDS = 10_000 if SOAK else 300
pytestmark = pytest.mark.timeout(3600 if SOAK else 120)


def drive(seed: int, racing: bool = False, cancel: bool = False) -> Drive:
    made = Drive(Documents(seed, racing=racing), restarts=(0.0, 0.1, 0.4)[seed % 3], cancel=cancel)
    try:
        state = made.whole()
        if not racing and not cancel:
            compare(made, state)
        if made.spec.concurrency is not None and made.peak > made.spec.concurrency:
            raise Wrong(f"{made.peak} tasks at once of {made.spec.concurrency}")
    except Exception as error:
        error.add_note(f"seed {seed}, racing={racing}, cancel={cancel}: {made.document}")
        raise
    return made


FOUND = (3420,)
"""Seeds beyond those of each commit that found something once."""


@pytest.mark.parametrize("seed", FOUND)
def test_what_was_found_once_stays_away(seed: int) -> None:
    drive(seed)


def test_every_end_is_that_of_the_reference() -> None:
    takeovers = sum(drive(seed).takeovers for seed in range(SEEDS))
    assert takeovers > SEEDS / 2, "leaders did end"


def test_races_and_failures_that_end_others_leave_nothing_behind() -> None:
    for seed in range(SEEDS // 2):
        drive(seed, racing=True)


def test_what_is_cancelled_ends_whenever_it_is_said() -> None:
    states = [str(drive(seed, racing=seed % 2 == 0, cancel=True).stored.state) for seed in range(SEEDS // 2)]
    assert states.count("cancelled") > SEEDS / 10


class Mended(Documents):
    """The same document; what failed before succeeds now, and what succeeded gives the same again."""

    def outcomes(self, path: str) -> list[tuple[int, Any]]:
        tries = super().outcomes(path)
        return [(0, tries[-1][1])] * 3


def test_a_rerun_does_what_is_left_and_nothing_again() -> None:
    again = 0
    for seed in range(SEEDS):
        first = Drive(Documents(seed), restarts=0.0)
        if first.whole() != "failed":
            continue
        second = Drive(Mended(seed), restarts=(0.0, 0.3)[seed % 2])
        second.next_task = first.next_task
        rows = kept(first.stored, first.rows)
        second.rows = {row.path: copied(row) for row in rows}
        for row in second.rows.values():
            row.workflow = second.stored.id
        second.run = second.leader()
        taken_over = set(second.rows)
        second.whole()
        assert not taken_over & set(second.starts), f"seed {seed}: what went well ran again"
        again += bool(taken_over)
    assert again > SEEDS / 20


class Cached(Documents):
    """The same document; every task that may have a cache has one."""

    def document(self) -> dict[str, Any]:
        made = super().document()
        parts: list[Any] = [made]
        for part in parts:
            parts += part.values() if isinstance(part, dict) else part if isinstance(part, list) else ()
        for step in parts:
            if isinstance(step, dict) and "command" in step and not step.keys() & {"while", "until"}:
                step["cache"] = {"key": step["id"]}
        return made


def test_what_is_kept_takes_the_place_of_what_ran_and_nothing_gets_stuck() -> None:
    """Elements that do the same share an output here, so the reference, which draws by path, cannot be asked."""
    reused = 0
    for seed in range(SEEDS // 2):
        first = Drive(Cached(seed), restarts=(0.0, 0.3)[seed % 2])
        try:
            first.whole()
            second = Drive(Cached(seed), restarts=(0.3, 0.0)[seed % 2])
            second.kept, second.next_task = first.kept, first.next_task
            second.whole()
        except Exception as error:
            error.add_note(f"seed {seed}: {first.document}")
            raise
        taken = {path for path, row in second.rows.items() if row.detail.reused is not None}
        assert not taken & set(second.starts), f"seed {seed}: it was taken over and ran"
        reused += len(taken)
    assert reused > SEEDS / 2
