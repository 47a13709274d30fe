"""What must hold: told by clients, processes and the disk what happened, never by the scheduler's own memory."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

import msgspec

from jarvis.core.attempt import Attempt, Rank
from jarvis.core.changes import Changes
from jarvis.core.gpus import WHOLE, room_of
from jarvis.core.ids import ElementKey
from jarvis.core.invariants import InvariantBroken, check_counts, require
from jarvis.core.parked import plain
from jarvis.core.resources import Resources, add, fits
from jarvis.core.states import INFRA_CAUSES, ON_NODE, TERMINAL, Cause, State
from jarvis.core.task import Element, Task, TaskSpec
from jarvis.sim.history import History
from jarvis.sim.scarcity import Scarcity
from jarvis.worker.machine import Work

if TYPE_CHECKING:
    from jarvis.scheduler.policy.preemption import Preemption

LOST_S = 20.0
"""So long a node must have been silent to be called lost; said here once more, because a judge asks nobody else."""
GIVEN_UP_S = 6.5
"""So long a node may go on talking in a session that its server gave up; what it says there is not heard."""
GUARANTEED = frozenset({"c0"})
"""Projects that may take back what others have borrowed."""
At = tuple[int, int, int]
"""(task, index, attempt)"""
Run = tuple[int, int, int, int]
"""(task, index, attempt, rank): what a process is; rank is 0 where there is no gang."""


class Judge:
    """Each method takes a fact and raises :class:`InvariantBroken` when it cannot be."""

    def __init__(self, now: Callable[[], float], history: History, heard_at: Callable[[str, float], float],
                 fail: Callable[[BaseException], None]) -> None:  # fmt: skip
        """``now`` is the time of the database; ``heard_at`` tells when the last frame of a node that had reached a server by
        an instant was sent; ``fail`` hears of a broken rule whoever catches it on its way."""
        self.now, self.history, self.heard_at, self._fail = now, history, heard_at, fail
        self.totals: dict[str, Resources] = {}
        self.specs: dict[int, TaskSpec] = {}
        """Of acknowledged tasks."""
        self.tasks: dict[int, Task] = {}
        self.elements: dict[ElementKey, Element] = {}
        self.attempts: dict[At, Attempt] = {}
        self.live: dict[Run, tuple[str, Work]] = {}
        """Processes that run now."""
        self.ran: dict[Run, tuple[Cause, int | None] | None] = {}
        """Everything that was ever started, with its end."""
        self.overlaps = 0
        self.scarcity = Scarcity(self._require)
        self.released: set[int] = set()
        """Tasks that somebody asked to release."""
        self.touched: set[int] = set()
        """Tasks about which somebody asked something."""
        self.drained = False
        """Somebody drained a node: what it stops on the way out may end by itself, which then does not count."""
        self.rules: Preemption | None = None
        """Who may preempt whom; None: nobody."""
        self.preempted: list[tuple[ElementKey, int]] = []
        """Victims, each with the task that they were stopped for."""
        self._barred: set[ElementKey | int] = set()
        self._cancels: dict[int, ElementKey | int] = {}
        self._keys: dict[str, Sequence[int]] = {}
        self._ordered: set[tuple[str, int, int]] = set()
        self._node_ids: dict[int, str] = {}
        self._by_number: dict[tuple[int, int], Run] = {}
        self._seq = 0

    def _require(self, holds: bool, text: str) -> None:
        try:
            require(holds, text)
        except InvariantBroken as error:
            self._fail(error)
            raise

    # ------------------------------------------------------------ clients

    def acknowledged(self, key: str, ids: Sequence[int], specs: Sequence[TaskSpec]) -> None:
        """A client was told that its tasks are safe."""
        self._require(len(ids) == len(specs), f"{len(specs)} tasks under {key}, {len(ids)} ids")
        before = self._keys.setdefault(key, ids)
        self._require(list(before) == list(ids), f"key {key} was answered with {before} and {ids}")
        self.specs.update(zip(ids, specs, strict=True))

    def cancel_asked(self, command: int, target: ElementKey | int) -> None:
        """A client was told that its cancel (of an element or of a whole task) will be acted on."""
        self._cancels[command] = target

    # ------------------------------------------------------------ the disk

    def committed(self, changes: Changes) -> None:
        """A turn of a leader is durable."""
        for event in changes.events:
            self._require(event.seq == self._seq + 1, f"event {event.seq} follows {self._seq}")
            self._seq = event.seq
        for node in changes.nodes.values():
            self._node_ids[node.id] = node.name
        self.scarcity.committed(changes)
        done = {command for command, refusal in changes.commands_done.items() if not refusal}
        self._barred.update(self._cancels[command] for command in sorted(done & self._cancels.keys()))
        for attempt in changes.attempts.values():
            self._attempt_changed(attempt)
        for attempt in changes.attempts_new.values():
            self._attempt_made(attempt, changes)
        for key, element in changes.elements.items():
            first = key not in self.elements
            self._require(not first or key.task in changes.tasks, f"the first row of {key} comes without its task's")
            self._element_changed(key, element)
        for task in changes.tasks.values():
            before = self.tasks.get(task.id)
            same = before is None or before.state not in TERMINAL or before.state is task.state
            self._require(same, f"task {task.id} ended as {before and before.state} and became {task.state}")
            self.tasks[task.id] = _copy(plain(task))
        for event in changes.events:
            if event.detail.get("reason") == "Preempted" and event.kind == "cancelling":
                by = int(str(event.detail["by"]).partition("_")[0])
                self.preempted.append((ElementKey(event.task, event.index), by))
            self.history.note("event", event.seq, event.kind, event.task, event.index, event.node, event.cause_id)

    def _attempt_made(self, attempt: Attempt, changes: Changes) -> None:
        at, key = _at(attempt), ElementKey(attempt.task, attempt.index)
        self._require(at not in self.attempts, f"attempt {at} was made twice")
        if attempt.attempt > 1:
            before = changes.attempts.get((*key, attempt.attempt - 1)) or self.attempts.get((*key, attempt.attempt - 1))
            self._require(before is not None and before.cause is not None, f"{at} before its predecessor ended")
            assert before is not None
            self._require(before.token < attempt.token, f"{at} has token {attempt.token} after {before.token}")
        self._placed(attempt, changes.tasks[key.task].spec.nodes)
        self._require(
            key not in self._barred and key.task not in self._barred, f"{key} is assigned after its cancel was done"
        )
        spec = changes.tasks[key.task].spec
        self._require(
            spec.deadline is None or attempt.assigned_at <= spec.deadline, f"{key} is assigned after its deadline"
        )
        self._require(spec.begin is None or attempt.assigned_at >= spec.begin, f"{key} is assigned before its begin")
        self._require(not spec.hold or key.task in self.released, f"{key} is assigned though it is held")
        for dependency in spec.after:
            other = changes.tasks.get(dependency.task) or self.tasks.get(dependency.task)
            self._require(
                other is not None and _met(dependency.kind, other.state), f"{key} does not wait for {dependency}"
            )
        self.scarcity.made(attempt, changes.tasks[key.task], [self._node_ids[node] for node in attempt.nodes])
        self._ends(attempt, None)
        self.attempts[at] = _copy(attempt)

    def _placed(self, attempt: Attempt, wanted: int) -> None:
        """On as many nodes as are wanted, under numbers that nothing else has there: a gang is never partial."""
        at = _at(attempt)
        ranks: Sequence[Attempt | Rank] = attempt.ranks or (attempt,)
        nodes = {rank.node for rank in ranks}
        self._require(len(nodes) == len(ranks) == wanted, f"{at} is on {len(nodes)} nodes, {wanted} are wanted")
        for rank, place in enumerate(ranks):
            number = (place.node, place.number)
            before = self._by_number.get(number)
            self._require(before is None, f"number {number} is of {before} and of {at}")
            self._by_number[number] = (*at, rank)

    def _ends(self, attempt: Attempt, before: Attempt | None) -> None:
        """What is said to have ended in it since: the attempt, or some of its ranks and then itself with all of them."""
        if attempt.cause is not None:
            self.scarcity.ended(attempt)
        if not attempt.ranks:
            if attempt.cause is not None:
                self._run_ended((*_at(attempt), 0), attempt)
            return
        for at, rank in enumerate(attempt.ranks):
            if rank.cause is not None and (before is None or before.ranks[at].cause is None):
                self._run_ended((*_at(attempt), at), rank)
        over = all(rank.cause is not None for rank in attempt.ranks)
        self._require(over or attempt.cause is None, f"{_at(attempt)} has ended, and some of its ranks have not")
        well = all(rank.went_well for rank in attempt.ranks)
        self._require(
            attempt.cause is None or well is _went_well(attempt), f"{_at(attempt)} does not end as its ranks did"
        )

    def _attempt_changed(self, attempt: Attempt) -> None:
        at = _at(attempt)
        before = self.attempts[at]
        self._require(before.cause is None, f"attempt {at} ended by {before.cause} and is changed: {attempt.cause}")
        self._ends(attempt, before)
        self.attempts[at] = _copy(attempt)

    def _run_ended(self, at: Run, attempt: Attempt | Rank) -> None:
        """The end that is recorded is the one that happened."""
        cause = attempt.cause
        node = self._node_ids[attempt.node]
        if cause is Cause.NODE_LOST:
            decided = attempt.ended_at or self.now()
            silent = decided - self.heard_at(node, decided)
            is_silent = "anew" in attempt.message or silent >= LOST_S - GIVEN_UP_S
            is_silent = is_silent or self.ran.get(at) == (Cause.NODE_LOST, None)  # ended by its own node
            self._require(is_silent, f"{at}: node {node} is called lost, {silent:.1f} s after it was heard of")
            if at in self.live and "anew" not in attempt.message:
                fenced = self.live[at][1].spec.on_lost == "fence"
                self._require(not fenced, f"{at} is superseded, and its process lives on {node}, though it is fenced")
                return
        self._require(at not in self.live, f"{at} ends by {cause}, and its process lives on {node}")
        if cause is Cause.RECALLED:
            self._require(at not in self.ran, f"{at} was given back, but it has run")
        elif cause in (Cause.EXIT, Cause.TIMEOUT):
            self._require(self.ran.get(at) == (cause, attempt.exit_code), f"{at} did not end so: {self.ran.get(at)}")

    def _element_changed(self, key: ElementKey, element: Element) -> None:
        before = self.elements.get(key)
        if before is not None and before.state in TERMINAL:
            self._require(
                before.state is element.state, f"element {key} ended as {before.state} and became {element.state}"
            )
        self.elements[key] = _copy(element)
        if before is None or before.state is not element.state:
            self._check_throttle(key.task)

    def _check_throttle(self, ident: int) -> None:
        spec = self.specs.get(ident)
        throttle = spec.array.throttle if spec is not None and spec.array is not None else None
        if throttle is not None:
            on_nodes = sum(1 for k, e in self.elements.items() if k.task == ident and e.state in ON_NODE)
            self._require(
                on_nodes <= throttle, f"array {ident} has {on_nodes} elements on nodes, at most {throttle} may be"
            )

    # ------------------------------------------------------------ nodes

    def start_ordered(self, node: str, boot: int, work: Work) -> None:
        """An agent told its supervisor to start something."""
        order = (node, boot, work.number)
        self._require(order not in self._ordered, f"node {node} starts number {work.number} a second time")
        self._ordered.add(order)

    def process_started(self, node: str, work: Work) -> None:
        at = _work_at(work)
        self.history.note("start", node, *_named(work))
        attempt = self.attempts.get(at[:3])
        self._require(attempt is not None, f"{at} runs on {node} without having been committed")
        assert attempt is not None
        place = attempt.ranks[at[3]] if attempt.ranks else attempt
        self._require(
            attempt.token == work.assignment.token and place.number == work.number, f"{at} runs under another name"
        )
        self._require(self._node_ids[place.node] == node, f"{at} runs on {node}, it was meant for {place.node}")
        self._require(at not in self.ran, f"{at} is run twice")
        unseen = (None,) if work.spec.on_lost == "fence" else (None, Cause.NODE_LOST)
        self._require(place.cause in unseen, f"{at} runs after it ended by {place.cause}")
        for other, (where, _) in self.live.items():
            if other[:2] == at[:2] and other[:3] != at[:3]:
                self.overlaps += 1
                fenced = work.spec.on_lost == "fence"
                self._require(not fenced, f"{other} runs on {where}, {at} on {node}, though it is fenced")
                first, second = self.attempts[other[:3]], attempt
                self._require(
                    not (first.cause is None and second.cause is None), f"{other} runs on {where}, {at} on {node}"
                )
        self.live[at] = (node, work)
        self.ran[at] = None
        used: Resources = {}
        parts: dict[int, int] = {}
        memory: dict[int, int] = {}
        for where, other_work in self.live.values():
            if where == node:
                used = add(used, other_work.spec.resources)
                for share in other_work.shares:
                    parts[share.gpu] = parts.get(share.gpu, 0) + share.part
                    memory[share.gpu] = memory.get(share.gpu, 0) + share.memory
        self._require(fits(used, self.totals[node]), f"{used} runs on {node}, which has {self.totals[node]}")
        self._require(all(part <= WHOLE for part in parts.values()), f"GPUs of {node} are shared as {parts}")
        sizes = room_of(self.totals[node]).sizes
        self._require(all(m <= sizes[gpu] for gpu, m in memory.items()), f"GPU memory of {node} is shared as {memory}")

    def process_ended(self, node: str, work: Work, cause: Cause, exit_code: int | None) -> None:
        at = _work_at(work)
        self.history.note("over", node, *_named(work), cause, exit_code)
        self.live.pop(at, None)
        if self.ran.get(at, ()) is None:
            self.ran[at] = (cause, exit_code)

    def forgotten(self, node: str, number: int) -> None:
        """A node was told that an end is recorded."""
        ident = next(i for i, name in self._node_ids.items() if name == node)
        *at, rank = self._by_number[ident, number]
        attempt = self.attempts[at[0], at[1], at[2]]
        ended = attempt.ranks[rank] if attempt.ranks else attempt
        self._require(
            ended.cause is not None, f"node {node} was told to forget {number}, whose end is recorded nowhere"
        )

    # ------------------------------------------------------------ the end

    def settled(self, tasks: Iterable[Task], elements: Mapping[int, list[Element]], calm: bool) -> None:
        """All faults are over and everything has had its time. ``calm``: there were none."""
        stored = {task.id: task for task in tasks}
        self._require(not self.live, f"processes are left: {sorted(self.live)}")
        for ident, spec in self.specs.items():
            self._require(ident in stored, f"task {ident} was acknowledged and is gone")
            task = stored[ident]
            self._require(task.state in TERMINAL, f"task {ident} is {task.state} at the end ({task.reason})")
            own = {element.index: element for element in elements[ident]}
            if spec.array is not None:
                all_states = [
                    own[i].state if (i := spec.array.index_at(p)) in own else task.base for p in range(task.size)
                ]
                check_counts(task, all_states)
            for element in own.values():
                self._settled_element(spec, task, element, calm)
        for victim, by in self.preempted:
            self._rightly_preempted(stored[victim.task], stored[by])

    def _rightly_preempted(self, mine: Task, other: Task) -> None:
        """A strictly higher one is the reason, or one that is guaranteed what others have borrowed; never its own task."""
        victim, rules = f"task {mine.id}", self.rules
        self._require(rules is not None and other.id != mine.id, f"{victim} is preempted by {other.id}")
        assert rules is not None
        higher = rules.by is not None and other.spec.priority >= mine.spec.priority + rules.by
        reclaims = other.project in GUARANTEED and mine.project not in GUARANTEED
        self._require(higher or reclaims, f"{victim} is preempted by {other.id}, which is no more urgent")
        self._require(mine.spec.preemptible and mine.spec.on_lost != "never", f"{victim} may not be preempted")

    def _settled_element(self, spec: TaskSpec, task: Task, element: Element, calm: bool) -> None:
        own = [self.attempts[*element.key, n] for n in range(1, element.attempt + 1)]
        self._require(all(a.cause is not None for a in own), f"{element.key} has an attempt without an end")
        exits = [a for a in own if a.cause is Cause.EXIT]
        failures = sum(1 for a in exits if a.exit_code) + sum(
            1 for a in own if a.cause in (Cause.TIMEOUT, Cause.START_FAILED)
        )
        allowed = failures <= spec.retry.max_attempts or task.id in self.touched or self.drained
        self._require(allowed, f"{element.key} failed {failures} times of {spec.retry.max_attempts}")
        if element.state is State.SUCCEEDED:
            self._require(
                bool(own) and exits[-1:] == own[-1:] and own[-1].exit_code == 0, f"{element.key} did not succeed"
            )
        if element.state is State.FAILED and element.cause == Cause.EXIT:
            wanted = spec.retry.max_attempts
            counted = element.failures == wanted and (failures == wanted or task.id in self.touched or self.drained)
            self._require(counted, f"{element.key} failed {failures} ({element.failures}) times, {wanted} were wanted")
        preempted = sum(1 for a in own if a.cause is Cause.PREEMPTED)
        self._require(
            element.preemptions == preempted, f"{element.key}: {element.preemptions} of {preempted} are counted"
        )
        lost = [a for a in own if a.cause in INFRA_CAUSES]
        again = lost and lost[-1] is not own[-1]
        self._require(spec.on_lost != "never" or not again, f"{element.key} ran again after it was lost")
        counted_losses = element.infra_losses in (len(lost), len(lost) - 1)
        self._require(
            counted_losses or not again, f"{element.key}: {element.infra_losses} losses counted of {len(lost)}"
        )
        if calm:
            self._require(not lost, f"{element.key} was lost without a fault: {lost[:1]}")
        if (
            calm
            and not (self.drained or preempted)
            and task.id not in self.touched
            and spec.deadline is None
            and not spec.after
        ):
            self._as_planned(spec, element, own)

    def _as_planned(self, spec: TaskSpec, element: Element, own: list[Attempt]) -> None:
        """Nobody and nothing interfered: it did what its command says."""
        assert isinstance(spec.command, tuple)
        _, seconds, *codes = spec.command
        if float(seconds) < 0 or spec.time_limit is not None:
            return
        made = [a for a in own if a.cause not in (Cause.RECALLED, Cause.REQUEUED, Cause.PREEMPTED)]
        codes_of = [
            int(codes[min(a.attempt, len(codes)) - 1]) for a in made
        ]  # those that did not begin have a number, too
        good = codes_of[-1:] == [0]
        self._require(element.state is (State.SUCCEEDED if good else State.FAILED), f"{element.key} is {element.state}")
        self._require(all(codes_of[:-1]), f"{element.key} ran again after it succeeded: {codes_of}")
        tried = len(made) if good else spec.retry.max_attempts
        self._require(len(made) == tried, f"{element.key} took {len(made)} attempts of {tried}: {codes_of}")


def _met(kind: str, state: State) -> bool:
    return state in TERMINAL and (kind == "afterany" or (state is State.SUCCEEDED) is (kind == "afterok"))


def _at(attempt: Attempt) -> At:
    return (attempt.task, attempt.index, attempt.attempt)


def _went_well(attempt: Attempt) -> bool:
    return attempt.cause is Cause.EXIT and attempt.exit_code == 0


def _work_at(work: Work) -> Run:
    return (work.assignment.task, work.assignment.index, work.assignment.attempt, work.rank)


def _named(work: Work) -> tuple[int, ...]:
    """As the history tells it: the rank where there is a gang."""
    at = _work_at(work)
    return at if work.assignment.gang is not None else at[:3]


T = TypeVar("T", bound=msgspec.Struct)


def _copy(value: T) -> T:
    """Memory goes on changing, what is durable does not."""
    return msgspec.msgpack.decode(msgspec.msgpack.encode(value), type=type(value))
