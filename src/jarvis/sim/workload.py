"""Clients: what they ask for is drawn from a seed; what they were told is what the judge believes."""

import asyncio
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Any

import msgspec

from jarvis.core.command import NewCommand
from jarvis.core.errors import JarvisError, StoreUnavailable
from jarvis.core.ids import ElementKey
from jarvis.core.resources import Resources
from jarvis.core.retry import RetryPolicy
from jarvis.core.task import AfterKind, ArraySpec, Dependency, NewTask, TaskSpec
from jarvis.sim.scarcity import MANIFESTS, scarce
from jarvis.state.store import Accepted, IdempotencyKey, Submission

if TYPE_CHECKING:
    from jarvis.sim.world import World
    from jarvis.state.state_manager import StateManager

GIB = 1 << 30
NEEDS: tuple[Resources, ...] = (
    {"cpu": 1000}, {"cpu": 1000}, {"cpu": 500}, {"cpu": 2000, "memory": GIB}, {"cpu": 4000}, {"cpu": 500, "gpu": 500},
    {"gpu": 1000},
)  # fmt: skip
RANK_NEEDS: tuple[Resources, ...] = ({"cpu": 500}, {"cpu": 1000}, {"cpu": 2000, "memory": GIB})
"""What every node can hold."""
VERBS = ("cancel", "cancel", "hold", "hold", "release", "requeue", "suspend", "resume", "signal")
NODE_VERBS = ("node_cordon", "node_uncordon", "node_drain", "node_drain", "node_resume")


@dataclass(frozen=True, slots=True)
class Load:
    """How much is asked for."""

    clients: int = 3
    requests: int = 12
    pause_s: float = 4.0
    command_share: float = 0.35
    fenced: bool = False
    """Much of it is long, and must not run beside itself."""
    gangs: bool = False
    """Much of it runs on several nodes at once."""
    owners: bool = False
    """Each client has a project of its own, and the first one is guaranteed a share; some tasks may not be preempted."""
    scarce: bool = False
    """There are licences, bookings of nodes, and tasks that keep apart or together."""


class Client:
    """One person in a hurry: submits, changes their mind, asks again when the answer is lost."""

    def __init__(self, world: "World", name: str, random: Random, load: Load) -> None:
        self.world, self.name, self.random, self.load = world, name, random, load
        self._count = 0
        self._fence = world.random(f"fence {name}")
        self._gang = world.random(f"gang {name}")
        self._spare = world.random(f"spare {name}")
        self._scarcity = world.random(f"scarcity {name}")
        self.project = name if load.owners else "p"

    async def run(self) -> None:
        for _ in range(self.load.requests):
            await asyncio.sleep(self.random.expovariate(1.0 / self.load.pause_s))
            known = sorted(self.world.judge.specs)
            if known and self.random.random() < self.load.command_share:
                await self._command(known)
            else:
                await self._submit(known)

    # ------------------------------------------------------------ submissions

    async def _submit(self, known: list[int]) -> None:
        """Until it is acknowledged or refused; then now and then once more, as a retry would."""
        self._count += 1
        key = f"{self.name}-{self._count}"
        specs = [
            self._together(self._spared(self._fenced(self._spec(known))))
            for _ in range(self.random.choice((1, 1, 1, 2, 5)))
        ]
        tasks = [
            NewTask(uuid=f"{key}-{at}", project=self.project, user=self.name, spec=spec)
            for at, spec in enumerate(specs)
        ]
        submission = Submission(tasks, IdempotencyKey(self.name, self.project, "tasks", key, str(len(specs))))
        while True:
            answer = await self._try_submit(submission)
            if isinstance(answer, Accepted):
                self.world.judge.acknowledged(key, answer.ids, specs)
                if self.random.random() < 0.9:
                    return
            elif answer is not None:
                return
            await asyncio.sleep(self.random.uniform(0.1, 2.0))

    async def _try_submit(self, submission: Submission) -> Accepted | JarvisError | None:
        async def submit(manager: "StateManager") -> list[Accepted | JarvisError]:
            for data in MANIFESTS if self.load.scarce else ():
                await manager.blobs.put(self.project, data)
            return await manager.submit([submission])

        try:
            answers = await self.world.ask(submit)
        except (ConnectionError, StoreUnavailable):
            return None
        return answers[0]

    def _fenced(self, spec: TaskSpec) -> TaskSpec:
        """As it was drawn, or long and fenced where that is the plan."""
        if not self.load.fenced or spec.on_lost == "never" or self._fence.random() < 0.3:
            return spec
        assert isinstance(spec.command, tuple)
        kind, seconds, *codes = spec.command
        as_it_was = float(seconds) < 0 or spec.array is not None
        long = seconds if as_it_was else str(round(self._fence.uniform(5.0, 250.0), 4))
        return msgspec.structs.replace(spec, on_lost="fence", command=(kind, long, *codes), deadline=None)

    def _together(self, spec: TaskSpec) -> TaskSpec:
        """As it was drawn, or a gang of as many ranks as the cluster can hold."""
        if not self.load.gangs or self._gang.random() < 0.4:
            return spec
        nodes, need = self._gang.randint(2, len(self.world.nodes)), self._gang.choice(RANK_NEEDS)
        return msgspec.structs.replace(spec, nodes=nodes, resources=need, affinities=())

    def _spared(self, spec: TaskSpec) -> TaskSpec:
        if self.load.scarce:
            return scarce(spec, self._scarcity)
        if not self.load.owners:
            return spec
        return msgspec.structs.replace(spec, preemptible=self._spare.random() > 0.2)

    def _spec(self, known: list[int]) -> TaskSpec:
        draw = self.random.random
        now = self.world.database_now()
        kind = "ship" if draw() < 0.2 else "run"
        seconds = -1.0 if draw() < 0.03 else round(self.random.choice((0.01, 0.05, 0.5, 3.0, 10.0)) * draw(), 4)
        codes = self.random.choice((("0",), ("0",), ("0",), ("1", "0"), ("1", "1", "0"), ("1",)))
        more: dict[str, Any] = {}
        if draw() < 0.3:
            last = self.random.choice((2, 8, 20))
            more["array"] = ArraySpec(((0, last, 1),), self.random.choice((None, None, 1, 3)))
        if known and draw() < 0.25:
            kinds: tuple[AfterKind, ...] = ("afterok", "afterany", "afternotok")
            some = self.random.sample(known[-6:], min(len(known), self.random.choice((1, 1, 2))))
            more["after"] = tuple(Dependency(self.random.choice(kinds), task) for task in some)
        if draw() < 0.1:
            more["begin"] = now + self.random.uniform(0.0, 10.0)
        if draw() < 0.15:
            more["deadline"] = now + self.random.uniform(1.0, 40.0)
        if draw() < 0.1:
            more["time_limit"] = self.random.uniform(0.1, 5.0)
        if draw() < 0.08:
            more["hold"] = True
        return TaskSpec(
            name=self.name, command=(kind, str(seconds), *codes), resources=self.random.choice(NEEDS),
            priority=self.random.choice((0, 0, 0, 500)), grace=self.random.choice((0.0, 1.0, 10.0)),
            retry=RetryPolicy(max_attempts=self.random.choice((1, 1, 2, 3)), base=0.5, max_backoff=5.0),
            on_lost="never" if draw() < 0.1 else "rerun", **more,
        )  # fmt: skip

    # ------------------------------------------------------------ commands

    async def _command(self, known: list[int]) -> None:
        if self.random.random() < 0.2:
            node = self.random.randrange(1, len(self.world.nodes) + 1)
            verb = self.random.choice(NODE_VERBS)
            seconds = {"deadline_s": self.random.uniform(0.0, 10.0)} if self.random.random() < 0.5 else {}
            self.world.judge.drained |= verb == "node_drain"
            await self._tell(NewCommand(verb=verb, user=self.name, node=node, args=seconds))  # type: ignore[arg-type]
            return
        task = self.random.choice(known[-5:])
        spec, verb = self.world.judge.specs[task], self.random.choice(VERBS)
        index = None
        if spec.array is not None and self.random.random() < 0.5:
            index = spec.array.index_at(self.random.randrange(spec.array.count))
        await self._tell(NewCommand(verb=verb, user=self.name, task=task, index=index))  # type: ignore[arg-type]

    async def _tell(self, command: NewCommand) -> None:
        """Once: a command whose answer is lost may have been heard or not."""
        judge = self.world.judge
        if command.task is not None:
            judge.touched.add(command.task)
            if command.verb == "release":
                judge.released.add(command.task)
        try:
            stored = await self.world.ask(lambda manager: manager.command([command]))
        except (ConnectionError, StoreUnavailable):
            return
        if command.verb == "cancel" and command.task is not None:
            whole = command.index is None
            judge.cancel_asked(stored[0].id, command.task if whole else ElementKey(command.task, command.index or 0))


async def guarantee(world: "World") -> None:
    """The first client's project is sure to get half a node; told until it is heard."""
    share = {"user": "", "guaranteed.cpu": 2000}
    while True:
        try:
            await world.ask(
                lambda manager: manager.command(
                    [NewCommand(verb="quota_set", user="admin", admin=True, project="c0", args=share)]  # type: ignore[arg-type]
                )
            )
        except (ConnectionError, StoreUnavailable):
            await asyncio.sleep(0.5)
        else:
            return


def farewell(held: list[int], nodes: int) -> list[NewCommand]:
    """What makes an end possible: everything held or quarantined goes on, every node takes work again."""
    release = [NewCommand(verb="release", user="admin", admin=True, task=task) for task in held]
    resume = [NewCommand(verb="node_resume", user="admin", admin=True, node=n) for n in range(1, nodes + 1)]
    return release + resume
