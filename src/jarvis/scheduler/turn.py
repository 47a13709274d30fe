"""PURE: one turn of the leader: what has gathered goes in, rows for one commit and deeds that follow it come out.

Memory is changed as the turn goes; nobody else reads it before the commit returned, and a failed commit makes the leader
rebuild it from the store (docs/decisions/0009).
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import count, repeat
from typing import TYPE_CHECKING

import msgspec

from jarvis.core.attempt import Attempt, Placement
from jarvis.core.changes import Changes
from jarvis.core.effects import Alarm, Assign, Assignment, Effect, Gang, Recorded, ToNode, ToSession, Welcome
from jarvis.core.event import Event
from jarvis.core.ids import SOLO, ElementKey, fencing_token
from jarvis.core.parked import unpark
from jarvis.core.states import ON_NODE, TERMINAL, Cause, State, check_transition, may_follow, rollup
from jarvis.core.task import Element, Task
from jarvis.scheduler.cluster import Cluster, Placed
from jarvis.scheduler.cycle import Decision

if TYPE_CHECKING:
    from jarvis.core.workflow import Workflow

_spec_encoder = msgspec.msgpack.Encoder()


class Turn:
    """Collects what one turn does. ``now`` is database time; ``cause_id`` of what is being handled."""

    def __init__(self, cluster: Cluster, now: float, cause_id: str) -> None:
        self.cluster, self.now, self.cause_id = cluster, now, cause_id
        self.changes = Changes()
        self.effects: list[Effect] = []
        self._assignments: dict[int, list[Assignment]] = {}
        self._recorded: dict[int, list[int]] = {}
        self._specs: dict[int, msgspec.Raw] = {}
        self.ended_tasks: list[Task] = []
        self.steps_ended: list[Task] = []
        """Tasks of workflows that ended."""
        self.workflows_ended: list[Workflow] = []

    # ------------------------------------------------------------ events and rows

    def event(self, kind: str, key: ElementKey | None = None, **detail: str | float) -> None:
        """Record a fact about an element (or, without a key, about the cluster)."""
        if kind.startswith("node."):
            self.cluster.nodes_changed = True
        self._event(kind, key or ElementKey(0), int(detail.pop("attempt", 0)), int(detail.pop("node", 0)), detail)

    def _event(
        self, kind: str, key: ElementKey, attempt: int, node: int, detail: Mapping[str, str | int | float]
    ) -> None:
        self.cluster.last_seq += 1
        self.changes.events.append(
            Event(self.cluster.last_seq, self.now, kind, key[0], key[1], attempt, node, self.cause_id, dict(detail))
        )

    def events_alike(
        self, kind: State, keys: Sequence[ElementKey], attempts: Iterable[int] = repeat(0), node: int = 0,
        detail: dict[str, str | int | float] | None = None,
    ) -> None:  # fmt: skip
        """The same fact about each of these elements; ``attempts``: of which one, in turn."""
        said, now, cause_id, detail = str(kind), self.now, self.cause_id, {} if detail is None else detail
        self.changes.events += [
            Event(seq, now, said, key[0], key[1], attempt, node, cause_id, detail)
            for seq, key, attempt in zip(count(self.cluster.last_seq + 1), keys, attempts, strict=False)
        ]
        self.cluster.last_seq += len(keys)

    def begin(self, task: Task, state: State, reason: str = "") -> None:
        """A fresh task without an array, of which no element has a row, comes to its first state: nothing follows from that."""
        task.state, task.reason = state, reason
        self.cluster.last_seq = seq = self.cluster.last_seq + 1
        detail: dict[str, str | int | float] = {"reason": reason} if reason else {}
        self.changes.events.append(Event(seq, self.now, str(state), task.id, SOLO, 0, 0, self.cause_id, detail))

    def touch_task(self, task: Task) -> None:
        self.changes.tasks[task.id] = task

    def touch_attempt(self, attempt: Attempt) -> None:
        at = (attempt.task, attempt.index, attempt.attempt)
        if at not in self.changes.attempts_new:
            self.changes.attempts[at] = attempt

    # ------------------------------------------------------------ elements

    def element_at(self, task: Task, position: int) -> Element:
        """The element at a position, given a row of its own if it had none."""
        key = task.key_at(position)
        element = self.cluster.elements.get(key)
        if element is None:
            state = task.state if key.index == SOLO else task.base
            element = Element(task=task.id, index=key.index, state=state, reason=task.reason)
            self.cluster.add_element(element)
            self.changes.elements[key] = element
            self.changes.tasks[task.id] = task  # so that whoever keeps tasks read ahead sees that it has one
            if key.index != SOLO and position >= task.next_position:
                self.cluster.named_ahead.setdefault(task.id, set()).add(position)
        return element

    def move(self, task: Task, element: Element, after: State, reason: str = "", **detail: str | float) -> None:
        """Change an element's state by the table, with everything that is derived from it."""
        before, key = element.state, element.key
        if not may_follow(before, after):  # asked before the words for a mistake are made
            check_transition(f"task {key}", before, after, self.cause_id)
        element.state, element.reason = after, reason
        self.changes.elements[key] = element
        if task.spec.array is None:
            task.state, task.reason = after, reason
        else:
            self.count(task, before, after)
        if after is State.RUNNING and task.started_at is None:
            task.started_at = self.now
        if reason:
            detail["reason"] = reason
        self._event(str(after), key, element.attempt, element.node or 0, detail)
        if after in TERMINAL:
            self._element_ended(task, key)
        self.changes.tasks[task.id] = task

    def count(self, task: Task, before: State, after: State, many: int = 1) -> None:
        """So many elements of an array changed their state."""
        counts = task.counts
        counts[before] -= many
        if not counts[before]:
            del counts[before]
        counts[after] = counts.get(after, 0) + many
        task.state = rollup(counts)
        step = many * ((after in ON_NODE) - (before in ON_NODE))
        if step:
            self.cluster.on_nodes[task.id] = self.cluster.on_nodes.get(task.id, 0) + step

    def _element_ended(self, task: Task, key: ElementKey) -> None:
        self.cluster.drop_element(key)
        self.cluster.started_ahead.discard(key)
        if task.state in TERMINAL:
            self.task_ended(task)

    def task_ended(self, task: Task) -> None:
        """All its elements are at their end: it leaves memory, and those who wait for it are looked at."""
        task.ended_at = self.now
        self.touch_task(task)
        if self.cluster.tasks.pop(task.id, None) is not None:
            self.cluster.ledger.count_task(task.project, task.user, -1)
        self.cluster.on_nodes.pop(task.id, None)
        self.cluster.named_ahead.pop(task.id, None)
        self.cluster.waits_for.pop(task.id, None)
        self.cluster.foretold.pop(task.id, None)
        self.ended_tasks.append(task)
        if task.spec.origin is not None:
            self.steps_ended.append(task)

    def move_base(self, task: Task, after: State, reason: str = "") -> None:
        """Change all elements of a task that have no row of their own yet."""
        before = task.base if task.spec.array is not None else task.state
        if before is not after:
            check_transition(f"task {task.id}", before, after, self.cause_id)
        task.base, task.reason = after, reason
        if task.spec.array is None:
            task.state = after
        else:
            unnamed = task.counts.pop(before, 0)
            named = sum(1 for e in self._own_elements(task) if e.state is before)
            if named:
                task.counts[before] = named
            if unnamed - named:
                task.counts[after] = task.counts.get(after, 0) + unnamed - named
            task.state = rollup(task.counts)
        self.event(str(after), ElementKey(task.id), **({"reason": reason} if reason else {}))
        self.touch_task(task)
        if task.state in TERMINAL:
            self.task_ended(task)

    def _own_elements(self, task: Task) -> list[Element]:
        return [self.cluster.elements[ElementKey(task.id, i)] for i in self.cluster.by_task.get(task.id, ())]

    # ------------------------------------------------------------ attempts

    def assign(self, decision: Decision) -> None:
        """Give an element its next attempt on a node: the row is the fence, the message follows the commit. Of a gang this is
        rank 0, of which nothing is said yet."""
        cluster = self.cluster
        task, view = cluster.tasks[decision.key.task], cluster.nodes[decision.node]
        if type(task) is not Task:
            unpark(task)
        element = self.element_at(task, decision.position)
        restart = element.cause or ""
        if task.spec.array is not None:
            self._take_position(task, decision.position)
        number = view.node.next_number
        view.node.next_number = number + 1
        self.changes.nodes[view.node.id] = view.node
        element.attempt += 1
        element.token = fencing_token(cluster.incarnation, element.attempt)
        element.node, element.eligible_at, element.wish = view.node.id, None, ""
        key = element.key
        attempt = Attempt(
            task=task.id, index=element.index, attempt=element.attempt, token=element.token, node=view.node.id,
            number=number, placements=(Placement(0, view.node.id, task.spec.resources),), assigned_at=self.now,
        )  # fmt: skip
        cluster.attempts[key] = attempt
        self.changes.attempts_new[attempt.task, attempt.index, attempt.attempt] = attempt
        view.place(
            number,
            Placed(
                key,
                decision.placement_class,
                task.spec.resources,
                decision.ahead,
                until=decision.until,
                latest=decision.latest,
                held=decision.held,
            ),
        )
        need = task.spec.whole if decision.others else task.spec.resources
        cluster.ledger.change(task.project, task.user, need, self.now, 1)
        if task.spec.licenses:
            cluster.licenses.take(task.spec.licenses)
        if task.spec.keys or task.spec.affinities:
            cluster.carriers.add(task.spec, view.node.id)
        self.move(task, element, State.ASSIGNED)
        if not decision.others:
            self.send_assignment(task, element, attempt, decision.position, restart)

    def _take_position(self, task: Task, position: int) -> None:
        """Positions before ``next_position`` have a row of their own; the ones named before are passed over."""
        named = self.cluster.named_ahead.get(task.id, set())
        if position < task.next_position:
            return
        if position not in named:
            task.next_position = position + 1
        while task.next_position in named:
            named.discard(task.next_position)
            task.next_position += 1

    def send_assignment(
        self, task: Task, element: Element, attempt: Attempt, position: int, restart: str, *,
        rank: tuple[int, int, Gang] | None = None,
    ) -> None:  # fmt: skip
        """Queue the message for the node; also used to say it again after a reconnection. ``rank`` of a gang: its node, its
        number there, and what it is told of the others."""
        spec, deadline = self._told_of(task)
        node, number, gang = rank or (attempt.node, attempt.number, None)
        self._assignments.setdefault(node, []).append(
            Assignment(
                number, attempt.token, attempt.attempt, task.id, element.index, task.project, task.user,
                spec, position, task.size, restart, deadline, gang,
            )
        )  # fmt: skip

    def send_elements(self, task: Task, token: int, node: int, decisions: Iterable[tuple[int, Decision]]) -> None:
        """Queue the messages for the first attempts of elements of an array, each with its number on the node."""
        (spec, deadline), size = self._told_of(task), task.size
        self._assignments.setdefault(node, []).extend(
            Assignment(
                number, token, 1, task.id, decision.key[1], task.project, task.user, spec, decision.position, size, "", deadline
            )
            for number, decision in decisions
        )  # fmt: skip

    def _told_of(self, task: Task) -> tuple[msgspec.Raw, float | None]:
        """What every assignment of a task says: its spec, and seconds until its deadline."""
        spec = self._specs.get(task.id)
        if spec is None:
            spec = self._specs[task.id] = msgspec.Raw(_spec_encoder.encode(task.spec))
        return spec, None if task.spec.deadline is None else max(task.spec.deadline - self.now, 0.0)

    def end_attempt(self, key: ElementKey, state: State, cause: Cause, message: str = "") -> Attempt | None:
        """The current attempt of an element is over: its row gets its end, its node gets its room back."""
        attempt = self.cluster.attempts.pop(key, None)
        if attempt is None:
            return None
        view, task = self.cluster.nodes.get(attempt.node), self.cluster.tasks[key.task]
        if view is not None:
            view.remove(attempt.number)
            self.cluster.pools.touch(view.node.id)
        need = task.spec.whole if attempt.ranks else task.spec.resources
        self.cluster.ledger.change(task.project, task.user, need, self.now, -1)
        if task.spec.licenses:
            self.cluster.licenses.give_back(task.spec.licenses)
        if task.spec.keys or task.spec.affinities:
            for node in attempt.nodes:
                self.cluster.carriers.add(task.spec, node, -1)
        attempt.state, attempt.cause, attempt.message, attempt.ended_at = state, cause, message, self.now
        self.touch_attempt(attempt)
        return attempt

    def element_succeeded(self, task: Task, element: Element) -> None:
        """One of an array."""
        self.count(task, element.state, State.SUCCEEDED)
        self._element_ended(task, element.key)

    def send(self, node: int, assignments: list[Assignment]) -> None:
        """Queue these for the node, behind what it is to be told already."""
        self._assignments.setdefault(node, []).extend(assignments)

    def recorded(self, node: int, numbers: Iterable[int]) -> None:
        """The node may forget these ends once the commit is through."""
        self._recorded.setdefault(node, []).extend(numbers)

    def alarm(self, kind: str, text: str) -> None:
        self.effects.append(Alarm(kind, text, self.cause_id))
        self.event(f"alarm.{kind}", text=text)

    def floor(self, node: int) -> int:
        """Numbers below this are settled on that node."""
        view = self.cluster.nodes[node]
        return min(view.placed, default=view.node.next_number)

    def finish(self) -> list[Effect]:
        """Everything that follows the commit, messages to a node gathered into one."""
        for node, numbers in self._recorded.items():
            if node in self.cluster.nodes:
                self.effects.append(ToNode(node, Recorded(numbers=numbers, floor=self.floor(node)), self.cause_id))
        for node, assignments in self._assignments.items():
            self.effects.append(ToNode(node, Assign(assignments=assignments), self.cause_id))
        self._count_told()
        return self.effects

    def _count_told(self) -> None:
        """How many messages each node must have received in its session; a Welcome begins to count anew."""
        for effect in self.effects:
            if isinstance(effect, ToNode) and effect.node in self.cluster.nodes:
                self.cluster.nodes[effect.node].told += 1
            elif isinstance(effect, ToSession) and isinstance(effect.message, Welcome):
                view = self.cluster.nodes[effect.message.node]
                view.told = view.told_mark = 0
                view.told_mark_at = self.now
