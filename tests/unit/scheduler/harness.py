"""A cluster to talk to in one line per fact: ``case.node(cpus=4)``, ``case.submit(cpus=2)``, ``case.expect(1, "running")``.

Every step re-derives the invariants, as the real leader would be checked.
"""

from typing import cast

from jarvis.core.attempt import Usage
from jarvis.core.command import Command, NewCommand
from jarvis.core.effects import Assign, Effect, Recall, Stop, ToNode, ToSession, Welcome
from jarvis.core.ids import ElementKey
from jarvis.core.inputs import (
    CommandsTaken,
    Ended,
    Hello,
    Known,
    NodeConnected,
    NodeReported,
    Returned,
    Started,
    TasksTaken,
)
from jarvis.core.resources import Resources
from jarvis.core.states import Cause, State
from jarvis.core.task import AfterKind, ArraySpec, Dependency, Task, TaskSpec, parse_array
from jarvis.scheduler.checks import check_cluster
from jarvis.scheduler.cluster import Cluster
from jarvis.scheduler.cycle import Policy
from jarvis.scheduler.reactor import adopt, handle, place, run_timers
from jarvis.scheduler.turn import Turn

GIB = 1 << 30


class Case:
    """The leader's pure part with everything that it decided so far."""

    checked = True
    """Whether the invariants are derived anew with each step, which is most of the time that it takes."""

    def __init__(self, policy: Policy | None = None) -> None:
        self.cluster = Cluster(incarnation=1, epoch=1)
        self.policy = policy or Policy()
        adopt(self.cluster, self.policy)
        self.now = 1000.0
        self.effects: list[Effect] = []
        self.ended: dict[ElementKey, State] = {}
        self.tasks: dict[int, Task] = {}
        self.turns: list[Turn] = []
        self.outcomes: dict[int, str] = {}
        self._next_task = self._next_command = 1

    # ------------------------------------------------------------ what happens

    def step(self, *items: object, placing: bool = True) -> Turn:
        turn = Turn(self.cluster, self.now, "test")
        for item in items:
            handle(turn, item)  # type: ignore[arg-type]
        run_timers(turn)
        if placing:
            place(turn, self.policy)
        self.effects += turn.finish()
        self.outcomes.update(turn.changes.commands_done)
        for key, element in turn.changes.elements.items():
            self.ended[key] = element.state
        self.tasks.update(self.cluster.tasks)
        self.tasks.update(turn.changes.tasks)
        if self.checked:
            check_cluster(self.cluster)
        self.turns.append(turn)
        return turn

    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.step()

    def node(self, name: str = "", cpus: float = 4, mem: int = 8 * GIB, labels: dict[str, str] | None = None,
             taints: tuple[str, ...] = (), known: list[Known] | None = None, boot: str = "boot",
             heard: int = 0) -> int:  # fmt: skip
        name = name or f"n{len(self.cluster.nodes) + 1}"
        hello = Hello(
            version=1, software="0", name=name, node=None, boot_id=boot, known=known or [],
            resources={"cpu": round(cpus * 1000), "memory": mem}, labels=labels or {}, taints=taints, incarnation=heard,
        )  # fmt: skip
        self.step(NodeConnected("hello", f"session-{name}-{self.now}", hello))
        return self.cluster.node_names[name]

    def submit(self, cpus: float = 1, array: str | None = None, after: str | None = None, **spec: object) -> int:
        ident = self._next_task
        self._next_task += 1
        dependencies = tuple(Dependency(*_split(a)) for a in (after.split(",") if after else ()))
        arrays: ArraySpec | None = parse_array(array) if array else None
        task = Task(
            id=ident, uuid="", project="p", user="u", submitted_at=self.now,
            spec=TaskSpec(name="t", resources={"cpu": round(cpus * 1000)}, array=arrays, after=dependencies, **spec),  # type: ignore[arg-type]
        )  # fmt: skip
        self.tasks[ident] = task
        gone = {i: t.state for i, t in self.tasks.items() if i not in self.cluster.tasks}
        self.step(TasksTaken("submit", [task], gone))
        return ident

    def submit_as(self, project: str, user: str, count: int, resources: Resources, **spec: object) -> None:
        """Several equal tasks of one owner in one turn."""
        tasks = [
            Task(
                id=self._next_task + n, uuid="", project=project, user=user, submitted_at=self.now,
                spec=TaskSpec(name="t", resources=resources, **spec),  # type: ignore[arg-type]
            )
            for n in range(count)
        ]  # fmt: skip
        self._next_task += count
        self.tasks.update({task.id: task for task in tasks})
        self.step(TasksTaken("submit", tasks))

    def command(
        self, verb: str, task: int | None = None, index: int | None = None, project: str | None = None, **rest: object
    ) -> str:  # fmt: skip
        ident = self._next_command
        self._next_command += 1
        node = rest.pop("node", None)
        admin = bool(rest.pop("admin", False))
        body = NewCommand(
            verb=verb, user="u", task=task, index=index, node=node, project=project, admin=admin,  # type: ignore[arg-type]
            args=rest,  # type: ignore[arg-type]
        )  # fmt: skip
        self.step(CommandsTaken("command", [Command(id=ident, at=self.now, body=body)]))
        return self.outcomes[ident]

    def started(self, key: ElementKey | int) -> None:
        attempt = self.attempt(key)
        self._report(attempt.node, Started(number=attempt.number, token=attempt.token))

    def ends(self, key: ElementKey | int, exit_code: int | None = 0, cause: Cause = Cause.EXIT, wall: float = 1.0,
             token: int | None = None) -> None:  # fmt: skip
        attempt = self.attempt(key)
        fact = Ended(
            number=attempt.number, token=attempt.token if token is None else token, cause=cause, exit_code=exit_code,
            usage=Usage(wall_s=wall),
        )  # fmt: skip
        self._report(attempt.node, fact)

    def returned(self, key: ElementKey | int) -> None:
        attempt = self.attempt(key)
        self._report(attempt.node, Returned(numbers=[attempt.number]))

    def _report(self, node: int, fact: Started | Ended | Returned) -> None:
        session = self.cluster.nodes[node].session or ""
        self.step(NodeReported("report", session, node, 1, [fact]))

    # ------------------------------------------------------------ what is

    def attempt(self, key: ElementKey | int):  # type: ignore[no-untyped-def]
        return self.cluster.attempts[_key(key)]

    def state(self, key: ElementKey | int) -> State:
        where = _key(key)
        element = self.cluster.elements.get(where)
        if element is not None:
            return element.state
        task = self.tasks[where.task]
        return task.state if task.spec.array is None else self.ended.get(where, task.base)

    def expect(self, key: ElementKey | int, state: str) -> None:
        assert self.state(key) == state, f"{_key(key)} is {self.state(key)}, not {state}"

    def take(self) -> list[Effect]:
        """The effects so far, each taken once."""
        taken, self.effects = self.effects, []
        return taken

    def stops(self) -> list[Stop]:
        return [e.message for e in self.take() if isinstance(e, ToNode) and isinstance(e.message, Stop)]

    def recalls(self) -> list[int]:
        out: list[int] = []
        for e in self.take():
            if isinstance(e, ToNode) and isinstance(e.message, Recall):
                out += e.message.numbers
        return out

    def assigned(self) -> list[int]:
        """Numbers said to nodes since the last take."""
        out: list[int] = []
        for e in self.take():
            if isinstance(e, ToNode) and isinstance(e.message, Assign):
                out += [a.number for a in e.message.assignments]
        return out

    def welcome(self) -> Welcome:
        for effect in reversed(self.take()):
            if isinstance(effect, ToSession) and isinstance(effect.message, Welcome):
                return effect.message
        raise AssertionError("no welcome")


def _split(text: str) -> tuple[AfterKind, int]:
    kind, _, ident = text.partition(":")
    return cast("AfterKind", kind), int(ident)


def _key(key: ElementKey | int) -> ElementKey:
    return key if isinstance(key, ElementKey) else ElementKey(key)
