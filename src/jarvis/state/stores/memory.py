"""The store in memory: the oracle that the others are held against, and a choice for work that need not survive."""

import dataclasses
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from jarvis.core.attempt import Attempt
from jarvis.core.booking import Booking
from jarvis.core.changes import Changes
from jarvis.core.command import Command, NewCommand
from jarvis.core.errors import (
    CursorTooOld,
    IdempotencyConflict,
    InvalidValue,
    JarvisError,
    LeadershipHeld,
    StaleEpoch,
    StoreUnavailable,
)
from jarvis.core.event import Event
from jarvis.core.ids import SOLO, ElementKey
from jarvis.core.node import Node
from jarvis.core.parked import plain
from jarvis.core.quota import Quota, Used
from jarvis.core.states import HELD_BY_USER, ON_NODE, TERMINAL, State
from jarvis.core.task import Element, Task
from jarvis.state.coordination import TAKEOVERS, Leader, Leadership, Replica, Takeover, Token, takeover_cause
from jarvis.state.persistence import (
    AWAITING,
    ID_JUMP,
    INCARNATION_EPOCH,
    KEY_S,
    REPLICA_S,
    blobs_of,
    live_page,
    matches,
    new_task,
    outcome_of,
    specs_of,
)
from jarvis.state.store import (
    Accepted,
    Bodies,
    Counts,
    Early,
    IdempotencyKey,
    Live,
    Outcome,
    Report,
    Submission,
    TaskFilter,
)
from jarvis.state.stores.memory_workflows import MemoryWorkflows, copy_of


class MemoryStore(MemoryWorkflows):
    """See the port. One event loop, no threads; nothing survives the process."""

    durable = False

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        super().__init__()
        self._clock = clock
        self._elements: dict[ElementKey, Element] = {}
        self._attempts: dict[tuple[int, int, int], Attempt] = {}
        self._nodes: dict[int, Node] = {}
        self._bookings: dict[int, Booking] = {}
        self._quotas: dict[tuple[str, str], Quota] = {}
        self._used: dict[tuple[str, str], Used] = {}
        self._commands: dict[int, Command] = {}
        self._reports: dict[int, Report] = {}
        self._packs: list[list[Event]] = []
        """What each commit recorded."""
        self._tokens: dict[str, Token] = {}
        self._next_command = self._next_report = self._next_node = 1
        self._last_seq = self._dropped_seq = 0
        self._leadership = Leadership(max(1, int(clock()) - INCARNATION_EPOCH), 0)
        self._holder, self._lease_end, self._renewed_at = "", 0.0, 0.0
        self._takeovers: deque[Takeover] = deque(maxlen=TAKEOVERS)
        self._replicas: dict[str, Replica] = {}
        self._node_replicas: dict[int, str] = {}
        self._secrets: dict[str, bytes] = {}

    async def open(self) -> None:
        return None

    async def close(self) -> None:
        return None

    async def now(self) -> float:
        return self._clock()

    async def check(self) -> float:
        return 0.0

    # ------------------------------------------------------------ coordination

    async def leadership_acquire(self, holder: str, lease_s: float = 0.0) -> Leadership:
        now = self._clock()
        if self._lease_end > now:
            raise LeadershipHeld(self._holder, self._lease_end - now)
        before = self._leadership.epoch
        self._leadership = Leadership(self._leadership.incarnation, before + 1)
        released = self._lease_end == self._renewed_at
        cause = takeover_cause(before, lease_s=lease_s, left_s=self._lease_end - now, released=released)
        self._takeovers.append(Takeover(before + 1, holder, now, cause, now - self._renewed_at if before else 0.0))
        self._holder, self._lease_end, self._renewed_at = holder, now + lease_s, now
        return self._leadership

    async def leadership_renew(self, leadership: Leadership, lease_s: float) -> None:
        self._still(leadership)
        self._renewed_at = self._clock()
        self._lease_end = self._renewed_at + lease_s

    async def leadership_release(self, leadership: Leadership) -> None:
        if leadership == self._leadership:
            self._lease_end = self._renewed_at = self._clock()

    async def takeover_list(self, limit: int) -> list[Takeover]:
        return list(self._takeovers)[::-1][:limit]

    async def leader_get(self) -> Leader:
        return Leader(self._holder, self._leadership, self._lease_end - self._clock())

    def _still(self, leadership: Leadership) -> None:
        if leadership != self._leadership:
            raise StaleEpoch(f"epoch {leadership.epoch} is over, {self._leadership.epoch} leads")

    async def incarnation_bump(self, reason: str) -> int:
        incarnation = max(self._leadership.incarnation + 1, int(self._clock()) - INCARNATION_EPOCH)
        self._leadership = Leadership(incarnation, self._leadership.epoch)
        self._next_task += ID_JUMP
        return incarnation

    async def replica_seen(self, replica: Replica) -> None:
        now = self._clock()
        self._replicas[replica.name] = dataclasses.replace(replica, seen_at=now)
        self._replicas = {n: r for n, r in self._replicas.items() if r.seen_at > now - REPLICA_S}

    async def replica_list(self, max_age_s: float) -> list[Replica]:
        oldest = self._clock() - max_age_s
        return [r for _, r in sorted(self._replicas.items()) if r.seen_at >= oldest]

    async def node_seen_many(self, seen: Sequence[tuple[int, float, dict[str, float]]], replica: str = "") -> None:
        for node, at, health in seen:
            if node in self._nodes:
                self._nodes[node].seen_at, self._nodes[node].health = at, dict(health)
                self._node_replicas[node] = replica

    async def node_replicas(self) -> dict[int, str]:
        return {node: name for node, name in self._node_replicas.items() if name and node in self._nodes}

    async def secret_keep(self, name: str, value: bytes) -> bytes:
        return self._secrets.setdefault(name, value)

    async def token_put(self, token: Token) -> None:
        self._tokens[token.hash] = token

    async def token_take(self, token_hash: str) -> Token | None:
        taken = self._tokens.pop(token_hash, None)
        return taken if taken is not None and self._valid(taken) else None

    async def token_list(self) -> list[Token]:
        return [t for _, t in sorted(self._tokens.items()) if self._valid(t)]

    def _valid(self, token: Token) -> bool:
        return token.expires_at is None or token.expires_at > self._clock()

    # ------------------------------------------------------------ wishes and facts

    async def task_insert_many(
        self, submissions: Sequence[Submission], early: Early | None = None
    ) -> list[Accepted | JarvisError]:
        answers = [self._insert(submission) for submission in submissions]
        if early is not None:
            early(answers)
        return answers

    def _insert(self, submission: Submission) -> Accepted | JarvisError:
        specs = specs_of(submission)
        if isinstance(specs, InvalidValue):
            return specs
        if submission.idempotency is not None:
            try:
                before = self._answered(submission.idempotency)
            except IdempotencyConflict as error:
                return error
            if before is not None:
                return before
        now = self._clock()
        first = self._next_task
        for new in submission.tasks:
            self._tasks[self._next_task] = copy_of(new_task(self._next_task, new, now))
            self._next_task += 1
        accepted = Accepted(tuple(range(first, self._next_task)), now)
        if submission.idempotency is not None:
            self._remember(submission.idempotency, accepted)
        return accepted

    async def command_insert_many(self, commands: Sequence[NewCommand]) -> list[Command]:
        stored = []
        for body in commands:
            stored.append(Command(id=self._next_command, at=self._clock(), body=body))
            self._commands[self._next_command] = stored[-1]
            self._next_command += 1
        return stored

    async def report_insert_many(self, reports: Sequence[tuple[int, bytes]]) -> list[int]:
        ids = []
        for node, body in reports:
            self._reports[self._next_report] = Report(self._next_report, node, body)
            ids.append(self._next_report)
            self._next_report += 1
        return ids

    # ------------------------------------------------------------ the leader

    async def leader_commit(self, leadership: Leadership, changes: Changes) -> None:
        self._still(leadership)
        if any(at in self._attempts for at in changes.attempts_new):
            raise StaleEpoch("an attempt that is to be new is there already")
        for at, attempt in changes.attempts.items():
            stored = changes.attempts_new.get(at) or self._attempts.get(at)
            if stored is None or stored.token != attempt.token:
                raise StaleEpoch(f"attempt {at} is not current under token {attempt.token}")
        self._commit_workflows(changes)
        for task in self._submitted_within(changes.queued):
            task.state = State.QUEUED
        for task in self._submitted_within(changes.held):
            task.state, task.base, task.reason = State.HELD, State.HELD, HELD_BY_USER
        for task in changes.tasks.values():
            if task.id in self._tasks:
                self._tasks[task.id] = copy_of(plain(task))
        for element in changes.elements.values():
            self._put_element(element, alone=element.task not in changes.tasks)
        for at, attempt in {**changes.attempts_new, **changes.attempts}.items():
            self._attempts[at] = copy_of(attempt)
        self._commit_rest(changes)

    def _submitted_within(self, ranges: list[tuple[int, int]]) -> Iterator[Task]:
        for first, last in ranges:
            for ident in range(first, last + 1):
                if ident in self._tasks and self._tasks[ident].state is State.SUBMITTED:
                    yield self._tasks[ident]

    def _put_element(self, element: Element, alone: bool) -> None:
        """The only element of a task has the task's state and reason; ``alone``: nothing is said of the task itself."""
        if element.index == SOLO:
            task = self._tasks.get(element.task)
            if task is None:
                return
            if alone:
                task.state, task.reason = element.state, element.reason
        self._elements[element.key] = copy_of(element)

    def _element(self, key: ElementKey) -> Element:
        element = copy_of(self._elements[key])
        if key.index == SOLO:
            element.state, element.reason = self._tasks[key.task].state, self._tasks[key.task].reason
        return element

    def _commit_rest(self, changes: Changes) -> None:
        for node in changes.nodes.values():
            self._nodes[node.id] = copy_of(node)
            self._next_node = max(self._next_node, node.id + 1)
        for ident in changes.nodes_removed:
            self._nodes.pop(ident, None)
            self._node_replicas.pop(ident, None)
        for owner, quota in changes.quotas.items():
            self._quotas.pop(owner, None)
            if quota is not None:
                self._quotas[owner] = quota
        for ident, booking in changes.bookings.items():
            self._bookings.pop(ident, None)
            if booking is not None:
                self._bookings[ident] = booking
        self._used.update(changes.used)
        for ident in changes.commands_done:
            self._commands.pop(ident, None)
        for ident in changes.reports_done:
            self._reports.pop(ident, None)
        if changes.events:
            self._packs.append(list(changes.events))
            self._last_seq = changes.events[-1].seq

    async def task_list_submitted(self, limit: int) -> list[Task]:
        return [copy_of(t) for t in sorted(self._tasks.values(), key=lambda t: t.id) if t.state is State.SUBMITTED][
            :limit
        ]

    async def task_list_live(self, after_id: int, limit: int) -> list[Task]:
        live = (t for _, t in sorted(self._tasks.items()) if t.id > after_id and t.state not in TERMINAL)
        return [copy_of(t) for t, _ in zip(live, range(limit), strict=False)]

    async def live_take(self, after_id: int, limit: int) -> Live:
        return await live_page(self, after_id, limit)

    async def element_list_live(self, tasks: Sequence[int]) -> list[Element]:
        wanted = set(tasks)
        found = [self._element(key) for key in sorted(self._elements) if key.task in wanted]
        return [element for element in found if element.state not in TERMINAL]

    async def attempt_list_current(self, tasks: Sequence[int]) -> list[Attempt]:
        on_nodes = [e for e in await self.element_list_live(tasks) if e.state in ON_NODE]
        return [copy_of(self._attempts[e.task, e.index, e.attempt]) for e in on_nodes]

    async def attempt_list_ended(self, tasks: Sequence[int]) -> list[Attempt]:
        wanted = set(tasks)
        last = {at[:2]: a for at, a in sorted(self._attempts.items()) if at[0] in wanted and at[1] < 8}
        return [copy_of(a) for _, a in sorted(last.items()) if a.ended_at is not None]

    async def command_list_open(self, limit: int) -> list[Command]:
        return [c for _, c in sorted(self._commands.items())][:limit]

    async def report_list_open(self, limit: int) -> list[Report]:
        return [r for _, r in sorted(self._reports.items())][:limit]

    async def event_last_seq(self) -> int:
        return self._last_seq

    async def node_list(self) -> list[Node]:
        return [copy_of(n) for _, n in sorted(self._nodes.items())]

    async def quota_list(self) -> list[Quota]:
        return [quota for _, quota in sorted(self._quotas.items())]

    async def booking_list(self) -> list[Booking]:
        return [booking for _, booking in sorted(self._bookings.items())]

    async def used_list(self) -> list[Used]:
        return [used for _, used in sorted(self._used.items())]

    async def node_next_id(self) -> int:
        return self._next_node

    # ------------------------------------------------------------ reads

    async def task_get_many(self, ids: Sequence[int]) -> list[Task]:
        return [copy_of(self._tasks[i]) for i in ids if i in self._tasks]

    async def outcome_list(self, tasks: Sequence[int]) -> list[Outcome]:
        found = (self._tasks[i] for i in sorted(set(tasks)) if i in self._tasks)
        return [self._outcome(task) for task in found if task.ended_at is not None]

    def _outcome(self, task: Task) -> Outcome:
        tries = [a for at, a in sorted(self._attempts.items()) if at[:2] == (task.id, SOLO)]
        if not tries:
            return Outcome(task.id, task.project, task.state)
        return outcome_of(task, tries[-1])

    async def task_list(self, where: TaskFilter, before_id: int | None, limit: int) -> list[Task]:
        found = []
        for ident in sorted(self._tasks, reverse=True):
            if (before_id is None or ident < before_id) and matches(where, self._tasks[ident]):
                found.append(copy_of(self._tasks[ident]))
                if len(found) == limit:
                    break
        return found

    async def element_get_many(self, keys: Sequence[ElementKey]) -> list[Element]:
        return [self._element(key) for key in keys if key in self._elements]

    async def element_list(self, task: int, states: frozenset[State], after_index: int, limit: int) -> list[Element]:
        found = [self._element(key) for key in sorted(self._elements) if key.task == task and key.index > after_index]
        return [element for element in found if not states or element.state in states][:limit]

    async def attempt_list(self, key: ElementKey) -> list[Attempt]:
        return [copy_of(a) for at, a in sorted(self._attempts.items()) if at[:2] == tuple(key)]

    async def event_list(self, after_seq: int, limit: int, task: int | None = None) -> list[Event]:
        if after_seq < self._dropped_seq:
            raise CursorTooOld(f"{self._leadership.incarnation}.{self._dropped_seq}")
        found = (e for pack in self._packs for e in pack if e.seq > after_seq and (task is None or e.task == task))
        return [e for e, _ in zip(found, range(limit), strict=False)]

    async def event_oldest_seq(self) -> int:
        return self._dropped_seq

    async def counts(self) -> Counts:
        by_state: dict[State, int] = {}
        for task in self._tasks.values():
            by_state[task.state] = by_state.get(task.state, 0) + 1
        return Counts(by_state, self._last_seq - self._dropped_seq)

    async def idempotency_get(self, key: IdempotencyKey) -> Accepted | None:
        return self._answered(key)

    # ------------------------------------------------------------ maintenance

    async def task_delete_ended(self, before: float, limit: int) -> list[int]:
        needed = {d.task for t in self._tasks.values() if t.state in AWAITING for d in t.spec.after}
        ended = sorted(
            (t.ended_at, t.id) for t in self._tasks.values() if t.ended_at is not None and t.id not in needed
        )
        gone = sorted([ident for at, ident in ended if at < before][:limit])
        dropped = set(gone)
        self._tasks = {i: t for i, t in self._tasks.items() if i not in dropped}
        self._elements = {k: e for k, e in self._elements.items() if k.task not in dropped}
        self._attempts = {k: a for k, a in self._attempts.items() if k[0] not in dropped}
        week_ago = self._clock() - KEY_S
        self._keys = {k: v for k, v in self._keys.items() if v[1].submitted_at >= week_ago}
        return gone

    async def blob_list_referenced(
        self, submitted_before: float, after_id: int, limit: int
    ) -> list[tuple[int, str, Bodies]]:
        page = [
            t for t in sorted(self._tasks.values(), key=lambda t: t.id)
            if t.id > after_id and t.submitted_at < submitted_before
        ][:limit]  # fmt: skip
        return [
            (t.id, t.project, blobs_of(t.spec, [a for a in self._attempts.values() if a.task == t.id])) for t in page
        ]

    async def event_delete_before(self, before: float, limit: int) -> int:
        dropped_before = self._dropped_seq
        for _ in range(limit):
            if not self._packs or self._packs[0][-1].at >= before:
                break
            self._dropped_seq = self._packs.pop(0)[-1].seq
        return self._dropped_seq - dropped_before

    async def space_return(self) -> None:
        return None

    async def backup(self, path: Path) -> None:
        raise StoreUnavailable("the memory store has nothing on disk to back up")
