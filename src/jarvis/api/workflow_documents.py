"""From the bytes that were sent to a workflow: JSON or YAML, every mistake with its path and, where it is known, its line."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from jarvis.api.problems import Refusal
from jarvis.api.schemas.task_in import TaskFast
from jarvis.api.schemas.task_rules import to_spec
from jarvis.api.schemas.values import duration, instant
from jarvis.core.errors import InvalidValue, JarvisError
from jarvis.core.task import TaskSpec
from jarvis.core.workflow import WorkflowSpec
from jarvis.dag.building import build
from jarvis.dag.dag_validator import validate
from jarvis.dag.document import Draft, Place, Problem, read

Lines = dict[Place, int]


class InvalidDocument(Refusal):
    """A document with mistakes. ``problems`` are (path, line or None, message)."""

    code = "invalid_workflow"

    def __init__(self, problems: list[tuple[str, int | None, str]]) -> None:
        path, line, message = problems[0]
        more = f", and {len(problems) - 1} more" if len(problems) > 1 else ""
        where = f"line {line}: " if line is not None else f"{path}: " if path else ""
        super().__init__(422, "invalid_workflow", where + message + more, "see docs/workflows.md")
        self.problems = problems

    @property
    def errors(self) -> list[dict[str, Any]]:
        return [{"path": path, "message": message, "line": line} for path, line, message in self.problems[:20]]


@dataclass(slots=True)
class Given:
    """What was sent: the document, the values of its parameters, the line of each value where the text is at hand."""

    data: Any
    params: Mapping[str, Any] = field(default_factory=dict)
    text: str | None = None
    lines: Lines | None = None
    reuse: bool = True


class Rules:
    """How tasks and times are written: as in ``POST /tasks``."""

    def __init__(self, now: float, fits: Callable[[TaskSpec], JarvisError | None] = lambda spec: None) -> None:
        self._now, self._fits = now, fits

    def task(self, fields: Mapping[str, Any]) -> TaskSpec:
        try:
            task = msgspec.convert(fields, TaskFast)
        except msgspec.ValidationError as error:
            said, _, path = str(error).partition(" - at `$")
            raise _Shape(path.rstrip("`").lstrip(".").replace("[", ".").replace("]", ""), said) from None
        spec = to_spec(task, self._now)
        if (refusal := self._fits(spec)) is not None:
            raise refusal
        return spec

    def duration(self, value: object, field: str) -> float:
        return duration(value, field)

    def instant(self, value: object, field: str) -> float:
        return instant(value, field, self._now)


class _Shape(InvalidValue):
    """A value of another type than the field takes."""

    def __init__(self, field: str, message: str) -> None:
        JarvisError.__init__(self, f"{field}: {message}" if field else message)
        self.field = field


def given_of(body: bytes, content_type: str) -> Given:
    """Read a body: a document as JSON or YAML, or ``{"document": TEXT or object, "params": {…}, "reuse": BOOL}``."""
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise InvalidDocument([("", None, f"the body is not UTF-8: {error.reason} at byte {error.start}")]) from None
    if "yaml" in content_type:
        data, lines = _yaml(text)
        return Given(data, text=text, lines=lines)
    try:
        data = msgspec.json.decode(body or b"{}")
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidDocument([("", None, f"the body is not JSON: {error}")]) from None
    if not isinstance(data, dict) or "document" not in data:
        return Given(data, text=text)
    return _envelope(data)


def _envelope(data: dict[str, Any]) -> Given:
    if unknown := set(data) - {"document", "params", "reuse"}:
        raise InvalidDocument([(min(unknown), None, f"unknown field {min(unknown)[:60]!r} beside document")])
    document, params, reuse = data["document"], data.get("params", {}), data.get("reuse", True)
    if not isinstance(params, dict):
        raise InvalidDocument([("params", None, "params: expected an object")])
    if not isinstance(reuse, bool):
        raise InvalidDocument([("reuse", None, "reuse: expected true or false")])
    if isinstance(document, str):
        read_data, lines = _yaml(document)
        return Given(read_data, params, document, lines, reuse)
    return Given(document, params, reuse=reuse)


def _yaml(text: str) -> tuple[Any, Lines]:
    from jarvis.utils import marked_yaml  # its library takes longer to import than the rest of this package

    try:
        return marked_yaml.read(text)
    except marked_yaml.Unreadable as error:
        raise InvalidDocument([("", error.line, str(error))]) from None


def checked_draft(given: Given) -> Draft:
    """The draft of a document without mistakes in itself; raises :class:`InvalidDocument`."""
    draft = read(given.data)
    refuse(given, validate(draft))
    return draft


def compiled(given: Given, rules: Rules, on_event: bool = False) -> WorkflowSpec:
    """The workflow that is meant; raises :class:`InvalidDocument`. ``on_event`` as in ``build``."""
    draft = checked_draft(given)
    spec, problems = build(draft, given.params, rules, on_event)
    refuse(given, problems)
    assert spec is not None
    return spec if given.reuse else msgspec.structs.replace(spec, reuse=False)


def refuse(given: Given, problems: list[Problem]) -> None:
    if not problems:
        return
    from jarvis.utils import marked_yaml

    if given.lines is None and given.text is not None:  # JSON is YAML, nearly always
        try:
            given.lines = marked_yaml.read(given.text)[1]
        except marked_yaml.Unreadable:
            given.lines = {}
    lines = given.lines or {}
    told = [(problem.path, marked_yaml.nearest(lines, problem.place), problem.message) for problem in problems]
    raise InvalidDocument(sorted(told, key=lambda one: one[1] or 0))
