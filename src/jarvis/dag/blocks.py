"""PURE: what the end of a step means to those that wait for it, to its block, and to what the block is in."""

from typing import Any

import msgspec

from jarvis.core.states import TERMINAL, State
from jarvis.core.workflow import FAILURES, OUTPUT_LIMIT, PHASES, StepSpec
from jarvis.dag.expressions import BadExpression
from jarvis.dag.progress import Many, Scope, Vertex
from jarvis.dag.resolver import Verdict, dependents, edge_met, ranks, verdict, weights
from jarvis.dag.steps import Steps

FINALLY = len(PHASES) - 1
S = State


class Blocks(Steps):
    """The part of a workflow under way that knows blocks."""

    # ------------------------------------------------------------ blocks

    def _next_phase(self, scope: Scope) -> None:
        """The next part of the block that has something to do, or its end."""
        began = scope.at >= 0
        while scope.at < FINALLY:
            scope.at += 1
            if began or scope.at:
                scope.draining = scope.killed
            if scope.block.phase(scope.phase) and (scope.phase != "on_failure" or self._handles_failure(scope)):
                self._enter(scope)
                return
        self._scope_over(scope)

    def _handles_failure(self, scope: Scope) -> bool:
        """Not of what was cancelled; but if it had begun before that, it is still to be brought to its end."""
        if scope.outcome is not S.CANCELLED:
            return _has_failed(scope)
        scope.draining = True
        return any(scope.prefix + step.id in self._stored for step in scope.block.on_failure)

    def _enter(self, scope: Scope) -> None:
        steps = scope.block.phase(scope.phase)
        behind, rank = self._plan(steps)
        above = 0.0 if scope.owner is None else scope.owner.behind
        scope.behind |= behind
        made = [
            self._vertex(step, scope.prefix + step.id, scope, above + rank[step.id], len(step.depends_on))
            for step in steps
        ]
        for vertex in made:
            vertex.behind = above + max((rank[other] for other, _ in behind[vertex.spec.id]), default=0.0)
        scope.vertices |= {vertex.spec.id: vertex for vertex in made}
        scope.open = len(made)
        for vertex in made:
            if vertex.row.state is not S.WAITING:
                self._launch(vertex)
            elif not vertex.left:
                self._decide(vertex)

    def _plan(self, steps: tuple[StepSpec, ...]) -> tuple[dict[str, Any], dict[str, float]]:
        """Who waits for whom, and ranks: worked out once for a block however often it runs."""
        found = self._plans.get(id(steps))
        if found is None:
            found = self._plans[id(steps)] = (dependents(steps), ranks(steps, weights(steps, self.predicted)))
        return found

    def _scope_over(self, scope: Scope) -> None:
        state = scope.outcome or (S.FAILED if _has_failed(scope) else S.SUCCEEDED)
        reason, output = "", None
        if state is S.SUCCEEDED:
            try:
                output = self._block_output(scope)
            except BadExpression as error:
                state, reason = S.FAILED, f"output: {error}"
        for vertex in scope.vertices.values():
            del self.vertices[vertex.path]
        if scope.owner is not None:
            self._end(scope.owner, state, reason or ("Timeout" if state is S.TIMEOUT else ""), output)
            return
        self._move(state, reason or ("Timeout" if state is S.TIMEOUT else ""))
        self.workflow.output, self.workflow.ended_at = output, self.now

    def _block_output(self, scope: Scope) -> bytes | None:
        if scope.block.output is not None:
            return _bounded(self._filling.output(scope), OUTPUT_LIMIT)
        if scope.winner is not None:
            value = None if scope.winner.row.output is None else msgspec.Raw(scope.winner.row.output)
            return msgspec.json.encode({"winner": scope.winner.spec.id, "output": value})
        return None

    # ------------------------------------------------------------ beginning

    def _decide(self, vertex: Vertex) -> None:
        """May it begin? Asked whenever something before it has ended."""
        if vertex.row.state is not S.WAITING or vertex.queued:
            return
        if self._stopped(vertex):
            self._end(vertex, S.CANCELLED)
            return
        spec = vertex.spec
        said = verdict(spec.trigger, len(spec.depends_on), vertex.left, vertex.met, vertex.failed)
        if said is Verdict.FAIL:
            self._end(vertex, S.UPSTREAM_FAILED)
        elif said is Verdict.SKIP:
            self._end(vertex, S.SKIPPED, "Trigger")
        elif said is Verdict.RUN and self._wanted(vertex):
            self._begin(vertex)

    def _wanted(self, vertex: Vertex) -> bool:
        if vertex.spec.when is None:
            return True
        try:
            if self._filling.evaluate(vertex.spec.when, vertex):
                return True
            self._end(vertex, S.SKIPPED, "Condition")
        except BadExpression as error:
            self._end(vertex, S.FAILED, f"when: {error}")
        return False

    # ------------------------------------------------------------ ends

    def _work(self) -> None:
        """Everything that follows, until nothing does."""
        while True:
            while self._settling:
                self._settle(self._settling.popleft())
            if self.workflow.state in TERMINAL:
                return
            self._expand()
            if not self._settling:
                return

    def _settle(self, vertex: Vertex) -> None:
        if vertex.row.task is not None:
            self.tasks.pop(vertex.row.task, None)
        if vertex.parent is not None:
            self._child_ended(vertex.parent, vertex)
            return
        scope, state = vertex.scope, vertex.row.state
        scope.open -= 1
        if state in FAILURES and state is not S.UPSTREAM_FAILED and not scope.draining and not _handled(scope, vertex):
            scope.failed = True
        for ident, edge in scope.behind[vertex.spec.id]:
            other = scope.vertices[ident]
            other.left -= 1
            other.met += edge_met(edge.on, state)
            other.failed |= state in FAILURES
            self._decide(other)
        if scope.block.race and scope.phase == "steps" and state is S.SUCCEEDED and scope.winner is None:
            scope.winner = vertex
            self._abort(scope, None)
        elif scope.block.fail_fast and scope.failed and not scope.draining and scope.phase == "steps":
            self._abort(scope, None)
        if not scope.open:
            self._next_phase(scope)

    # ------------------------------------------------------------ stopping

    def _abort(self, scope: Scope, outcome: State | None, hard: bool = False) -> None:
        """Nothing more begins in this phase of the block, and what runs is stopped. ``finally`` is only cut by ``hard``."""
        scope.outcome = scope.outcome or outcome
        scope.killed |= hard
        if scope.at == FINALLY and not hard:
            return
        scope.draining = True
        for vertex in list(scope.vertices.values()):
            self._stop(vertex, hard, outcome or S.CANCELLED)

    def _stop(self, vertex: Vertex, hard: bool, outcome: State = S.CANCELLED) -> None:
        if vertex.over:
            return
        if vertex.row.state is S.WAITING:
            vertex.queued = False
            self._end(vertex, S.CANCELLED)
        elif vertex.row.task is not None:
            self._deeds.stops.append(vertex.row.task)
        elif vertex.many is not None:
            self._drain(vertex, vertex.many, hard)
            if vertex.many.items is not None:
                self._many_over(vertex, vertex.many)
            elif not vertex.many.live and not self._has_begun(vertex, vertex.many):
                self._end(vertex, S.CANCELLED)
        elif vertex.inner is not None:
            self._abort(vertex.inner, outcome, hard)
        else:
            self._end(vertex, S.CANCELLED)

    def _drain(self, vertex: Vertex, many: Many, hard: bool = False) -> None:
        many.draining = True
        for child in list(many.live.values()):
            self._stop(child, hard)

    def _time_out(self, vertex: Vertex) -> None:
        if vertex.many is not None:
            vertex.row.reason = "Timeout"
            self._drain(vertex, vertex.many)
            if vertex.many.items is not None:
                self._many_over(vertex, vertex.many)
            elif not vertex.many.live and not self._has_begun(vertex, vertex.many):
                self._end(vertex, S.TIMEOUT, "Timeout")
        elif vertex.inner is not None:
            self._abort(vertex.inner, S.TIMEOUT)
        elif vertex.row.task is None:
            self._end(vertex, S.TIMEOUT, "Timeout")

    def _time_out_all(self) -> None:
        workflow = self.workflow
        if workflow.started_at is None or workflow.spec.timeout is None or workflow.state in TERMINAL:
            return
        if workflow.started_at + workflow.spec.timeout <= self.now and self.root.outcome is None:
            self._abort(self.root, S.TIMEOUT)


def _has_failed(scope: Scope) -> bool:
    """A race has failed when nobody has won."""
    if scope.outcome is S.TIMEOUT:
        return True
    return scope.winner is None if scope.block.race and scope.at <= 1 else scope.failed


def _handled(scope: Scope, vertex: Vertex) -> bool:
    """Whether somebody expected that it may fail: then the block goes on as if it had not."""
    return vertex.spec.allow_failure or any(edge.on == "failure" for _, edge in scope.behind[vertex.spec.id])


def _bounded(value: object, limit: int) -> bytes:
    data = msgspec.json.encode(value)
    if len(data) > limit:
        raise BadExpression(f"it takes {len(data)} bytes of at most {limit}")
    return data
