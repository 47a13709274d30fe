"""Task: what is submitted. The spec is what is wanted; the record adds identity, owner and state."""

from bisect import bisect_right
from itertools import accumulate
from typing import Any, Literal

import msgspec

from jarvis.core.errors import InvalidValue
from jarvis.core.ids import SOLO, ElementKey
from jarvis.core.resources import Resources, times
from jarvis.core.retry import RetryPolicy
from jarvis.core.states import State

PRIORITIES = {"critical": 1000, "high": 500, "normal": 0, "low": -500}
MAX_PRIORITY = 1_000_000
MAX_ARRAY = 1_000_000
MAX_NODES = 10_000
MOST_WEIGHT = 100
LICENSE = r"^[a-z][a-z0-9_.-]{0,62}$"
"""Names of licences."""
INLINE_LIMIT = 64 * 1024
"""Specs, arguments and results up to this many bytes travel and are stored inline."""

_new_key = tuple.__new__
"""For keys that are made by the million: a call of ElementKey costs three times as much."""

AfterKind = Literal["afterok", "afterany", "afternotok"]


class Dependency(msgspec.Struct, gc=False, frozen=True, array_like=True):
    """``afterok:42``: considered once task 42 has ended that way."""

    kind: AfterKind
    task: int


class ArraySpec(msgspec.Struct, gc=False, frozen=True, omit_defaults=True):
    """Indices of an array as inclusive (first, last, step) ranges, at most ``throttle`` of them on nodes at once."""

    ranges: tuple[tuple[int, int, int], ...]
    throttle: int | None = None
    entries: str | None = None
    """Digest of a blob of lines for ``--each-line``: element number n gets line n as JARVIS_ENTRY."""

    @property
    def count(self) -> int:
        return sum((last - first) // step + 1 for first, last, step in self.ranges)

    def index_at(self, position: int) -> int:
        """Index of the element at ``position`` (0-based) in submission order."""
        sizes = [(last - first) // step + 1 for first, last, step in self.ranges]
        ends = list(accumulate(sizes))
        which = bisect_right(ends, position)
        if position < 0 or which >= len(ends):
            raise IndexError(position)
        first, _, step = self.ranges[which]
        return first + (position - (ends[which] - sizes[which])) * step

    def indices(self, position: int, count: int) -> list[int]:
        """Indices of so many elements from ``position`` on, as far as there are any."""
        found: list[int] = []
        for first, last, step in self.ranges:
            size = (last - first) // step + 1
            if position >= size:
                position -= size
                continue
            begin = first + position * step
            found += range(begin, min(last + 1, begin + (count - len(found)) * step), step)
            position = 0
        return found

    def position_of(self, index: int) -> int | None:
        """Position of ``index``, or None when the array has no such element."""
        before = 0
        for first, last, step in self.ranges:
            if first <= index <= last and (index - first) % step == 0:
                return before + (index - first) // step
            before += (last - first) // step + 1
        return None


def parse_array(text: str) -> ArraySpec:
    """Slurm's form: ``0-99``, ``0-99:2``, ``1,3,5-7``, ``0-99%10``."""
    body, _, limit = text.partition("%")
    expected = "an array like 0-99, 1,3,5-7, 0-99:2 or 0-99%10"
    ranges = []
    try:
        throttle = int(limit) if "%" in text else None
        for part in body.split(","):
            span, _, step = part.partition(":")
            first, _, last = span.partition("-")
            ranges.append((int(first), int(last or first), int(step or 1)))
    except ValueError:
        raise InvalidValue("array", text, expected) from None
    return checked_array(ArraySpec(tuple(ranges), throttle), text)


def checked_array(array: ArraySpec, given: object) -> ArraySpec:
    """The array itself if it is sane: indices from 0, ascending, no overlap, at most a million elements."""
    before = -1
    for first, last, step in array.ranges:
        if first <= before or last < first or step < 1:
            raise InvalidValue("array", given, "ascending indices from 0 without overlap")
        before = last
    if not array.ranges or array.count > MAX_ARRAY:
        raise InvalidValue("array", given, f"an array of 1 to {MAX_ARRAY:,} elements")
    if array.throttle is not None and array.throttle < 1:
        raise InvalidValue("array", given, "a throttle of at least 1 after '%'")
    return array


class Constraint(msgspec.Struct, gc=False, frozen=True, array_like=True, order=True):
    """A label that the node must (``=``) or must not (``!=``) have with that value, or one of several joined by ``|``;
    ``exists`` takes any value."""

    label: str
    op: Literal["=", "!=", "exists"]
    value: str = ""


class Preference(msgspec.Struct, gc=False, frozen=True, array_like=True, order=True):
    """A constraint that nodes should meet, and how much that is worth beside others: 1 to 100."""

    label: str
    op: Literal["=", "!=", "exists"]
    value: str = ""
    weight: int = MOST_WEIGHT


class Affinity(msgspec.Struct, gc=False, frozen=True, array_like=True, order=True):
    """Where others with a key are, or where none of them is: on the same node, or on those that have the same value of ``label``.
    Weight 0: it must be so; 1 to 100: it should."""

    kind: Literal["near", "apart"]
    key: str
    label: str = ""
    weight: int = 0


BALANCERS = frozenset({"least_loaded", "bin_pack", "spread", "round_robin", "random", "best_fit", "fgd", "gpu_fit"})


class StepValue(msgspec.Struct, frozen=True):
    """Stands in the pickled arguments of a step's function for something that an earlier step gives; ``name`` is of an input."""

    name: str


class StepInput(msgspec.Struct, frozen=True, array_like=True):
    """What stands for a :class:`StepValue`: written as a template, filled in as JSON or as pickled results when the step
    begins. ``many``: the results of a fan-out, as a list."""

    template: Any
    json: bytes | None = None
    pickled: tuple[bytes, ...] = ()
    many: bool = False
    digests: tuple[str, ...] = ()
    """Where large results are kept: one for each of ``pickled``, "" beside those that are there themselves."""


class FunctionCall(msgspec.Struct, gc=False, frozen=True, omit_defaults=True):
    """A Python function: its pickled code by digest, its pickled arguments inline or by digest.

    The control plane never unpickles either; only the warm process does.
    """

    code: str
    python: str
    args: bytes | None = None
    args_digest: str | None = None
    environment: str = ""
    """Hash of the environment that a warm process must have; calls with the same one may share it."""
    fresh: bool = False
    max_calls: int | None = None
    inputs: dict[str, StepInput] = {}
    """Of a step of a workflow."""


ADDRESS_LABEL = "jarvis.address"
"""Label of a node: where the ranks of gangs reach it. One whose agent knows nothing of gangs has none."""
CONTAINER_LABEL = "jarvis.container"
"""Label of a node: the kind of container engine that tasks can use there, or ``none``."""


class Container(msgspec.Struct, gc=False, frozen=True, omit_defaults=True):
    """How the container of a task is made."""

    image: str
    pull: Literal["missing", "always", "never"] = "missing"
    mounts: tuple[tuple[str, str, bool], ...] = ()
    """(source, target, read only)"""
    network: str = "bridge"
    entrypoint: tuple[str, ...] | None = None
    """Instead of the image's own."""
    user: str | None = None
    """``uid[:gid]`` or a name that the image knows, instead of the image's own."""


class Origin(msgspec.Struct, gc=False, frozen=True, array_like=True):
    """The step of a workflow that a task was made for.

    ``rank``: how long the longest path from it to the workflow's end is thought to take, in seconds (or steps, where no step
    tells its time); ``submitted_at``: when the workflow was.
    """

    workflow: int
    step: str
    submitted_at: float = 0.0
    rank: float = 0.0


class TaskSpec(msgspec.Struct, gc=False, frozen=True, kw_only=True, omit_defaults=True):
    """What is wanted. Times are seconds; instants are seconds since 1970 of the database's clock."""

    name: str
    command: tuple[str, ...] | str | None = None
    """argv, or a string for ``/bin/sh -c``."""
    script: str | None = None
    """Digest of a script copied at submission; ``command`` then holds its arguments."""
    function: FunctionCall | None = None
    container: Container | None = None
    resources: Resources = {}
    """Of each of its nodes."""
    nodes: int = 1
    """More than one: a gang, of which each attempt has so many ranks on so many nodes."""
    queue: str = "default"
    priority: int = 0
    array: ArraySpec | None = None
    after: tuple[Dependency, ...] = ()
    begin: float | None = None
    deadline: float | None = None
    time_limit: float | None = None
    soft_limit: float | None = None
    grace: float = 10.0
    retry: RetryPolicy = RetryPolicy()
    on_lost: Literal["rerun", "fence", "never"] = "rerun"
    preemptible: bool = True
    """Whether it may be stopped and run again later for something more urgent, where the policy knows preemption."""
    hold: bool = False
    constraints: tuple[Constraint, ...] = ()
    tolerations: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    """By which the ``affinities`` of others find it."""
    affinities: tuple[Affinity, ...] = ()
    preferences: tuple[Preference, ...] = ()
    licenses: dict[str, int] = {}
    """Of the whole cluster, held from assignment to the end of an attempt."""
    balancer: str | None = None
    env: dict[str, str] = {}
    cwd: str | None = None
    stdout: str | None = None
    stderr: str | None = None
    stdin: str | None = None
    """A path on the node, or ``-`` for a stream through the session."""
    pty: bool = False
    output_limit: int | None = None
    login_shell: bool = False
    push: tuple[str, ...] = ()
    """Digests of the manifests of what its directory holds when it starts."""
    artifacts: tuple[str, ...] = ()
    """Globs: files of its directory that are kept when an attempt ends."""
    origin: Origin | None = None

    @property
    def kind(self) -> Literal["process", "container", "function"]:
        if self.function is not None:
            return "function"
        return "container" if self.container is not None else "process"

    @property
    def whole(self) -> Resources:
        """What an attempt takes on all of its nodes together."""
        return self.resources if self.nodes == 1 else times(self.resources, self.nodes)

    @property
    def own_directory(self) -> bool:
        """Whether each attempt runs in a directory of its own, which holds what was pushed and nothing else."""
        return bool(self.push or self.artifacts)

    @property
    def bodies(self) -> dict[str, str]:
        """Digests of the stored bodies that it needs, by the field that names each."""
        named: dict[str, str] = {}
        if self.function is None and self.script is None and self.array is None and not self.push:
            return named
        if self.function is not None:
            named["function.code"] = self.function.code
            if self.function.args_digest is not None:
                named["function.args_digest"] = self.function.args_digest
            for name, given in self.function.inputs.items():
                named |= {f"function.inputs.{name}.{at}": digest for at, digest in enumerate(given.digests) if digest}
        if self.script is not None:
            named["script"] = self.script
        if self.array is not None and self.array.entries is not None:
            named["entries"] = self.array.entries
        for i, digest in enumerate(self.push):
            if "${{" not in digest:
                named[f"push.{i}"] = digest
        return named


class Task(msgspec.Struct, gc=False, kw_only=True):
    """A submitted task. ``counts`` covers every element; for a task without an array the solo element lives here too."""

    id: int
    uuid: str
    project: str
    user: str
    spec: TaskSpec
    state: State = State.SUBMITTED
    submitted_at: float
    counts: dict[State, int] = {}
    next_position: int = 0
    """Array elements from this position on have no row of their own yet: ``base`` is their state by rule."""
    base: State = State.SUBMITTED
    reason: str = ""
    retry_of: int | None = None
    started_at: float | None = None
    ended_at: float | None = None

    @property
    def size(self) -> int:
        return 1 if self.spec.array is None else self.spec.array.count

    def key_at(self, position: int) -> ElementKey:
        array = self.spec.array
        return _new_key(ElementKey, (self.id, SOLO if array is None else array.index_at(position)))


class NewTask(msgspec.Struct, gc=False, kw_only=True, frozen=True):
    """A wish to be inserted in state ``submitted``; the store gives it its id."""

    uuid: str
    project: str
    user: str
    spec: TaskSpec
    retry_of: int | None = None


class Element(msgspec.Struct, gc=False, kw_only=True):
    """The thing that has a state and runs. Has a row once it was assigned or named by a command."""

    task: int
    index: int
    state: State
    attempt: int = 0
    token: int = 0
    node: int | None = None
    failures: int = 0
    infra_losses: int = 0
    preemptions: int = 0
    """Attempts that made room for something more urgent."""
    lost_on: tuple[int, ...] = ()
    """Nodes that attempts of it were lost on: three different ones make it poison."""
    eligible_at: float | None = None
    reason: str = ""
    exit_code: int | None = None
    signal: int | None = None
    cause: str | None = None
    wish: str = ""
    """What was asked of the current attempt: ``cancel``, ``requeue``, ``hold`` or ``withdraw`` by a command, ``expire`` by its
    deadline, ``preempt`` by something more urgent."""

    @property
    def key(self) -> ElementKey:
        return _new_key(ElementKey, (self.task, self.index))
