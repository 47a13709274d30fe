"""The judge bites: each of these defects, put into one part of a world, is caught within a few seeds."""

import asyncio
from collections.abc import Iterable, Sequence

import pytest

from jarvis.core.changes import Changes
from jarvis.core.effects import Assignment, Effect, Recorded, ToNode
from jarvis.core.inputs import Ended, Input, NodeReported, Returned
from jarvis.core.states import Cause, State
from jarvis.scheduler.cycle import Plan
from jarvis.sim.loop import Stuck, VirtualLoop
from jarvis.sim.run import simulate
from jarvis.sim.server import CheckedScheduler
from jarvis.sim.world import Parts
from jarvis.state.coordination import Leadership
from jarvis.state.store import Early, Submission
from jarvis.state.stores.memory import MemoryStore
from jarvis.worker.machine import Instruction, Kill, Machine, Say, Start

STEPS = 4


class StartsTwice(Machine):
    """Every seventh assignment is started a second time."""

    def assign(self, assignments: Iterable[Assignment]) -> list[Instruction]:
        out = super().assign(assignments)
        return out + [item for item in out if isinstance(item, Start) and item.work.number % 7 == 0]


class ForgetsResources(Machine):
    """What it starts takes nothing."""

    def assign(self, assignments: Iterable[Assignment]) -> list[Instruction]:
        self._free = dict(self.total)
        return super().assign(assignments)


class TellsAnotherEnd(Machine):
    """A failure is told as a success."""

    def finished(self, end: Ended, heir: int | None = None) -> list[Instruction]:
        if end.cause is Cause.EXIT:
            end.exit_code = 0
        return super().finished(end, heir)


class ForgetsEnds(Machine):
    """An end is said once and not kept until it is recorded."""

    def finished(self, end: Ended, heir: int | None = None) -> list[Instruction]:
        out = super().finished(end, heir)
        if self.ended.pop(end.number, None) is not None:
            self.settled.add([end.number])
        return out


class NeverKills(Machine):
    """A stop of what runs is answered with its end, and it runs on."""

    def stop(self, number: int, cause: Cause, grace_s: float) -> list[Instruction]:
        out = super().stop(number, cause, grace_s)
        ends = [
            Ended(number=i.work.number, token=i.work.assignment.token, cause=cause) for i in out if isinstance(i, Kill)
        ]
        return [Say(end) for end in ends] or out


class LosesCommits(MemoryStore):
    """Every fifth turn of a leader is acknowledged and not written."""

    turns = 0

    async def leader_commit(self, leadership: Leadership, changes: Changes) -> None:
        self.turns += 1
        if self.turns % 5:
            await super().leader_commit(leadership, changes)


class ServesOldLeaders(MemoryStore):
    """The epoch is not compared."""

    async def leader_commit(self, leadership: Leadership, changes: Changes) -> None:
        await super().leader_commit(self._leadership, changes)


class ForgetsKeys(MemoryStore):
    """A repeated submission is a new one."""

    async def task_insert_many(self, submissions: Sequence[Submission], early: Early | None = None):  # type: ignore[no-untyped-def]
        self._keys.clear()
        return await super().task_insert_many(submissions, early)


class LosesSubmissions(MemoryStore):
    """Now and then a task is acknowledged and not written."""

    async def task_insert_many(self, submissions: Sequence[Submission], early: Early | None = None):  # type: ignore[no-untyped-def]
        answers = await super().task_insert_many(submissions)
        for ident in [i for i in self._tasks if i % 9 == 0 and self._tasks[i].state is State.SUBMITTED]:
            del self._tasks[ident]
        return answers


class IgnoresReturned(CheckedScheduler):
    """What a node gives back is not taken back."""

    async def run_once(self, inputs: list[Input]) -> Plan:
        for item in inputs:
            if isinstance(item, NodeReported):
                item.facts[:] = [fact for fact in item.facts if not isinstance(fact, Returned)]
        return await super().run_once(inputs)


class IgnoresEnds(CheckedScheduler):
    """Every fifth end is acknowledged and not recorded."""

    async def run_once(self, inputs: list[Input]) -> Plan:
        for item in inputs:
            if isinstance(item, NodeReported):
                dropped = [fact for fact in item.facts if isinstance(fact, Ended) and fact.number % 5 == 0]
                item.facts[:] = [fact for fact in item.facts if fact not in dropped]
                numbers = [fact.number for fact in dropped]
                self.bus.dispatch([ToNode(item.node, Recorded(numbers=numbers), "mutant")] if numbers else [])
        return await super().run_once(inputs)


class ActsBeforeTheCommit(CheckedScheduler):
    """Orders leave before the rows that they follow are durable."""

    async def _commit(self, turn) -> None:  # type: ignore[no-untyped-def]
        effects: Sequence[Effect] = turn.finish()
        self.bus.dispatch(effects)
        await self.store.leader_commit(self.leadership, turn.changes)


class ForgetsHolds(CheckedScheduler):
    """A new leader takes what is held for queued."""

    async def rebuild(self) -> None:
        await super().rebuild()
        for task in self.cluster.tasks.values():
            if task.spec.array is None and task.state is State.HELD:
                task.state = State.QUEUED
                self.cluster.enqueue(task)


RECORDED: dict[type[Machine] | type[MemoryStore] | type[CheckedScheduler], int] = {
    StartsTwice: 1, ForgetsResources: 1, TellsAnotherEnd: 1, ForgetsEnds: 1, NeverKills: 4,
    LosesCommits: 1, ServesOldLeaders: 1, ForgetsKeys: 3, LosesSubmissions: 7,
    IgnoresReturned: 114, IgnoresEnds: 1, ActsBeforeTheCommit: 1, ForgetsHolds: 3,
}  # fmt: skip
"""The first seed that catches each; others are tried after it, for the day on which the worlds change."""


@pytest.mark.timeout(200)
@pytest.mark.parametrize(("broken", "seed"), RECORDED.items(), ids=lambda value: getattr(value, "__name__", ""))
def test_a_broken_part_is_caught(broken: type[Machine] | type[MemoryStore] | type[CheckedScheduler], seed: int) -> None:
    parts = _parts(broken)
    for at in [seed, *range(1, 60)]:
        if simulate(at, STEPS, parts).error:
            assert not simulate(at, STEPS).error, "the same world is good when nothing is broken"
            return
    pytest.fail(f"{broken.__name__} went unnoticed")


def _parts(broken: type[Machine] | type[MemoryStore] | type[CheckedScheduler]) -> Parts:
    if issubclass(broken, Machine):
        return Parts(machine=broken)
    return Parts(store=broken) if issubclass(broken, MemoryStore) else Parts(scheduler=broken)


# ---------------------------------------------------------------- virtual time


def test_time_passes_without_waiting() -> None:
    loop = VirtualLoop()
    loop.run_until_complete(asyncio.sleep(86_400.0))
    assert loop.time() == pytest.approx(86_400.0)
    loop.close()


def test_nobody_who_can_go_on_is_an_error() -> None:
    loop = VirtualLoop()
    with pytest.raises(Stuck, match="nothing is due"):
        loop.run_until_complete(loop.create_future())
    loop.close()


def test_time_that_stands_still_is_an_error() -> None:
    async def spin() -> None:
        while True:  # noqa: ASYNC110 - nothing happens, and that is the point
            await asyncio.sleep(0)

    loop = VirtualLoop()
    work = loop.create_task(spin())
    with pytest.raises(Stuck, match="stands still"):
        loop.run_until_complete(work)
    work.cancel()
    loop.run_until_complete(asyncio.wait([work]))
    loop.close()
