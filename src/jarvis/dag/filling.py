"""PURE: what expressions see of a workflow under way, and tasks with their templates filled in."""

import datetime as dt
import re
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from itertools import pairwise
from typing import Any

import msgspec

from jarvis.core.states import State
from jarvis.core.task import ArraySpec, FunctionCall, Origin, StepInput, TaskSpec
from jarvis.core.workflow import OUTPUT_LIMIT, Step, Workflow
from jarvis.dag import expressions
from jarvis.dag.document import Param, mismatch
from jarvis.dag.expressions import BadExpression, Unsaid
from jarvis.dag.progress import Scope, Vertex

_NEVER_RAN = {"state": str(State.SKIPPED), "output": None, "task": None, "reason": "", "artifacts": None}
_WHOLE = re.compile(r"\$\{\{\s*steps(?:\.(\w+)|\['([\w-]+)'\])\.output\s*\}\}")
_READ = re.compile(rb"""steps\s*(?:\.\s*(\w+)|\[\s*\\?["']([\w-]+))""")
PUSHES_MOST = 1000
_DIGEST = re.compile(r"[0-9a-f]{64}\Z")
INPUTS_LIMIT = 1024 * 1024
"""Bytes that a function is given of earlier steps."""
MAX_TEXT = 128 * 1024
"""Bytes of one argument or variable, which is what Linux takes."""


class Filling:
    """Knows the values; decides nothing."""

    def __init__(self, workflow: Workflow) -> None:
        self._workflow = workflow
        self._constant = {"workflow": {"id": workflow.id, "name": workflow.spec.name}}
        self._reads: dict[int, frozenset[str]] = {}

    # ------------------------------------------------------------ values

    def evaluate(self, text: str, vertex: Vertex) -> Any:
        return expressions.evaluate(text, self._variables(vertex, vertex.scope, expressions.names(text)))

    def render(self, value: Any, vertex: Vertex) -> Any:
        return expressions.render(value, self._variables(vertex, vertex.scope, expressions.names_in(value)))

    def params(self, vertex: Vertex) -> dict[str, Any]:
        """What a sub-workflow sees as its parameters, which have the types that it declares."""
        values: dict[str, Any] = self.render(vertex.spec.params, vertex)
        for name, value in values.items():
            if said := mismatch(Param(vertex.spec.types[name]), value):
                raise BadExpression(f"with: {name}: {said}")
        return values

    def output(self, scope: Scope) -> Any:
        """What a block gives, its own steps in view."""
        names = expressions.names_in(scope.block.output)
        return expressions.render(scope.block.output, self._variables(scope.owner, scope, names))

    def _variables(self, vertex: Vertex | None, scope: Scope, names: Iterable[str]) -> dict[str, Any]:
        """Only what is asked for, however large the workflow is."""
        wanted = [name.partition(".")[2] for name in names if name.startswith("steps.")]
        out: dict[str, Any] = {**self._constant, "steps": {ident: _view(_find(scope, ident)) for ident in wanted}}
        out["params"] = next((s.params for s in _outwards(scope) if s.params is not None), self._workflow.spec.params)
        for at in _chain(vertex):
            many = at.many if at.parent is None else at.parent.many
            if many is None or (at.parent is None and many.items is not None):
                continue
            if many.items is not None:
                out.setdefault("item", many.items[at.index])
                out.setdefault("index", at.index)
            else:
                out.setdefault("iteration", many.next if at.parent is None else at.index)
                out.setdefault("last", None if many.last is None else msgspec.json.decode(many.last))
        return out

    # ------------------------------------------------------------ tasks

    def as_array(self, vertex: Vertex, items: list[Any]) -> bool:
        """Whether a fan-out can be one task with an array: rising whole numbers, nothing that differs but the index, and
        nobody who reads what its elements give."""
        spec = vertex.spec
        if spec.task is None or spec.fail_fast or spec.task.array is not None or spec.task.function is not None:
            return False
        if len(items) < 2 or not all(type(item) is int for item in items) or items[0] < 0 or items[-1] >= 1 << 31:
            return False
        step = items[1] - items[0]
        if step < 1 or any(b - a != step for a, b in pairwise(items)):
            return False
        return not {"item", "index"} & self._read_by(spec.task) and spec.id not in self._read_steps

    @cached_property
    def _read_steps(self) -> frozenset[str]:
        """Names of steps that some expression of the workflow may read; rather too many than too few."""
        found = _READ.findall(msgspec.json.encode(self._workflow.spec))
        return frozenset((plain or quoted).decode() for plain, quoted in found)

    def _read_by(self, task: TaskSpec) -> frozenset[str]:
        """The variables that the task's templates read."""
        found = self._reads.get(id(task))
        if found is None:
            late = (task.command, task.env, task.cwd, task.stdout, task.stderr, task.stdin, task.name, task.push)
            box = () if task.container is None else (task.container.image, task.container.entrypoint)
            inputs = () if task.function is None else [i.template for i in task.function.inputs.values()]
            found = self._reads[id(task)] = expressions.names_in((late, box, inputs))
        return found

    def task(self, vertex: Vertex, now: float) -> TaskSpec:
        """The task of a step, ready to run; raises :class:`BadExpression`."""
        task = vertex.spec.task
        assert task is not None
        filled: dict[str, Any] = {}
        if names := self._read_by(task):
            variables = self._variables(vertex, vertex.scope, names)
            filled = _fill(task, variables)
        if task.function is not None and task.function.inputs:
            filled["function"] = self._function(task.function, vertex)
        if vertex.spec.for_each is not None and vertex.parent is None:
            filled["array"] = self._array(vertex)
        elif vertex.spec.timeout is not None and vertex.parent is None and vertex.spec.loop is None:
            filled["deadline"] = now + vertex.spec.timeout
        filled["env"] = {**filled.get("env", task.env), **self._environment(vertex)}
        filled["origin"] = Origin(self._workflow.id, vertex.path, self._workflow.submitted_at, vertex.rank)
        return msgspec.structs.replace(task, **filled)

    def _function(self, call: FunctionCall, vertex: Vertex) -> FunctionCall:
        inputs = {name: self._input(given, vertex) for name, given in call.inputs.items()}
        size = sum(len(i.json or b"") + sum(map(len, (*i.pickled, *i.digests))) for i in inputs.values())
        if size > INPUTS_LIMIT:
            raise BadExpression(f"what the function is given takes {size} bytes of at most {INPUTS_LIMIT}")
        return msgspec.structs.replace(call, inputs=inputs)

    def _input(self, given: StepInput, vertex: Vertex) -> StepInput:
        """The whole result of a function stays pickled, as it is, or where it is kept; all else is JSON."""
        whole = _WHOLE.fullmatch(given.template) if isinstance(given.template, str) else None
        source = None if whole is None else _find(vertex.scope, whole[1] or whole[2])
        if source is not None:
            detail = source.row.detail
            if source.many is not None or source.spec.for_each is not None:
                if detail.parts:
                    return StepInput(given.template, pickled=detail.parts, many=True, digests=detail.part_digests)
            elif source.row.state is State.SUCCEEDED and detail.result is not None:
                return StepInput(given.template, pickled=(detail.result,))
            elif source.row.state is State.SUCCEEDED and detail.result_digest is not None:
                return StepInput(given.template, pickled=(b"",), digests=(detail.result_digest,))
        return StepInput(given.template, json=msgspec.json.encode(self.render(given.template, vertex)))

    def _array(self, vertex: Vertex) -> ArraySpec:
        items = self.render(vertex.spec.for_each, vertex)
        return ArraySpec(((items[0], items[-1], items[1] - items[0]),), vertex.spec.concurrency)

    def _environment(self, vertex: Vertex) -> dict[str, str]:
        env = {"JARVIS_WORKFLOW_ID": str(self._workflow.id), "JARVIS_WORKFLOW_STEP": vertex.path}
        for at in _chain(vertex):
            many = at.parent.many if at.parent is not None else None
            if many is not None and many.items is None:
                env.setdefault("JARVIS_ITERATION", str(at.index))
            elif many is not None and many.items is not None:
                entry = expressions.to_text(many.items[at.index])
                if "\0" not in entry and len(entry.encode("utf-8", "replace")) < MAX_TEXT:
                    env.setdefault("JARVIS_ENTRY", entry)
                if type(many.items[at.index]) is int:  # as in an array, so that a task need not know which it is
                    env.setdefault("JARVIS_ARRAY_INDEX", entry)
        return env


def _fill(task: TaskSpec, variables: dict[str, Any]) -> dict[str, Any]:
    """The fields of a task that hold templates, filled in."""

    def text(value: str) -> str:
        filled = expressions.render_text(value, variables)
        if "\0" in filled or any("\ud800" <= c <= "\udfff" for c in filled) or len(filled.encode()) > MAX_TEXT:
            raise BadExpression("a text of the task holds what no program can be given")
        return filled

    out: dict[str, Any] = {"env": {key: text(value) for key, value in task.env.items()}}
    if isinstance(task.command, str):
        out["command"] = text(task.command)
    elif task.command is not None:
        out["command"] = tuple([text(part) for part in task.command])
    for name in ("cwd", "stdout", "stderr", "stdin", "name"):
        if (value := getattr(task, name)) is not None:
            out[name] = text(value)
    if task.push:
        out["push"] = _pushes(task.push, text)
    if "name" in out:
        out["name"] = "".join(c for c in out["name"] if c.isprintable())[:200] or "task"
    if task.container is not None:
        entrypoint = task.container.entrypoint
        more = {} if entrypoint is None else {"entrypoint": tuple([text(part) for part in entrypoint])}
        out["container"] = msgspec.structs.replace(task.container, image=text(task.container.image), **more)
    return out


def _pushes(templates: tuple[str, ...], text: Callable[[str], str]) -> tuple[str, ...]:
    """Of a fan-out, what all elements left that left some."""
    found: list[str] = []
    for template in templates:
        filled = text(template)
        try:
            digests = msgspec.json.decode(filled, type=list[str | None]) if filled.startswith("[") else [filled]
        except msgspec.DecodeError:
            digests = [filled]
        found += [_pushed(template, digest) for digest in digests if digest is not None]
    if len(found) > PUSHES_MOST:
        raise BadExpression(f"push: {len(found)} elements left files, and at most {PUSHES_MOST} lists of them go along")
    return tuple(found)


def _pushed(template: str, digest: str) -> str:
    if not _DIGEST.match(digest):
        raise BadExpression(f"push: {template} gives {digest[:40]!r}, not the artifacts of a step that left some")
    return digest


def _outwards(scope: Scope) -> Iterator[Scope]:
    at: Scope | None = scope
    while at is not None:
        yield at
        at = at.owner.scope if at.owner is not None else None


def _find(scope: Scope, ident: str) -> Vertex | None:
    """The step of that name in this block or in one around it."""
    return next((s.vertices[ident] for s in _outwards(scope) if ident in s.vertices), None)


def _chain(vertex: Vertex | None) -> Iterator[Vertex]:
    """A step, the fan-out or loop that it is an element of, the steps that those are inside of."""
    while vertex is not None:
        yield vertex
        vertex = vertex.parent if vertex.parent is not None else vertex.scope.owner


def _view(vertex: Vertex | None) -> dict[str, Any]:
    if vertex is None:
        return _NEVER_RAN
    row = vertex.row
    output = None if row.output is None else msgspec.json.decode(row.output)
    if row.state is State.SUCCEEDED and _is_unsaid(row):
        output = Unsaid(
            f"the result of {vertex.spec.id} is no JSON of at most {OUTPUT_LIMIT} bytes: functions alone can take it"
        )
    return {
        "state": str(row.state), "output": output, "task": row.task, "reason": row.reason,
        "artifacts": [part or None for part in row.detail.part_artifacts] or row.detail.artifacts,
    }  # fmt: skip


def _is_unsaid(row: Step) -> bool:
    """Whether a function has given something that expressions cannot see."""
    detail = row.detail
    return detail.unsaid > 0 or (row.output is None and (detail.result is not None or detail.result_digest is not None))


def seconds_of(value: Any) -> float:
    """Seconds, or seconds since 1970: a number, or a text that is a number or an instant of RFC 3339."""
    if isinstance(value, str):
        try:
            read = dt.datetime.fromisoformat(value)
            if read.tzinfo is None:
                raise BadExpression(f"{value[:40]!r} says no offset from UTC")
            return read.timestamp()
        except ValueError:
            pass
        try:
            value = float(value)
        except ValueError:
            raise BadExpression(f"{value[:40]!r} is not a time") from None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 253_402_300_800:
        raise BadExpression(f"{value!r} is not a time")
    return float(value)
