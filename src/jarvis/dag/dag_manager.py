"""PURE: a workflow under way: what its steps do next, from what has ended.

A fresh workflow, one that a new leader reads from the store and one that takes over results of another go the same way: every
step that comes up is looked for among the stored rows first. What has ended there counts as ended, what runs goes on, and only
what has no row begins. So a new leader needs no more than the rows, and each turn's rows are written in one commit.
"""

from heapq import heappop

import msgspec

from jarvis.core.states import State
from jarvis.core.task import TaskSpec
from jarvis.core.workflow import OUTPUT_LIMIT, Cache, Kept
from jarvis.dag.blocks import FINALLY, Blocks
from jarvis.dag.expressions import BadExpression, to_text
from jarvis.dag.progress import Deeds, TaskEnd, Vertex
from jarvis.dag.reuse import is_fresh, key_of

S = State


class Run(Blocks):
    """Each method takes a fact and works out everything that follows; :meth:`take` gives what is to be done about it."""

    # ------------------------------------------------------------ facts

    def begin(self, now: float) -> None:
        """It comes up: for the first time, or again under a new leader."""
        self.now = now
        if self.workflow.state is S.SUBMITTED:
            self.workflow.started_at = now
            self._move(S.SUSPENDED if self.workflow.wish == "pause" else S.RUNNING)
        if self.workflow.wish in ("cancel", "kill"):
            self.root.outcome, self.root.draining = S.CANCELLED, True
            self.root.killed = self.workflow.wish == "kill"
        if self.workflow.spec.timeout is not None and self.workflow.started_at is not None:
            self._wake(self.workflow.started_at + self.workflow.spec.timeout, "")
        self._next_phase(self.root)
        self._work()

    def task_ended(self, path: str, end: TaskEnd, now: float) -> None:
        """The task of a step has ended."""
        self.now = now
        vertex = self.vertices.get(path)
        if vertex is None or vertex.over or vertex.row.task is None:
            return
        state, reason, output = end.state, end.reason, end.output
        if state is S.EXPIRED:
            state, reason = S.TIMEOUT, "Timeout"
        if state is S.SUCCEEDED and output is not None and (said := _unusable(output)):
            state, reason, output = S.FAILED, said, None
        vertex.row.detail.result, vertex.row.detail.result_digest = end.result, end.result_digest
        vertex.row.detail.artifacts = end.artifacts
        if state is S.SUCCEEDED and end.result_digest is None and end.artifacts is None:
            self._keep(vertex, output, end.result)
        self._end(vertex, state, reason, output)
        self._work()

    def _keep(self, vertex: Vertex, output: bytes | None, result: bytes | None) -> None:
        """For later steps, if it has a cache."""
        cache, row = vertex.spec.cache, vertex.row
        if cache is not None and row.detail.cache:
            kept = Kept(
                project=self.workflow.project, key=row.detail.cache, workflow=self.workflow.id, task=row.task,
                output=output, result=result, at=self.now, expires_at=self.now + cache.ttl,
            )  # fmt: skip
            self._deeds.kept.append(kept)

    def wake(self, path: str, now: float) -> None:
        """An instant that was asked for has come."""
        self.now = now
        if not path:
            self._time_out_all()
            self._work()
            return
        vertex = self.vertices.get(path)
        if vertex is not None and not vertex.over:
            timeout, began = vertex.spec.timeout, vertex.row.started_at
            many = vertex.many
            if vertex.parent is None and timeout is not None and began is not None and began + timeout <= now:
                self._time_out(vertex)
            elif many is not None and many.wake_at is not None and many.wake_at <= now:
                many.wake_at = None
                self._iterate(vertex, many)
            elif many is None and vertex.row.detail.wake_at is not None and vertex.row.detail.wake_at <= now:
                self._end(vertex, S.SUCCEEDED)
            self._work()

    def decide(self, path: str, yes: bool, by: str, now: float) -> str:
        """A person decides about an approval: "" when done, or why not."""
        self.now = now
        vertex = self.vertices.get(path)
        if vertex is None or vertex.row.state is not S.HELD or vertex.spec.approval is None:
            return f"step {path} does not wait for an approval"
        if vertex.spec.approval.users and by not in vertex.spec.approval.users:
            return f"step {path} is for {', '.join(vertex.spec.approval.users)} to decide"
        vertex.row.detail.by = by
        self._end(
            vertex,
            S.SUCCEEDED if yes else S.FAILED,
            "" if yes else "Rejected",
            msgspec.json.encode({"approved": yes, "by": by}),
        )
        self._work()
        return ""

    def cancel(self, now: float) -> None:
        """End it; what is to run in any case (``finally``) still does, unless this is said again."""
        self.now = now
        again = self.workflow.wish == "cancel" or self.root.at == FINALLY
        self.workflow.wish = "kill" if again else "cancel"
        self._move(S.CANCELLING)
        self.root.killed |= again
        self._abort(self.root, S.CANCELLED, hard=again)
        self._work()

    def pause(self, now: float) -> str:
        """Begin no more tasks until :meth:`resume`; what runs goes on."""
        self.now = now
        if self.workflow.state is not S.RUNNING:
            return f"workflow {self.workflow.id} is {self.workflow.state}, not running"
        self.workflow.wish = "pause"
        self._move(S.SUSPENDED)
        return ""

    def resume(self, now: float) -> str:
        self.now = now
        if self.workflow.state is not S.SUSPENDED:
            return f"workflow {self.workflow.id} is {self.workflow.state}, not paused"
        self.workflow.wish = ""
        self._move(S.RUNNING)
        return ""

    # ------------------------------------------------------------ what is to be done

    @property
    def startable(self) -> int:
        """How many tasks may be made now."""
        if self.workflow.wish == "pause":
            return 0
        most = self.workflow.spec.concurrency
        return len(self._ready) if most is None else min(len(self._ready), max(most - len(self.tasks), 0))

    def start_next(self, task: int, now: float) -> TaskSpec | None:
        """What the task of this id is to do; None when none may be made now."""
        self.now = now
        while self.startable:
            vertex = heappop(self._ready)[2]
            if not vertex.queued:
                continue
            vertex.queued = False
            try:
                spec = self._filling.task(vertex, now)
                if vertex.spec.cache is not None:
                    vertex.row.detail.cache = self._key(vertex, vertex.spec.cache, spec)
            except BadExpression as error:
                self._end(vertex, S.FAILED, str(error))
                self._work()
                continue
            vertex.row.task = task
            self._running(vertex)
            self.tasks[task] = vertex.path
            if not self._ready:
                self._work()
            return spec
        return None

    def next_key(self, now: float) -> str:
        """Under what the output of the step whose task would be made next may be kept; "" when it is to run anyway."""
        while self._ready and not self._ready[0][2].queued:
            heappop(self._ready)
        if not self.startable or not self.workflow.spec.reuse:
            return ""
        vertex = self._ready[0][2]
        if vertex.spec.cache is None:
            return ""
        try:
            return self._key(vertex, vertex.spec.cache, self._filling.task(vertex, now))
        except BadExpression:  # told when its task is made
            return ""

    def _key(self, vertex: Vertex, cache: Cache, task: TaskSpec) -> str:
        return key_of(to_text(self._filling.render(cache.key, vertex)), task)

    def reuse(self, kept: Kept, now: float) -> bool:
        """Let the step that :meth:`next_key` told of end with what is kept; False when that is too old."""
        self.now = now
        vertex = self._ready[0][2]
        if vertex.spec.cache is None or not is_fresh(kept, vertex.spec.cache, now):
            return False
        heappop(self._ready)
        vertex.queued = False
        row = vertex.row
        row.task, row.started_at = kept.task, now
        row.detail.reused, row.detail.result = kept.workflow, kept.result
        self._end(vertex, S.SUCCEEDED, "", kept.output)
        self._work()
        return True

    def take(self) -> Deeds:
        """What came of everything since the last time."""
        deeds, self._deeds = self._deeds, Deeds()
        return deeds


def _unusable(output: bytes) -> str:
    if len(output) > OUTPUT_LIMIT:
        return f"the output takes {len(output)} bytes of at most {OUTPUT_LIMIT}"
    try:
        msgspec.json.decode(output)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return f"the output is not JSON: {error}"
    return ""
