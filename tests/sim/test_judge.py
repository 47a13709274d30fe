"""The judge bites: each of these defects, put into one part of a world, is caught within a few seeds."""

import asyncio
from collections.abc import Callable, Iterable, Sequence

import pytest

from jarvis.core.changes import Changes
from jarvis.core.effects import Assignment, Effect, Recorded, ToNode
from jarvis.core.inputs import Ended, Input, NodeReported, Returned
from jarvis.core.resources import Resources
from jarvis.core.states import Cause, State
from jarvis.scheduler.cycle import Plan
from jarvis.sim.loop import Stuck, VirtualLoop
from jarvis.sim.run import simulate
from jarvis.sim.server import CheckedScheduler
from jarvis.sim.world import Parts
from jarvis.state.store import Leadership, Submission
from jarvis.state.stores.memory import MemoryStore
from jarvis.worker.machine import Instruction, Kill, Machine, Say, Start

SEEDS = range(1, 31)


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


class GivesBackWhatRuns(Machine):
    """A recall is answered for what has started, too."""

    def recall(self, numbers: Iterable[int]) -> list[Instruction]:
        running = [number for number in numbers if number in self.active]
        out = super().recall(numbers)
        return [*out, Say(Returned(numbers=running))] if running else out


class NeverKills(Machine):
    """A stop of what runs is answered with its end, and it runs on."""

    def stop(self, number: int, cause: Cause, grace_s: float) -> list[Instruction]:
        out = super().stop(number, cause, grace_s)
        ends = [Ended(number=i.work.number, token=i.work.assignment.token, cause=cause) for i in out if isinstance(i, Kill)]
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

    async def task_insert_many(self, submissions: Sequence[Submission]):  # type: ignore[no-untyped-def]
        self._keys.clear()
        return await super().task_insert_many(submissions)


class LosesSubmissions(MemoryStore):
    """Now and then a task is acknowledged and not written."""

    async def task_insert_many(self, submissions: Sequence[Submission]):  # type: ignore[no-untyped-def]
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
        await self.store.leader_commit(self._leadership, turn.changes)


class ForgetsHolds(CheckedScheduler):
    """A new leader takes what is held for queued."""

    async def rebuild(self) -> None:
        await super().rebuild()
        for task in self.cluster.tasks.values():
            if task.spec.array is None and task.state is State.HELD:
                task.state = State.QUEUED
                self.cluster.enqueue(task)


MACHINES: list[Callable[[Resources], Machine]] = [
    StartsTwice, ForgetsResources, TellsAnotherEnd, ForgetsEnds, GivesBackWhatRuns, NeverKills,
]  # fmt: skip
STORES = [LosesCommits, ServesOldLeaders, ForgetsKeys, LosesSubmissions]
SCHEDULERS = [IgnoresReturned, IgnoresEnds, ActsBeforeTheCommit, ForgetsHolds]


def assert_caught(parts: Parts) -> None:
    """Within the seeds; the same ones are good when nothing is broken, as the other tests show."""
    for seed in SEEDS:
        verdict = simulate(seed, 8, parts)
        if verdict.error:
            return
    pytest.fail(f"{parts} went through {len(SEEDS)} seeds")


@pytest.mark.parametrize("machine", MACHINES)
def test_a_broken_machine_is_caught(machine: Callable[[Resources], Machine]) -> None:
    assert_caught(Parts(machine=machine))


@pytest.mark.parametrize("store", STORES)
def test_a_broken_store_is_caught(store: type[MemoryStore]) -> None:
    assert_caught(Parts(store=store))


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_a_broken_scheduler_is_caught(scheduler: type[CheckedScheduler]) -> None:
    assert_caught(Parts(scheduler=scheduler))


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
        while True:
            await asyncio.sleep(0)

    loop = VirtualLoop()
    work = loop.create_task(spin())
    with pytest.raises(Stuck, match="stands still"):
        loop.run_until_complete(work)
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        loop.run_until_complete(work)
    loop.close()
