"""Run seeds: ``python -m jarvis.sim --seed 7 --trace`` replays one, ``--seeds 1..200`` runs many."""

import argparse
import asyncio
import logging
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from jarvis.scheduler.cycle import Policy
from jarvis.scheduler.policy.backfill import BACKFILLS, Backfill
from jarvis.scheduler.policy.preemption import Preemption
from jarvis.sim.knobs import turned
from jarvis.sim.loop import VirtualLoop
from jarvis.sim.scarcity import LICENSES
from jarvis.sim.workload import Load
from jarvis.sim.world import Parts, Plan, World

FENCED_EVERY, FENCED_AT = 13, 11
"""In one seed of so many, tasks must not run beside themselves, and silence lasts long enough to matter."""
PREEMPTING_EVERY, PREEMPTING_AT = 9, 6
"""In one seed of so many, tasks preempt each other, and one project of several is guaranteed a share."""
RULES = Preemption(by=500, grace=3.0, protect=0.3, times=2)
CALM_EVERY = 10
"""One seed of so many runs without faults, and is judged more strictly."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of a seed. ``error`` is empty when everything held."""

    seed: int
    error: str
    digest: str
    lines: int
    seconds: float
    tasks: int
    attempts: int
    faults: int
    overlaps: int
    preempted: int
    last: tuple[str, ...]
    scarce: Mapping[str, int]
    """Of each licence, the most that were in use; bookings; attempts that kept apart, and that found their files."""

    def __str__(self) -> str:
        figures = (
            f"{self.lines} lines, {self.seconds:.0f} s, {self.tasks} tasks, {self.attempts} attempts, "
            f"{self.faults} faults, {self.overlaps} overlaps, {self.preempted} preempted"
        )
        return f"seed {self.seed}: {self.error or 'good'} ({figures}) {self.digest}"


def plan_of(seed: int, steps: int, servers: int = 0, scarce: bool = False, gangs: bool = False) -> Plan:
    """``steps`` is how much each client asks for; the time for faults grows with it."""
    fenced = seed % FENCED_EVERY == FENCED_AT
    seconds = (60.0 if fenced else 5.0) * steps
    preempting = seed % PREEMPTING_EVERY == PREEMPTING_AT and not fenced
    load = Load(requests=steps, fenced=fenced, owners=preempting, scarce=scarce, gangs=gangs)
    backfill = Backfill(BACKFILLS[seed % len(BACKFILLS)] if scarce else "skip")
    policy = Policy(preemption=RULES if preempting else None, licenses=LICENSES if scarce else {}, backfill=backfill)
    return Plan(seconds, calm=seed % CALM_EVERY == 0, servers=servers, fenced=fenced, policy=policy, load=load)


def simulate(
    seed: int, steps: int = 10, parts: Parts | None = None, echo: Callable[[str], None] | None = None, servers: int = 0,
    *, scarce: bool = False, gangs: bool = False,
) -> Verdict:  # fmt: skip
    """The whole life of one world; the same arguments give the same verdict, to the last digit of its digest."""
    loop = VirtualLoop()
    plan = plan_of(seed, steps, servers, scarce, gangs)
    try:
        with turned(seed) as knobs:
            return loop.run_until_complete(_live(seed, plan, parts or Parts(), echo, knobs))
    finally:
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


async def _live(
    seed: int, plan: Plan, parts: Parts, echo: Callable[[str], None] | None, knobs: list[str]
) -> Verdict:  # fmt: skip
    world = World(seed, plan, parts, echo)
    if knobs:
        world.history.note("knobs", *knobs)
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: world.fail(context.get("exception") or RuntimeError(str(context))))
    error = ""
    try:
        await world.run()
    except Exception as problem:  # noqa: BLE001 - whatever is wrong is the verdict
        error = f"{type(problem).__name__}: {problem}"
    judge, history = world.judge, world.history
    return Verdict(
        seed, error, history.digest, history.lines, loop.time(), len(judge.specs), len(judge.attempts),
        world.faults.acted, judge.overlaps, len(judge.preempted), tuple(history.last),
        judge.scarcity.figures(),
    )  # fmt: skip


def _range(text: str) -> range:
    first, dots, last = text.partition("..")
    if not dots:
        raise argparse.ArgumentTypeError("expected a range like 1..200")
    return range(int(first), int(last) + 1)


def main() -> None:
    """The command line; exit code 1 when a seed went wrong."""
    parser = argparse.ArgumentParser(prog="python -m jarvis.sim", description=__doc__)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--seed", type=int)
    which.add_argument("--seeds", type=_range, help="A..B: all of them; only what went wrong is told singly")
    parser.add_argument("--steps", type=int, default=10, help="what each client asks for (default 10)")
    parser.add_argument("--servers", type=int, default=0, help="so many at once, instead of one after the other")
    parser.add_argument("--scarce", action="store_true", help="with licences, booked nodes, and tasks that keep apart")
    parser.add_argument("--gangs", action="store_true", help="much of what is asked for runs on several nodes at once")
    parser.add_argument("--first", action="store_true", help="end with the first seed that goes wrong")
    parser.add_argument("--trace", action="store_true", help="tell everything that happens")
    options = parser.parse_args()
    logging.disable()
    echo = _say if options.trace else None
    seeds = [options.seed] if options.seed is not None else options.seeds
    bad = 0
    for seed in seeds:
        verdict = simulate(
            seed, options.steps, echo=echo, servers=options.servers, scarce=options.scarce, gangs=options.gangs
        )
        bad += bool(verdict.error)
        if verdict.error or options.seed is not None:
            _say(str(verdict))
        if bad and options.first:
            break
    if options.seeds is not None:
        _say(f"{len(seeds)} seeds, {bad} bad")
    sys.exit(bool(bad))


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
