"""Workflow: one submitted instance of a DAG. The spec is what is wanted; a step has a row once it has left ``waiting``.

A workflow is a block of steps; a step is one thing to do: a task, a block of its own, a choice between blocks, a pause, an
approval. Around any of these there may be a condition, a fan-out over a list, or a loop.
"""

from collections.abc import Iterator
from typing import Any, Literal

import msgspec

from jarvis.core.errors import InvalidTransition
from jarvis.core.states import State
from jarvis.core.task import TaskSpec

EVENT = "event"
"""Parameter that holds what happened, of a workflow that a schedule makes because of it."""
MAX_STEPS = 10_000
MAX_FAN_OUT = 100_000
MAX_DEPTH = 10
MAX_ITERATIONS = 10_000
OUTPUT_LIMIT = 64 * 1024
"""Bytes of one step's output as JSON."""
GATHERED_LIMIT = 4 * 1024 * 1024
"""Bytes of the gathered outputs of a fan-out as JSON."""

ARTIFACTS_MOST = 10_000
"""Elements of a fan-out whose files later steps can name; of a larger one they are fetched one by one."""

EdgeOn = Literal["success", "failure", "any"]
Trigger = Literal["all", "any", "none_failed", "always"]
Phase = Literal["steps", "on_failure", "finally"]
PHASES: tuple[Phase, ...] = ("steps", "on_failure", "finally")


class Edge(msgspec.Struct, frozen=True, array_like=True):
    """What a step waits for: another one of its block, and how that must have ended."""

    step: str
    on: EdgeOn = "success"


class Loop(msgspec.Struct, frozen=True, omit_defaults=True):
    """``repeat_while`` is asked before each iteration, ``until`` after; at least one of them is there."""

    repeat_while: str | None = None
    until: str | None = None
    max_iterations: int = 100
    delay: float = 0.0
    """Seconds between the end of an iteration and the next one."""


class Approval(msgspec.Struct, frozen=True, omit_defaults=True):
    """Waits for a person. ``users``: who may decide; when empty, everybody who may submit into its project."""

    message: str = ""
    users: tuple[str, ...] = ()


class Cache(msgspec.Struct, frozen=True, omit_defaults=True):
    """Of a task: what an earlier one of its project gave under the same key, doing the same with the same, is taken instead of
    running. ``key`` may hold expressions; ``ttl``: seconds since it was given."""

    key: str
    ttl: float


class Block(msgspec.Struct, frozen=True, omit_defaults=True):
    """Steps that depend on one another, and what follows them. ``output`` may hold expressions.

    ``race``: the first step that succeeds ends the others. ``fail_fast``: the first failure does.
    """

    steps: tuple["StepSpec", ...]
    on_failure: tuple["StepSpec", ...] = ()
    finally_: tuple["StepSpec", ...] = ()
    output: Any = None
    race: bool = False
    fail_fast: bool = False

    def phase(self, name: Phase) -> tuple["StepSpec", ...]:
        return {"steps": self.steps, "on_failure": self.on_failure, "finally": self.finally_}[name]


class Case(msgspec.Struct, frozen=True, array_like=True):
    """A block that a switch may choose, and the name under which its steps are shown."""

    label: str
    value: Any
    block: Block


class StepSpec(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A vertex: exactly one of ``task``, ``block``, ``switch``, ``sleep``, ``wait_until`` and ``approval`` is there.

    Times are seconds. Texts of a task, and what is typed ``Any``, may hold ``${{ }}``.
    """

    id: str
    depends_on: tuple[Edge, ...] = ()
    trigger: Trigger = "all"
    when: str | None = None
    task: TaskSpec | None = None
    block: Block | None = None
    switch: str | None = None
    cases: tuple[Case, ...] = ()
    default: Block | None = None
    sleep: Any = None
    wait_until: Any = None
    approval: Approval | None = None
    for_each: Any = None
    fail_fast: bool = False
    """Of a fan-out: the first element that fails ends the others."""
    concurrency: int | None = None
    """Elements of a fan-out that are under way at once."""
    loop: Loop | None = None
    params: dict[str, Any] | None = None
    """Of a sub-workflow: what its block sees as ``params``."""
    types: dict[str, str] = {}
    """Of those params."""
    timeout: float | None = None
    allow_failure: bool = False
    cache: Cache | None = None

    @property
    def kind(self) -> Literal["task", "block", "switch", "sleep", "approval"]:
        if self.task is not None:
            return "task"
        if self.block is not None:
            return "block"
        if self.switch is not None:
            return "switch"
        return "approval" if self.approval is not None else "sleep"

    @property
    def blocks(self) -> Iterator[tuple[str, Block]]:
        """Blocks inside it, each with what its steps' paths have between this step's path and their own."""
        if self.block is not None:
            yield "", self.block
        for case in self.cases:
            yield f"{case.label}/", case.block
        if self.default is not None:
            yield "default/", self.default


class WorkflowSpec(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is wanted. ``params`` are the values that hold for this workflow, defaults filled in."""

    name: str
    block: Block
    params: dict[str, Any] = {}
    concurrency: int | None = None
    """Tasks of it that may be on their way at once."""
    timeout: float | None = None
    description: str = ""
    reuse: bool = True
    """Whether steps with a cache look into it; what they give is kept either way."""


class Workflow(msgspec.Struct, kw_only=True):
    """A submitted workflow. ``wish`` is what a command asked of it: ``cancel``, ``kill`` or ``pause``."""

    id: int
    uuid: str
    project: str
    user: str
    spec: WorkflowSpec
    state: State = State.SUBMITTED
    wish: str = ""
    reason: str = ""
    rerun_of: int | None = None
    output: bytes | None = None
    submitted_at: float
    started_at: float | None = None
    ended_at: float | None = None


class NewWorkflow(msgspec.Struct, kw_only=True, frozen=True):
    """A wish to be inserted in state ``submitted``, with the rows of steps that a re-run takes over."""

    uuid: str
    project: str
    user: str
    spec: WorkflowSpec
    rerun_of: int | None = None
    reused: tuple["Step", ...] = ()


class StepDetail(msgspec.Struct, array_like=True, omit_defaults=True):
    """What is never filtered on: packed into one column."""

    items: list[Any] | None = None
    """Of a fan-out."""
    case: str = ""
    """Of a switch: the label that was chosen."""
    wake_at: float | None = None
    """Of a pause, or of a loop between two iterations."""
    by: str = ""
    """Who decided about an approval."""
    result: bytes | None = None
    """Pickled result of a function, for the functions that take it; opaque to the server."""
    result_digest: str | None = None
    reused: int | None = None
    """The workflow that this was taken over from."""
    failures: int = 0
    """Of a fan-out: elements that ended badly."""
    parts: tuple[bytes, ...] = ()
    """Of a fan-out of functions: their pickled results, in order."""
    part_digests: tuple[str, ...] = ()
    """Where those of the parts are kept that are too large; "" for the others."""
    unsaid: int = 0
    """Of a fan-out of functions: elements whose result JSON cannot say, or not in so few bytes."""
    cache: str = ""
    """Under what its output is kept once it has succeeded."""
    artifacts: str | None = None
    """Digest of the manifest of the files that its task left; of a loop, those of its last iteration."""
    part_artifacts: tuple[str, ...] = ()
    """Of a fan-out: those of its elements, in order; "" for elements that left none."""


class Step(msgspec.Struct, kw_only=True):
    """A step (or one element of a fan-out, one iteration of a loop) that has left ``waiting``.

    ``path`` tells where: ``load``, ``each[3]``, ``each[3]/part`` (of a block), ``choose/big/part`` (of a case).
    """

    workflow: int
    path: str
    state: State
    task: int | None = None
    reason: str = ""
    started_at: float | None = None
    ended_at: float | None = None
    output: bytes | None = None
    """JSON."""
    detail: StepDetail = msgspec.field(default_factory=StepDetail)


class Kept(msgspec.Struct, kw_only=True, frozen=True):
    """What a step with a cache gave, for later ones of its project under the same ``key`` (a digest of key and content)."""

    project: str
    key: str
    workflow: int
    task: int | None = None
    output: bytes | None = None
    result: bytes | None = None
    at: float
    expires_at: float


S = State
FAILURES = frozenset({S.FAILED, S.TIMEOUT, S.EXPIRED, S.LOST, S.CANCELLED, S.UPSTREAM_FAILED})
"""Ends of a step that are not good; ``skipped`` is neither good nor bad."""

_STEP_ENDS = frozenset({S.SUCCEEDED, S.FAILED, S.TIMEOUT, S.LOST, S.CANCELLED})
STEP_TRANSITIONS: dict[State, frozenset[State]] = {
    S.WAITING: frozenset({S.RUNNING, S.HELD, S.SKIPPED, S.UPSTREAM_FAILED, *_STEP_ENDS}),
    S.HELD: _STEP_ENDS,
    S.RUNNING: _STEP_ENDS | {S.SKIPPED},
}
"""Of steps: ``held`` is an approval that is asked for."""
WORKFLOW_TRANSITIONS: dict[State, frozenset[State]] = {
    S.SUBMITTED: frozenset({S.RUNNING, S.SUSPENDED, S.CANCELLING, *_STEP_ENDS}),
    S.RUNNING: frozenset({S.SUSPENDED, S.CANCELLING, *_STEP_ENDS}),
    S.SUSPENDED: frozenset({S.RUNNING, S.CANCELLING, *_STEP_ENDS}),
    S.CANCELLING: frozenset({S.FAILED, S.TIMEOUT, S.CANCELLED}),
}
"""Of workflows: ``suspended`` is paused."""


def check_step_transition(step: Step, after: State) -> None:
    if after not in STEP_TRANSITIONS.get(step.state, ()):
        raise InvalidTransition(f"step {step.path} of workflow {step.workflow}", step.state, after, "dag")


def check_workflow_transition(workflow: Workflow, after: State) -> None:
    if after is not workflow.state and after not in WORKFLOW_TRANSITIONS.get(workflow.state, ()):
        raise InvalidTransition(f"workflow {workflow.id}", workflow.state, after, "dag")


def walk(block: Block) -> Iterator[StepSpec]:
    """Every declared step, inner ones after the step that they are in."""
    for phase in PHASES:
        for step in block.phase(phase):
            yield step
            for _, inner in step.blocks:
                yield from walk(inner)
