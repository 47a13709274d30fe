"""PURE: how a step begins and ends: once, for each element of a list, or again and again."""

import re
from collections import deque
from collections.abc import Iterable
from heapq import heappush
from typing import Any

from jarvis.core.states import State
from jarvis.core.workflow import (
    ARTIFACTS_MOST,
    FAILURES,
    GATHERED_LIMIT,
    MAX_FAN_OUT,
    Block,
    Step,
    StepSpec,
    Workflow,
    check_step_transition,
    check_workflow_transition,
)
from jarvis.dag import expressions
from jarvis.dag.expressions import BadExpression
from jarvis.dag.filling import Filling, seconds_of
from jarvis.dag.progress import Deeds, Many, Scope, Vertex
from jarvis.dag.resolver import Expected, unknown

EXPAND_TO = 512
"""Elements of fan-outs are made up until so many tasks are ready: a hundred thousand are never all in memory."""
EXPAND_MOST = 2000
"""And at most so many at once."""
_ELEMENT = re.compile(r"(.*)\[(\d+)\]\Z", re.DOTALL)
S = State


class Steps:
    """The part of a workflow under way that knows single steps; blocks are known by :class:`~jarvis.dag.blocks.Blocks`."""

    def __init__(self, workflow: Workflow, stored: Iterable[Step] = ()) -> None:
        self.workflow = workflow
        self.vertices: dict[str, Vertex] = {}
        self.tasks: dict[int, str] = {}
        """Task → path of the step that it belongs to."""
        self.now = 0.0
        self._stored = {step.path: step for step in stored}
        self._known: dict[str, int] = {}
        for path in self._stored:
            if match := _ELEMENT.match(path):
                self._known[match[1]] = max(self._known.get(match[1], 0), int(match[2]) + 1)
        self._deeds = Deeds()
        self._settling: deque[Vertex] = deque()
        self._ready: list[tuple[float, int, Vertex]] = []
        self._order = 0
        self._expanding: dict[str, Vertex] = {}
        self._plans: dict[int, tuple[dict[str, Any], dict[str, float]]] = {}
        self.predicted: Expected = unknown
        self.root = Scope(workflow.spec.block, None, "")
        self._filling = Filling(workflow)

    # ------------------------------------------------------------ rows

    def _move(self, state: State, reason: str = "") -> None:
        check_workflow_transition(self.workflow, state)
        self.workflow.state, self.workflow.reason = state, reason
        self._deeds.workflow = True

    def _touch(self, vertex: Vertex) -> None:
        self._deeds.rows[vertex.path] = vertex.row

    def _wake(self, at: float, path: str) -> None:
        self._deeds.wakes.append((at, path))

    def _running(self, vertex: Vertex, state: State = S.RUNNING) -> None:
        if vertex.row.state is not state:
            check_step_transition(vertex.row, state)
            vertex.row.state, vertex.row.started_at = state, self.now
            self._touch(vertex)

    def _end(self, vertex: Vertex, state: State, reason: str = "", output: bytes | None = None) -> None:
        row = vertex.row
        check_step_transition(row, state)
        row.state, row.reason, row.output, row.ended_at = state, reason, output, self.now
        row.detail.items = None
        self._touch(vertex)
        self._settling.append(vertex)

    def _vertex(self, spec: StepSpec, path: str, scope: Scope, rank: float, left: int = 0) -> Vertex:
        row = self._stored.pop(path, None) or Step(workflow=self.workflow.id, path=path, state=S.WAITING)
        if row.workflow != self.workflow.id:  # taken over from another workflow
            row.workflow = self.workflow.id
        vertex = self.vertices[path] = Vertex(spec, path, scope, row, rank, left)
        return vertex

    # ------------------------------------------------------------ what blocks decide

    def _next_phase(self, scope: Scope) -> None:
        raise NotImplementedError

    def _drain(self, vertex: Vertex, many: Many, hard: bool = False) -> None:
        raise NotImplementedError

    # ------------------------------------------------------------ beginning

    def _stopped(self, vertex: Vertex) -> bool:
        many = vertex.parent.many if vertex.parent is not None else None
        return vertex.scope.draining if many is None else many.draining

    def _launch(self, vertex: Vertex) -> None:
        """A step with a stored row counts as what it says there; an element without one begins."""
        if vertex.over:
            self._settling.append(vertex)
        elif vertex.row.task is not None:
            self.tasks[vertex.row.task] = vertex.path
            if self._stopped(vertex):
                self._deeds.stops.append(vertex.row.task)
        elif self._stopped(vertex) and (vertex.row.state is S.WAITING or vertex.spec.kind in ("sleep", "approval")):
            self._end(vertex, S.CANCELLED)
        elif vertex.parent is None:
            self._begin(vertex)
        else:
            self._begin_body(vertex)

    def _begin(self, vertex: Vertex) -> None:
        """A step whose turn it is: once, for each of a list, or again and again."""
        spec = vertex.spec
        if spec.timeout is not None and (spec.kind != "task" or spec.for_each is not None or spec.loop is not None):
            self._wake(
                (self.now if vertex.row.started_at is None else vertex.row.started_at) + spec.timeout, vertex.path
            )
        if spec.for_each is not None:
            self._fan_out(vertex)
        elif spec.loop is not None:
            self._running(vertex)
            vertex.many = Many(None, spec.loop.max_iterations, draining=self._stopped(vertex))
            self._iterate(vertex, vertex.many)
        else:
            self._begin_body(vertex)

    def _begin_body(self, vertex: Vertex) -> None:
        kind = vertex.spec.kind
        try:
            if kind == "task":
                self._queue(vertex)
            elif kind == "block":
                self._begin_block(vertex)
            elif kind == "switch":
                self._choose(vertex)
            elif kind == "approval":
                self._running(vertex, S.HELD)
                vertex.row.reason = "Approval"
            else:
                self._sleep(vertex)
        except BadExpression as error:
            self._end(vertex, S.FAILED, str(error))

    def _queue(self, vertex: Vertex) -> None:
        vertex.queued = True
        self._order += 1
        heappush(self._ready, (-vertex.rank, self._order, vertex))

    def _begin_block(self, vertex: Vertex) -> None:
        spec = vertex.spec
        assert spec.block is not None
        params = None if spec.params is None else self._filling.params(vertex)
        self._running(vertex)
        self._open(vertex, spec.block, "", params)

    def _open(self, vertex: Vertex, block: Block, label: str, params: dict[str, Any] | None = None) -> None:
        vertex.inner = Scope(block, vertex, f"{vertex.path}/{label}", params)
        if self._stopped(vertex):
            vertex.inner.outcome, vertex.inner.draining = S.CANCELLED, True
        self._next_phase(vertex.inner)

    def _choose(self, vertex: Vertex) -> None:
        spec, row = vertex.spec, vertex.row
        if row.state is S.WAITING:
            assert spec.switch is not None
            value = self._filling.evaluate(spec.switch, vertex)
            chosen = next((c for c in spec.cases if c.value == value or c.label == expressions.to_text(value)), None)
            if chosen is None and spec.default is None:
                self._end(vertex, S.SKIPPED, "NoCase")
                return
            row.detail.case = "default" if chosen is None else chosen.label
        self._running(vertex)
        cases = {case.label: case.block for case in spec.cases}
        block = cases.get(row.detail.case) or spec.default
        assert block is not None
        self._open(vertex, block, f"{row.detail.case}/")

    def _sleep(self, vertex: Vertex) -> None:
        spec, row = vertex.spec, vertex.row
        if row.detail.wake_at is None:
            until = spec.wait_until is not None
            given = self._filling.render(spec.wait_until if until else spec.sleep, vertex)
            seconds = seconds_of(given)
            row.detail.wake_at = seconds if until else self.now + seconds
            self._running(vertex)
            row.reason = "BeginTime"
        if row.detail.wake_at <= self.now:
            self._end(vertex, S.SUCCEEDED)
        else:
            self._wake(row.detail.wake_at, vertex.path)

    # ------------------------------------------------------------ fan-out and loops

    def _fan_out(self, vertex: Vertex) -> None:
        items = vertex.row.detail.items
        if items is None:
            try:
                given = self._filling.render(vertex.spec.for_each, vertex)
            except BadExpression as error:
                self._end(vertex, S.FAILED, f"for_each: {error}")
                return
            if not isinstance(given, list) or len(given) > MAX_FAN_OUT:
                what = f"{len(given):,} elements" if isinstance(given, list) else type(given).__name__
                self._end(vertex, S.FAILED, f"for_each: {what}, not a list of at most {MAX_FAN_OUT:,}")
                return
            items = given
        if self._filling.as_array(vertex, items):
            self._queue(vertex)
            return
        self._running(vertex)
        vertex.row.detail.items = items
        known = min(self._known.get(vertex.path, 0), len(items))
        vertex.many = Many(items, vertex.spec.concurrency or len(items) or 1, draining=self._stopped(vertex))
        self._expanding[vertex.path] = vertex
        while vertex.many.next < known:
            self._element(vertex, vertex.many)
        self._many_over(vertex, vertex.many)

    def _element(self, vertex: Vertex, many: Many) -> None:
        at = many.next
        many.next += 1
        element = self._vertex(vertex.spec, f"{vertex.path}[{at}]", vertex.scope, vertex.rank)
        element.parent, element.index, element.behind = vertex, at, vertex.behind
        many.live[at] = element
        self._launch(element)

    def _expand(self) -> None:
        """Make elements, those of the first fan-out first, until enough tasks are ready."""
        made = 0
        while growing := [vertex for vertex in list(self._expanding.values()) if self._may_grow(vertex)]:
            for vertex in growing:
                many = vertex.many
                assert many is not None
                while self._may_grow(vertex):
                    if len(self._ready) >= EXPAND_TO or made >= EXPAND_MOST:
                        return
                    self._element(vertex, many)
                    made += 1

    def _may_grow(self, vertex: Vertex) -> bool:
        """Whether an element may be made; a fan-out that has made its last one is looked at no more."""
        many = vertex.many
        assert many is not None
        assert many.items is not None
        if many.next >= len(many.items) or many.draining:
            self._expanding.pop(vertex.path, None)
            return False
        return len(many.live) < many.most

    def _many_over(self, vertex: Vertex, many: Many) -> None:
        """The end of a fan-out, once all its elements have ended and none is to come."""
        assert many.items is not None
        if many.live or vertex.over or (many.next < len(many.items) and not many.draining):
            return
        self._expanding.pop(vertex.path, None)
        vertex.row.detail.failures = many.failures
        if many.draining and self._cut_short(vertex):
            timed_out = vertex.row.reason == "Timeout"
            self._end(vertex, S.TIMEOUT if timed_out else S.CANCELLED, vertex.row.reason)
        elif many.failures:
            self._end(vertex, S.FAILED, f"{many.failures} of {len(many.items)} elements failed")
        else:
            self._gathered(vertex, many)

    def _cut_short(self, vertex: Vertex) -> bool:
        """Whether it drains because somebody outside wants so, and not because of its own failures."""
        return vertex.row.reason == "Timeout" or self._stopped(vertex) or not vertex.spec.fail_fast

    def _gathered(self, vertex: Vertex, many: Many) -> None:
        """The outputs in the order of the list; none at all when no element had one."""
        assert many.items is not None
        parts = [many.outputs.get(at, b"null") for at in range(len(many.items))]
        data = b"[" + b",".join(parts) + b"]" if many.outputs or not many.items else None
        if data is not None and len(data) > GATHERED_LIMIT:
            self._end(
                vertex, S.FAILED, f"the outputs of all elements take {len(data)} bytes of at most {GATHERED_LIMIT}"
            )
        else:
            detail, count = vertex.row.detail, len(many.items)
            if len(many.parts) + len(many.digests) == count and sum(map(len, many.parts.values())) <= GATHERED_LIMIT:
                detail.parts = tuple(many.parts.get(at, b"") for at in range(count))
                detail.part_digests = tuple(many.digests.get(at, "") for at in range(count)) if many.digests else ()
            detail.unsaid = many.unsaid
            if many.artifacts and count <= ARTIFACTS_MOST:
                detail.part_artifacts = tuple(many.artifacts.get(at, "") for at in range(count))
            self._end(vertex, S.SUCCEEDED, "", data)

    def _keep_result(self, many: Many, child: Vertex) -> None:
        """What an element gives: as JSON, and of a function also pickled, or where that is kept."""
        output, detail = child.row.output, child.row.detail
        if output is not None:
            many.outputs[child.index] = output
        if detail.artifacts is not None:
            many.artifacts[child.index] = detail.artifacts
        if detail.result is not None:
            many.parts[child.index] = detail.result
        elif detail.result_digest is not None:
            many.digests[child.index] = detail.result_digest
        else:
            return
        many.unsaid += output is None

    def _iterate(self, vertex: Vertex, many: Many) -> None:
        loop = vertex.spec.loop
        assert loop is not None
        try:
            if loop.repeat_while is not None and not self._filling.evaluate(loop.repeat_while, vertex):
                self._end(vertex, S.SUCCEEDED, "", many.last)
                return
        except BadExpression as error:
            self._end(vertex, S.FAILED, f"while: {error}")
            return
        if many.next >= loop.max_iterations:
            self._end(vertex, S.FAILED, f"MaxIterations: not done after {loop.max_iterations}", many.last)
            return
        self._element(vertex, many)

    def _iteration_over(self, vertex: Vertex, many: Many, child: Vertex) -> None:
        loop = vertex.spec.loop
        assert loop is not None
        if many.draining and self._has_begun(vertex, many):
            self._element(vertex, many)
        elif many.draining:
            self._end(vertex, S.TIMEOUT if vertex.row.reason == "Timeout" else S.CANCELLED, vertex.row.reason)
        elif child.row.state in FAILURES:
            self._end(vertex, S.FAILED, f"iteration {child.index} ended {child.row.state}")
        elif loop.until is not None and self._is_done(vertex, loop.until):
            if not vertex.over:
                self._end(vertex, S.SUCCEEDED, "", many.last)
        elif child.row.ended_at is not None and child.row.ended_at + loop.delay > self.now:
            many.wake_at = child.row.ended_at + loop.delay
            self._wake(many.wake_at, vertex.path)
        else:
            self._iterate(vertex, many)

    def _has_begun(self, vertex: Vertex, many: Many) -> bool:
        """Whether the next iteration is among the stored ones: a loop that is read again is not at its end before those."""
        return f"{vertex.path}[{many.next}]" in self._stored

    def _is_done(self, vertex: Vertex, until: str) -> bool:
        try:
            return bool(self._filling.evaluate(until, vertex))
        except BadExpression as error:
            self._end(vertex, S.FAILED, f"until: {error}")
            return True

    def _child_ended(self, parent: Vertex, child: Vertex) -> None:
        many = parent.many
        assert many is not None
        del many.live[child.index], self.vertices[child.path]
        state = child.row.state
        if many.items is None:
            many.last, parent.row.detail.artifacts = child.row.output, child.row.detail.artifacts
            self._iteration_over(parent, many, child)
            return
        self._keep_result(many, child)
        if state in FAILURES and not many.draining:
            many.failures += 1
            if parent.spec.fail_fast:
                self._drain(parent, many)
        self._many_over(parent, many)
