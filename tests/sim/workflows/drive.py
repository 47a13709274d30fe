"""A workflow without a cluster: its tasks end in whatever order the seed says, and its leader is replaced at any moment.

What a turn decided is committed as a whole or not at all. The judge knows the document, the commits and the tasks' own list of
starts, never the memory of the one that decides.
"""

from collections.abc import Callable
from heapq import heappop, heappush
from random import Random
from typing import Any

import msgspec
from tests.sim.workflows.documents import Documents
from tests.sim.workflows.reference import Reference, edges_of

from jarvis.api.workflow_documents import Given, InvalidDocument, Rules, compiled
from jarvis.core.states import TERMINAL, State
from jarvis.core.workflow import Kept, Step, Workflow, WorkflowSpec
from jarvis.dag.dag_manager import Run
from jarvis.dag.progress import Deeds, TaskEnd

ARRAY = "array"


class Wrong(AssertionError):
    """A rule does not hold."""


def copied(value: Any) -> Any:
    return msgspec.msgpack.decode(msgspec.msgpack.encode(value), type=type(value))


def valid(documents: Documents) -> tuple[dict[str, Any], WorkflowSpec]:
    """The first document drawn in which no step is refused because it can never run."""
    while True:
        document = documents.document()
        try:
            return document, compiled(Given(document), Rules(0.0))
        except InvalidDocument as error:
            if not all("can never run" in message or message.startswith("with: ") for _, _, message in error.problems):
                raise


class Drive:
    """One workflow from its submission to its end; raises :class:`Wrong`."""

    def __init__(self, documents: Documents, restarts: float = 0.1, cancel: bool = False) -> None:
        self.documents = documents
        self.document, self.spec = valid(documents)
        self.random = Random(f"drive/{documents.seed}")
        self.restarts, self.cancel = restarts, cancel
        self.now = 0.0
        self.stored = Workflow(id=1, uuid="u", project="p", user="ann", spec=self.spec, submitted_at=0.0)
        self.rows: dict[str, Step] = {}
        self.tasks: dict[int, tuple[str, int]] = {}
        """Those that run: task → (path, elements)."""
        self.starts: dict[str, int] = {}
        self.happening: list[tuple[float, int, Callable[[], None]]] = []
        self.next_task = self.order = 0
        self.waking: set[tuple[float, str]] = set()
        self.peak = 0
        self.kept: dict[str, Kept] = {}
        """What steps with a cache gave, by key."""
        self.takeovers = 0
        self.edges = declared_edges(self.document)
        self.run = self.leader()

    def leader(self) -> Run:
        return Run(copied(self.stored), [copied(step) for step in self.rows.values()])

    # ------------------------------------------------------------ turns

    def turn(self, act: Callable[[Run], Any]) -> None:
        """One decision with all that follows: committed, or lost with its leader."""
        lost = self.random.random() < self.restarts
        act(self.run)
        made: list[tuple[int, str, int]] = []
        while self.run.startable and len(made) < 5:
            kept = self.kept.get(self.run.next_key(self.now))
            if kept is not None and self.run.reuse(kept, self.now):
                continue
            self.next_task += 1
            task = self.run.start_next(self.next_task, self.now)
            if task is not None:
                assert task.origin is not None
                made.append((self.next_task, task.origin.step, task.array.count if task.array is not None else 0))
        deeds = self.run.take()
        if lost and self.random.random() < 0.5:
            self.take_over()
            self.turn(act)  # what happened is told again
            return
        self.commit(deeds)
        for task_id, path, elements in made:
            self.begin(task_id, path, elements)
        if lost:
            self.take_over()

    def take_over(self) -> None:
        """Another leader, who knows the rows alone."""
        self.takeovers += 1
        self.run = self.leader()
        if self.stored.state is not State.SUBMITTED and self.stored.state not in TERMINAL:
            self.run.begin(self.now)
            self.commit(self.run.take())
            known = set(self.run.tasks)
            stored = {step.task for step in self.rows.values() if step.task and step.state not in TERMINAL}
            if known != stored or not known <= set(self.tasks):
                raise Wrong(
                    f"the new leader knows tasks {sorted(known)}, stored are {stored}, {sorted(self.tasks)} run"
                )

    def commit(self, deeds: Deeds) -> None:
        for path, step in deeds.rows.items():
            before = self.rows.get(path)
            if before is not None and before.state in TERMINAL and before.state is not step.state:
                raise Wrong(f"{path} ended {before.state} and became {step.state}")
            self.rows[path] = copied(step)
        self.stored = copied(self.run.workflow)
        self.kept |= {kept.key: kept for kept in deeds.kept}
        for task in deeds.stops:
            if task in self.tasks:
                self.later(0.1, lambda task=task: self.ended(task, State.CANCELLED, None))  # type: ignore[misc]
        for at, path in deeds.wakes:
            if (at, path) not in self.waking:
                self.waking.add((at, path))
                self.at(at, lambda path=path, at=at: self.turn(lambda run: run.wake(path, max(at, self.now))))  # type: ignore[misc]

    # ------------------------------------------------------------ tasks

    def begin(self, task: int, path: str, elements: int) -> None:
        """A task was made: it runs, once."""
        if path in self.starts:
            raise Wrong(f"{path} is started twice")
        self.starts[path] = task
        self.tasks[task] = (path, elements)
        self.peak = max(self.peak, len(self.run.tasks))
        for ident, trigger in self.edges.get(undressed(path), ()):
            other = self.rows.get(path.rpartition("/")[0] + ("/" if "/" in path else "") + ident)
            if trigger != "any" and (other is None or other.state not in TERMINAL):
                raise Wrong(f"{path} is started before {ident} has ended")
        paths = [path] if not elements else [f"{path}[{i}]" for i in range(elements)]
        tries = [(p, *self.final(p)) for p in paths]
        seconds = max(self.documents.seconds(p, 1) * count for p, _, _, count in tries)
        state = State.SUCCEEDED if all(code == 0 for _, code, _, _ in tries) else State.FAILED
        output = tries[0][2] if not elements and state is State.SUCCEEDED else None
        self.later(seconds, lambda: self.ended(task, state, output))

    def final(self, path: str) -> tuple[int, Any, int]:
        """Exit code, output and number of the last try; retries are the task's own affair."""
        allowed = self.retries(path)
        for number, (code, output) in enumerate(self.documents.outcomes(path)[:allowed], 1):
            if code == 0 or number == allowed:
                return code, output, number
        raise AssertionError("there is a last try")

    def retries(self, path: str) -> int:
        step = find(self.document, undressed(path))
        return int(step.get("retry", {}).get("max_attempts", 1))

    def ended(self, task: int, state: State, output: Any) -> None:
        if task not in self.tasks:
            return
        path, _ = self.tasks[task]
        data = None if output is None else msgspec.json.encode(output)
        self.tasks_known(task, path)
        self.turn(lambda run: run.task_ended(path, TaskEnd(state, output=data), self.now))
        del self.tasks[task]

    def tasks_known(self, task: int, path: str) -> None:
        """The one that decides holds the task until its end is told; a take-over in between must see it run."""
        if self.run.tasks.get(task) != path:
            raise Wrong(f"task {task} of {path} is not known")

    # ------------------------------------------------------------ time

    def at(self, when: float, act: Callable[[], None]) -> None:
        self.order += 1
        heappush(self.happening, (max(when, self.now), self.order, act))

    def later(self, seconds: float, act: Callable[[], None]) -> None:
        self.at(self.now + seconds * self.random.uniform(0.5, 1.5), act)

    def whole(self) -> str:
        """Run to the end."""
        self.turn(lambda run: run.begin(self.now) if run.workflow.state is State.SUBMITTED else None)
        if self.cancel:
            self.later(self.random.uniform(0.0, 6.0), self.cancelled)
        for _ in range(20_000):
            if self.stored.state in TERMINAL:
                break
            if self.run.startable:
                self.turn(lambda run: None)
            elif self.happening:
                self.now, _, act = heappop(self.happening)
                act()
            else:
                raise Wrong(f"stuck: {[(p, s.state) for p, s in self.rows.items() if s.state not in TERMINAL]}")
        if self.stored.state not in TERMINAL:
            raise Wrong("does not end")
        if self.tasks:
            raise Wrong(f"it ended while {self.tasks} run")
        open_ones = [path for path, step in self.rows.items() if step.state not in TERMINAL]
        if open_ones:
            raise Wrong(f"it ended while {open_ones} are open")
        return str(self.stored.state)

    def cancelled(self) -> None:
        if self.stored.state not in TERMINAL:
            self.turn(lambda run: run.cancel(self.now) if not run.workflow.wish else None)


def undressed(path: str) -> str:
    """A path without positions: what the document declares."""
    out, skip = "", 0
    for c in path:
        skip += c == "["
        if not skip:
            out += c
        skip -= c == "]"
    return out


def find(document: dict[str, Any], path: str) -> dict[str, Any]:
    """The step that a path names."""
    at: dict[str, Any] = document
    step: dict[str, Any] = {}
    for name in path.split("/"):
        if "cases" in at or "default" in at:
            at = at["cases"][name] if name in at.get("cases", {}) else at["default"]
            continue
        inner = at
        if "workflow" in at:
            inner = at["workflow"] if isinstance(at["workflow"], dict) else document["workflows"][at["workflow"]]
        parts = [s for key in ("steps", "race", "on_failure", "finally") for s in inner.get(key) or ()]
        step = at = next(s for s in parts if s["id"] == name)
    return step


def declared_edges(document: dict[str, Any]) -> dict[str, list[tuple[str, str]]]:
    """Path without positions → (id, trigger) of what the step waits for."""
    found: dict[str, list[tuple[str, str]]] = {}

    def walk(block: dict[str, Any], prefix: str) -> None:
        for key in ("steps", "race", "on_failure", "finally"):
            for step in block.get(key) or ():
                path = prefix + step["id"]
                found[path] = [(edge["step"], step.get("trigger", "all")) for edge in edges_of(step)]
                if "steps" in step or "race" in step:
                    walk(step, f"{path}/")
                elif step.get("workflow"):
                    walk(document["workflows"][step["workflow"]], f"{path}/")
                for label, case in step.get("cases", {}).items():
                    walk(case, f"{path}/{label}/")
                if step.get("default"):
                    walk(step["default"], f"{path}/default/")

    walk(document, "")
    return found


def expected(drive: Drive) -> tuple[str, dict[str, str]]:
    """By the reference: the state of the workflow and of everything in it."""
    reference = Reference(drive.document, drive.documents.outcomes)
    return reference.run(), reference.states


def compare(drive: Drive, state: str) -> None:
    """Every end is the one that the reference has."""
    wanted, states = expected(drive)
    got = {path: str(step.state) for path, step in drive.rows.items()}
    arrays = arrays_of(drive.rows, states)
    states = {p: s for p, s in states.items() if not any(p.startswith(f"{a}[") for a in arrays)}
    differ = {p: (states.get(p), got.get(p)) for p in {*states, *got} if states.get(p) != got.get(p)}
    if differ or state != wanted:
        raise Wrong(f"the reference says {wanted}, this is {state}; (reference, here): {differ}")


def arrays_of(rows: dict[str, Step], states: dict[str, str]) -> set[str]:
    """Fan-outs that are one task with an array: they have no rows of elements, also when their task could not be made."""
    childless = {path for path in rows if f"{path}[0]" not in rows and f"{path}[0]" in states}
    return {p for p in childless if rows[p].task is not None or rows[p].reason.startswith("'")}
