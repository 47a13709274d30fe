"""SHELL: the leader's loop: what has gathered → one turn → one commit → the deeds that follow it."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass

from jarvis.bus.bus import Bus
from jarvis.core.effects import AckFrame, Refused, Seen, ToNode, ToSession
from jarvis.core.errors import StaleEpoch, StoreUnavailable
from jarvis.core.ids import ElementKey
from jarvis.core.inputs import (
    CommandsTaken,
    Input,
    LookAgain,
    NodesSeen,
    ReportTaken,
    TasksTaken,
    WorkflowsTaken,
    decode_facts,
)
from jarvis.core.node import DEFAULT_WINDOWS, Windows
from jarvis.core.states import ON_NODE, TERMINAL, State
from jarvis.core.task import Task
from jarvis.monitor.heartbeat_monitor import Heard, Verdict, judge
from jarvis.scheduler import bookings, nodes
from jarvis.scheduler.cluster import Cluster, NodeView
from jarvis.scheduler.cycle import Plan, Policy
from jarvis.scheduler.placement import on_tasks_ended
from jarvis.scheduler.quotas import load
from jarvis.scheduler.reactor import adopt, handle, place, rebuild_attempts, rebuild_tasks, run_timers
from jarvis.scheduler.recall import Recall
from jarvis.scheduler.schedules import Schedules
from jarvis.scheduler.turn import Turn
from jarvis.scheduler.workflows import Workflows
from jarvis.state.coordination import Leadership
from jarvis.state.store import Live, Store
from jarvis.utils.clock import Clock

log = logging.getLogger("jarvis.scheduler")

POLL_S = 2.0
"""How often the store is asked for what no hint announced."""
STARTED_S = 0.2
"""How long ``running`` may wait for a commit that has another reason."""
PAGE = 2000
RETRY_S = 0.5
RENEW_S = 1.0
"""How often a lease is renewed, on this loop itself, so that a leader that stalls loses it."""
SILENT_S = 4.0
"""A node not heard of for so long may be heard by a server whose messages do not come through: the store knows."""
ACTED_ON_LIMIT = 10_000
TAKEN_AT_ONCE = 1000
"""New tasks: about 10 ms; one submission may bring ten times as many."""


@dataclass(slots=True)
class Heartbeat:
    """What health checks look at: when the loop last came round, and what stopped it if it stopped."""

    at: float = 0.0
    turns: int = 0
    found_by_poll: int = 0
    last_error: str = ""


class Scheduler:
    """Leads as long as its epoch is the stored one. ``run`` returns when it is stopped or superseded.

    ``lease_s``: for how long to lead without a renewal; 0 where no other process can open the store. ``windows``: how long
    nodes may be silent. ``recall``: so many ended tasks are read, to predict by them.
    """

    def __init__(
        self, store: Store, bus: Bus, clock: Clock, policy: Callable[[], Policy], holder: str,
        *, lease_s: float = 0.0, windows: Windows = DEFAULT_WINDOWS, recall: int = 0,
    ) -> None:  # fmt: skip
        self.store, self.bus, self.clock, self.policy, self.holder = store, bus, clock, policy, holder
        self.lease_s, self.windows = lease_s, windows
        self.cluster = Cluster(0, 0, windows)
        self.heartbeat = Heartbeat()
        self.leadership = Leadership(0, 0)
        self.workflows = Workflows(store)
        self.schedules = Schedules(store, self.workflows)
        self.recall = Recall(store, recall)
        self._renew_at = 0.0
        self.finished = self.waits_for_store = False
        self._stopping = False
        self._next_poll = self._next_judgement = self._judged_at = self._mass_loss_until = 0.0
        self._beats: dict[int, int] = {}
        """Node → its heartbeat that was heard and not answered yet."""
        self._started_since: float | None = None
        self._pending: Turn | None = None
        self._acted_on: dict[int, None] = {}
        self._polled_to = 0
        """Tasks up to this id are left to the poll, which reads their state: a late hint does not know it any more."""
        self.on_synced: Callable[[float], None] = lambda seconds: None
        """Told how old the oldest of some new tasks was when it became known here."""

    # ------------------------------------------------------------ life

    async def start(self, acquired: Callable[[Leadership], None] = lambda leadership: None) -> None:
        """Become the leader, say so, and rebuild memory from the store; raises :class:`LeadershipHeld` while somebody else
        leads."""
        self.leadership = await self.store.leadership_acquire(self.holder, self.lease_s)
        acquired(self.leadership)
        self.finished = False
        self._beats.clear()  # of an earlier lead
        self._renew_at = self.clock.now() + RENEW_S
        await self.rebuild()

    async def run(self) -> None:
        try:
            while not self._stopping:
                await self._run_guarded()
        except StaleEpoch as error:
            log.error("another leader took over: %s", error)  # noqa: TRY400 - expected, no traceback
            self.heartbeat.last_error = str(error)
        finally:
            self.finished = True

    async def _run_guarded(self) -> None:
        try:
            await self.run_once(await self.bus.take(self._patience()))
        except StoreUnavailable as error:
            self.heartbeat.last_error = str(error)
            self.waits_for_store = True
            log.warning("the store is away, waiting: %s", error)
            await asyncio.sleep(RETRY_S)
            await self._rebuild_until_it_works()
            self.waits_for_store = False

    def give_up(self, defect: Exception) -> None:
        """For this time: who asks is told why."""
        self.finished, self.heartbeat.last_error = True, f"{type(defect).__name__}: {defect}"

    def stop(self) -> None:
        self._stopping = True
        self.bus.offer(TasksTaken("stop", []))

    async def _rebuild_until_it_works(self) -> None:
        while not self._stopping:
            try:
                await self.rebuild()
                self.heartbeat.last_error = ""
                return
            except StoreUnavailable as error:
                self.heartbeat.last_error = str(error)
                await asyncio.sleep(RETRY_S)

    async def seen_from_aside(self, leadership: Leadership) -> Cluster:
        """What a standby knows: who leads, and the nodes, to refuse what can never run."""
        cluster = Cluster(leadership.incarnation, leadership.epoch, self.windows)
        self.clock.sync(await self.store.now())
        for node in await self.store.node_list():
            cluster.nodes[node.id] = NodeView(node, heard_at=node.seen_at)
        adopt(cluster, self.policy())
        load(cluster, await self.store.quota_list(), [])
        return cluster

    async def resign(self) -> None:
        """Let another lead at once; what is left of the lease ends by itself when the store is away."""
        with suppress(StoreUnavailable, StaleEpoch):
            await self.store.leadership_release(self.leadership)
        self.cluster = Cluster(self.leadership.incarnation, self.leadership.epoch, self.windows)

    async def _renew(self) -> None:
        if self.lease_s and self.clock.now() >= self._renew_at:
            self._renew_at = self.clock.now() + RENEW_S
            await self.store.leadership_renew(self.leadership, self.lease_s)
            self._answer_beats()

    def _answer_beats(self) -> None:
        """After it was certain that this server led, and nobody else had, when it heard them: who leads next begins to count
        later than that."""
        beats, self._beats = self._beats, {}
        self.bus.dispatch([ToNode(node, Seen(beat=beat), "heartbeats") for node, beat in beats.items()])

    async def rebuild(self) -> None:
        """Everything live, page by page, yielding between pages; nodes get a fresh full window before they are judged. Their
        sessions end: what was said or heard in a turn without a commit is unknown, and only a Hello compares it."""
        if self.lease_s:  # a commit whose answer got lost may still be on its way: renewing waits for its end
            await self.store.leadership_renew(self.leadership, self.lease_s)
        cluster = Cluster(self.leadership.incarnation, self.leadership.epoch, self.windows)
        cluster.last_seq = await self.store.event_last_seq()
        cluster.next_node = await self.store.node_next_id()
        self.clock.sync(await self.store.now())
        now = self.clock.now()
        for node in await self.store.node_list():
            before = self.cluster.nodes.get(node.id)
            view = NodeView(node, heard_at=now)
            cluster.nodes[node.id] = view
            cluster.node_names[node.name] = node.id
            if before is not None:
                view.over, view.told_mark_at = before.session or before.over, now
        cluster.estimates, cluster.predictor = self.cluster.estimates, self.cluster.predictor
        adopt(cluster, self.policy())
        async with aclosing(self._live()) as pages:
            async for page in pages:
                await self._renew()
                await self._load_page(cluster, page)
                for _ in rebuild_tasks(cluster, [task for task in page.tasks if task.state is not State.SUBMITTED]):
                    await asyncio.sleep(0)
                    await self._renew()
        load(cluster, await self.store.quota_list(), await self.store.used_list())
        bookings.load(cluster, await self.store.booking_list())
        rebuild_attempts(cluster)
        await self.workflows.rebuild()
        await self.schedules.rebuild()
        if not cluster.predictor.ends:
            self.recall.begin()
        await self._still_leads()
        log.info("read %d tasks and %d nodes in %.2f s", len(cluster.tasks), len(cluster.nodes), self.clock.now() - now)
        self.cluster, self._pending, self._started_since = cluster, None, None
        self._acted_on.clear()
        self._next_poll, self._judged_at = 0.0, now
        again = Refused(reason="the leader has read the store anew", retry_s=0.1)
        ended = [view.over for view in cluster.nodes.values() if view.over is not None]
        self.bus.dispatch([ToSession(session, again, "rebuild", close=True) for session in ended])

    async def _still_leads(self) -> None:
        """What was read page by page belongs together only if nobody else has led, and written, meanwhile."""
        current = (await self.store.leader_get()).leadership
        if current != self.leadership:
            raise StaleEpoch(f"epoch {current.epoch} leads, not {self.leadership.epoch}")

    async def _live(self) -> AsyncGenerator[Live, None]:
        """Pages of what lives; the store looks up the next one while a full one is worked on."""
        page = await self.store.live_take(0, PAGE)
        while page.tasks:
            last = page.tasks[-1].id
            if len(page.tasks) < PAGE:
                yield page
                page = await self.store.live_take(last, PAGE)
                continue
            ahead = asyncio.ensure_future(self.store.live_take(last, PAGE))
            try:
                yield page
                page = await ahead
            finally:
                ahead.cancel()

    async def _load_page(self, cluster: Cluster, page: Live) -> None:
        for element in page.elements:
            cluster.add_element(element)
        for task in page.tasks:
            if task.spec.array is not None:
                await self._load_named_ahead(cluster, task)
        for attempt in page.attempts:
            key = ElementKey(attempt.task, attempt.index)
            current = cluster.elements.get(key)
            if current is None or current.state not in ON_NODE or current.attempt != attempt.attempt:
                continue
            cluster.attempts[key] = attempt

    async def _load_named_ahead(self, cluster: Cluster, task: Task) -> None:
        """Elements beyond ``next_position`` that ended before they were ever assigned (cancelled by name)."""
        array = task.spec.array
        assert array is not None
        if task.next_position >= task.size:
            return
        after = array.index_at(task.next_position) - 1
        while page := await self.store.element_list(task.id, TERMINAL, after, PAGE):
            after = page[-1].index
            positions = {p for e in page if (p := array.position_of(e.index)) is not None}
            cluster.named_ahead.setdefault(task.id, set()).update(positions)

    # ------------------------------------------------------------ one turn

    async def run_once(self, inputs: list[Input]) -> Plan:
        """One turn: inputs, timers, heartbeats, placements, one commit, then everything that follows it."""
        await self._renew()
        if self.recall.is_pending:
            await self.recall.advance(self.cluster.predictor)
        now = self.clock.now()
        told = any(isinstance(item, LookAgain) for item in inputs)
        polled = await self._poll(now, told)
        inputs = self._new_only(polled, inputs)
        turn = self._pending or Turn(self.cluster, now, "turn")
        turn.now, self._pending = now, None
        for item in inputs:
            if isinstance(item, TasksTaken) and item.tasks:
                self.on_synced(max(now - item.tasks[0].submitted_at, 0.0))
            if isinstance(item, NodesSeen):
                self._beats |= item.beats
            await self.schedules.handle(turn, item)
            if await self.workflows.handle(turn, item):
                await _handle(turn, item)
        run_timers(turn)
        self._judge_nodes(turn)
        await self.schedules.advance(turn)
        more = await self.workflows.advance(turn)
        more |= await self.schedules.follow(turn)
        plan = place(turn, self.policy())
        if not turn.changes:
            self.bus.dispatch(turn.finish())
        elif self._worth_a_commit(turn):
            await self._commit(turn)
        else:
            self._pending = turn
        if not self.lease_s:
            self._answer_beats()
        self.heartbeat.at, self.heartbeat.turns = now, self.heartbeat.turns + 1
        if plan.exhausted or more:
            self.bus.offer(TasksTaken("more", []))
        return plan

    def _worth_a_commit(self, turn: Turn) -> bool:
        """Nothing but starts can wait a moment for a better reason."""
        changes = turn.changes
        only_starts = (
            not (changes.queued or changes.held or changes.attempts_new or changes.nodes or changes.nodes_removed)
            and not (changes.steps or changes.workflows or changes.schedules)
            and not (changes.commands_done or changes.bookings)
            and all(isinstance(effect, AckFrame) for effect in turn.effects)
            and all(element.state is State.RUNNING for element in changes.elements.values())
        )
        if only_starts and self._started_since is None:
            self._started_since = turn.now
        if only_starts and turn.now - (self._started_since or 0.0) < STARTED_S:
            return False
        self._started_since = None
        return True

    def _new_only(self, polled: list[Input], hinted: list[Input]) -> list[Input]:
        """A task or a command may come by hint and by poll; it is taken once."""
        kept: list[Input] = []
        late, offered = self._polled_to, hinted
        hinted = [
            TasksTaken(item.cause_id, [task for task in item.tasks if task.id > late], item.ended)
            if isinstance(item, TasksTaken) else item
            for item in hinted
        ]  # fmt: skip
        if self.lease_s and any(isinstance(i, TasksTaken) and any(t.id <= late for t in i.tasks) for i in offered):
            self._next_poll = 0.0  # another server's tasks were seen before it was committed
        for item in polled + hinted:
            if isinstance(item, CommandsTaken):
                fresh = [c for c in item.commands if c.id not in self._acted_on]
                self._acted_on.update(dict.fromkeys(c.id for c in fresh))
                kept.append(CommandsTaken(item.cause_id, fresh))
            else:
                kept.append(item)
        while len(self._acted_on) > ACTED_ON_LIMIT:
            del self._acted_on[next(iter(self._acted_on))]
        return kept

    async def _commit(self, turn: Turn) -> None:
        effects = turn.finish()
        await self.store.leader_commit(self.leadership, turn.changes)
        self.bus.dispatch(effects)
        self.bus.publish(turn.changes.events)

    async def _poll(self, now: float, told: bool) -> list[Input]:
        """Level-triggered: what no hint announced is found here, and counted."""
        if now < self._next_poll and not told:
            return []
        self._next_poll = now + POLL_S
        self.clock.sync(await self.store.now())
        found: list[Input] = await self._poll_nodes(now)
        rows = [t for t in await self.store.task_list_submitted(PAGE) if t.id not in self.cluster.tasks]
        if rows:
            named = {d.task for task in rows for d in task.spec.after}
            ended = {t.id: t.state for t in await self.store.task_get_many(sorted(named))} if named else {}
            found.append(TasksTaken(f"poll-{rows[0].id}", rows, ended))
            self._polled_to = max(self._polled_to, rows[-1].id)
        await self.schedules.poll(now)
        workflows = await self.workflows.poll()
        found += [WorkflowsTaken(f"poll-workflow-{workflows[0].id}", workflows)] if workflows else []
        commands = [c for c in await self.store.command_list_open(PAGE) if c.id not in self._acted_on]
        if commands:
            found.append(CommandsTaken(f"poll-command-{commands[0].id}", commands))
        if PAGE in (len(rows), len(commands), sum(isinstance(item, ReportTaken) for item in found)):
            self._next_poll = now  # there may be more
        self.heartbeat.found_by_poll += 0 if told else len(rows) + len(commands) + len(workflows)
        return found

    async def _poll_nodes(self, now: float) -> list[Input]:
        """What servers wrote down because it did not get through: reports of nodes, and that nodes were heard of."""
        if not self.lease_s:
            return []
        found: list[Input] = []
        for report in await self.store.report_list_open(PAGE):
            found.append(ReportTaken(f"report-{report.id}", report.id, report.node, decode_facts(report.body)))
            self.heartbeat.found_by_poll += 1
        silent = {n: v for n, v in self.cluster.nodes.items() if v.heard_at < now - SILENT_S}
        if silent:
            seen = {node.id: node for node in await self.store.node_list()}
            heard = {n: seen[n].health for n, v in silent.items() if n in seen and seen[n].seen_at > v.heard_at}
            unfit = {n: silent[n].node.unfit for n in heard}  # the store does not know: as it was
            found += [NodesSeen("poll-seen", heard, unfit=unfit)] if heard else []
        return found

    def _judge_nodes(self, turn: Turn) -> None:
        if turn.now < self._next_judgement:
            return
        stood_still = turn.now - self._judged_at > self.windows.suspect_s
        self._next_judgement, self._judged_at = turn.now + min(1.0, self.windows.suspect_s / 8), turn.now
        views = self.cluster.nodes
        if stood_still:  # this server, or its database: whoever was silent meanwhile gets the whole window again
            for view in views.values():
                view.heard_at = turn.now
        heard = {n: Heard(v.node.state, turn.now - v.heard_at) for n, v in views.items()}
        judgement = judge(heard, self.windows)
        turn.cause_id = "heartbeats"
        if judgement.mass_loss and turn.now >= self._mass_loss_until:
            turn.alarm("mass_loss", "more than half of the nodes are silent: none is declared lost")
        if judgement.mass_loss:  # those that come back do so one after the other: each has a full window for it
            self._mass_loss_until = turn.now + self.windows.lost_s
        spared = Verdict.LOST if turn.now < self._mass_loss_until else None
        for node, verdict in judgement.verdicts.items():
            if verdict is not spared:
                _VERDICTS[verdict](turn, views[node])
        nodes.recall_stale(turn)
        on_tasks_ended(turn)

    def _patience(self) -> float:
        """Until the next thing that is due without an input."""
        if self.recall.is_pending:
            return 0.0
        now = self.clock.now()
        due = [self._next_poll, self._next_judgement, now + RENEW_S]
        if self.cluster.timers:
            due.append(self.cluster.timers[0].at)
        due += [at for at in (self.workflows.next_wake, self.schedules.next_wake) if at is not None]
        if self._started_since is not None:
            due.append(self._started_since + STARTED_S)
        return max(min(due) - now, 0.0)


async def _handle(turn: Turn, item: Input) -> None:
    """Many tasks a part at a time, so that nodes and clients are heard meanwhile: nobody else changes the leader's memory."""
    if not isinstance(item, TasksTaken) or len(item.tasks) <= TAKEN_AT_ONCE:
        handle(turn, item)
        return
    for at in range(0, len(item.tasks), TAKEN_AT_ONCE):
        handle(turn, TasksTaken(item.cause_id, item.tasks[at : at + TAKEN_AT_ONCE], item.ended))
        await asyncio.sleep(0)


_VERDICTS: dict[Verdict, Callable[[Turn, NodeView], None]] = {
    Verdict.HEARD: nodes.on_node_heard,
    Verdict.SUSPECT: nodes.on_node_suspect,
    Verdict.LOST: nodes.on_node_lost,
    Verdict.FENCED: nodes.on_fence_passed,
}
