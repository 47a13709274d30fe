"""PURE: from a valid draft and the values of its parameters to the model.

What a template reads of the workflow's own parameters alone is filled in here, in any field, so that it is checked before
anything runs. The rest is filled in when the step begins, and only texts can wait for that.
"""

from collections.abc import Mapping
from typing import Any, Protocol

from jarvis.core.errors import InvalidValue, JarvisError
from jarvis.core.task import TaskSpec
from jarvis.core.workflow import EVENT, MAX_FAN_OUT, Approval, Block, Cache, Case, Loop, StepSpec, WorkflowSpec
from jarvis.dag import expressions
from jarvis.dag.document import MAX_PROBLEMS, Draft, DraftBlock, DraftStep, Param, Place, Problem, mismatch
from jarvis.dag.expressions import BadExpression

DEFAULT_TTL = "7d"
"""Of what a step with a cache gives."""
MAX_TTL_S = 366 * 86400.0
LATE_FIELDS = ("command", "env", "cwd", "stdout", "stderr", "stdin", "image", "entrypoint", "name", "push")
"""Of a task: their templates may read what is known only when the step begins."""


class Rules(Protocol):
    """What the model leaves to others: how a task and a time are written. Each raises :class:`InvalidValue`."""

    def task(self, fields: Mapping[str, Any]) -> TaskSpec: ...
    def duration(self, value: object, field: str) -> float: ...
    def instant(self, value: object, field: str) -> float: ...


def bind(params: Mapping[str, Param], given: Mapping[str, Any]) -> tuple[dict[str, Any], list[Problem]]:
    """The values that hold, and what is wrong with those that were given."""
    problems = [
        Problem(("params", name), f"params: there is no parameter {name[:60]!r}")
        for name in given
        if name not in params
    ]
    values: dict[str, Any] = {}
    for name, param in params.items():
        if name in given:
            values[name] = given[name]
            if said := mismatch(param, given[name]):
                problems.append(Problem(("params", name), f"params.{name}: {said}"))
        elif param.required:
            problems.append(Problem(("params", name), f"params.{name}: has no default and needs a value"))
        else:
            values[name] = param.default
    return values, problems


def build(
    draft: Draft, given: Mapping[str, Any], rules: Rules, on_event: bool = False
) -> tuple[WorkflowSpec | None, list[Problem]]:
    """The model of a draft that :func:`~jarvis.dag.dag_validator.validate` found nothing wrong with. ``on_event``: what
    happened is known later, in the parameter ``event`` if it has one."""
    late = draft.params.get(EVENT) if on_event else None
    if late is not None and late.type != "object":
        return None, [Problem(("params", EVENT), f"params.{EVENT}: takes what happened, so its type is object")]
    params, problems = bind(draft.params, given if late is None else {EVENT: {}, **given})
    if problems:
        return None, problems
    builder = _Builder(params, rules, None if late is None else EVENT)
    block = builder.block(draft.block)
    timeout = builder.positive(draft.given.get("timeout"), ("timeout",))
    spec = WorkflowSpec(
        name=draft.name, block=block, params=params, concurrency=draft.given.get("concurrency"), timeout=timeout,
        description=draft.given.get("description") or "",
    )  # fmt: skip
    return (None if builder.problems else spec), builder.problems


class _Builder:
    def __init__(self, params: dict[str, Any], rules: Rules, late: str | None) -> None:
        self.problems: list[Problem] = []
        self._rules = rules
        self._static: dict[str, Any] = {"params": params}
        self._late = f"params.{late}"
        self._depth = 0

    def _wrong(self, place: Place, message: str) -> None:
        problem = Problem(place, message)
        if len(self.problems) < MAX_PROBLEMS and problem not in self.problems:
            self.problems.append(problem)

    # ------------------------------------------------------------ blocks and steps

    def block(self, draft: DraftBlock) -> Block:
        own = draft.params is not None
        self._depth += own
        steps, on_failure, final = (
            tuple([self._step(s) for s in draft.phases.get(p, [])]) for p in ("steps", "on_failure", "finally")
        )
        output = self._fill(draft.output, (*draft.place, "output"))
        self._depth -= own
        return Block(steps, on_failure, final, output, draft.race, draft.fail_fast)

    def _step(self, draft: DraftStep) -> StepSpec:
        given, place = draft.given, draft.place
        blocks = [(label, value, self.block(block)) for label, value, block in draft.blocks]
        switch = given.get("switch")
        fields: dict[str, Any] = {}
        if draft.task is not None:
            fields["task"] = self._task(draft)
        elif switch is not None:
            fields["switch"] = _expression(switch)
            fields["cases"] = tuple(
                [Case(label, value, b) for label, value, b in blocks if label != "default" or value]
            )
            fields["default"] = next((b for label, value, b in blocks if label == "default" and value is None), None)
        elif blocks:
            fields["block"] = blocks[0][2]
        elif "approval" in given:
            fields["approval"] = _approval(given["approval"])
        if "workflow" in given:
            fields["params"] = self._with(draft)
            fields["types"] = {name: param.type for name, param in (draft.blocks[0][2].params or {}).items()}
        return StepSpec(
            id=draft.id,
            depends_on=tuple(draft.edges),
            trigger=given.get("trigger", "all"),
            when=_expression(given["when"]) if "when" in given else None,
            sleep=self._time(given.get("sleep"), (*place, "sleep"), self._rules.duration),
            wait_until=self._time(given.get("wait_until"), (*place, "wait_until"), self._rules.instant),
            for_each=self._for_each(given.get("for_each"), (*place, "for_each")),
            fail_fast=bool(given.get("fail_fast")) and "for_each" in given,
            concurrency=given.get("concurrency"),
            loop=self._loop(given, place),
            timeout=self.positive(given.get("timeout"), (*place, "timeout")),
            allow_failure=given.get("allow_failure") is True,
            cache=self._cache(given["cache"], (*place, "cache")) if given.get("cache") is not None else None,
            **fields,
        )

    def _with(self, draft: DraftStep) -> dict[str, Any]:
        """Values of a sub-workflow's parameters: those given here, and the defaults."""
        (_, _, block) = draft.blocks[0]
        given = self._fill(draft.given.get("with", {}), (*draft.place, "with"))
        values: dict[str, Any] = {}
        for name, param in (block.params or {}).items():
            values[name] = given.get(name, param.default)
            known = name in given and not any(True for _ in expressions.templates(given[name]))
            if known and (said := mismatch(param, given[name])):
                self._wrong((*draft.place, "with", name), f"with: {name}: {said}")
        return values

    def _cache(self, given: Mapping[str, Any], place: Place) -> Cache:
        wanted = given.get("ttl")
        ttl = self.positive(DEFAULT_TTL if wanted is None else wanted, (*place, "ttl"))
        if ttl is not None and ttl > MAX_TTL_S:
            self._wrong((*place, "ttl"), f"ttl: at most {MAX_TTL_S / 86400:g} days")
        return Cache(self._fill(given["key"], (*place, "key"), as_text=True), ttl or 0.0)

    def _loop(self, given: Mapping[str, Any], place: Place) -> Loop | None:
        if "while" not in given and "until" not in given:
            return None
        delay = self._time(given.get("delay", 0.0), (*place, "delay"), self._rules.duration)
        return Loop(
            _expression(given["while"]) if "while" in given else None,
            _expression(given["until"]) if "until" in given else None,
            given.get("max_iterations") or 100,
            delay if isinstance(delay, float) else 0.0,
        )

    def _for_each(self, value: Any, place: Place) -> Any:
        if value is None:
            return None
        filled = self._fill(value if not isinstance(value, str) or "${{" in value else f"${{{{ {value} }}}}", place)
        if isinstance(filled, str) and "${{" in filled:
            return filled
        if not isinstance(filled, list):
            self._wrong(place, f"for_each: gives {type(filled).__name__}, not a list")
        elif len(filled) > MAX_FAN_OUT:
            self._wrong(place, f"for_each: {len(filled):,} elements of at most {MAX_FAN_OUT:,}")
        return filled

    def positive(self, value: Any, place: Place) -> float | None:
        if value is None:
            return None
        seconds = self._time(value, place, self._rules.duration)
        if isinstance(seconds, str):
            self._wrong(place, f"{place[-1]}: may read the workflow's own params alone")
            return None
        if seconds is not None and seconds <= 0:
            self._wrong(place, f"{place[-1]}: expected longer than nothing")
        return seconds

    def _time(self, value: Any, place: Place, read: Any) -> float | str | None:
        """Seconds; a text where that is known later."""
        filled = self._fill(value, place)
        if filled is None or (isinstance(filled, str) and "${{" in filled):
            return filled
        try:
            return float(read(filled, str(place[-1])))
        except InvalidValue as error:
            self._wrong(place, str(error))
            return None

    # ------------------------------------------------------------ tasks

    def _task(self, draft: DraftStep) -> TaskSpec | None:
        given = (draft.task or {}).items()
        fields = {key: self._fill(value, (*draft.place, key), as_text=key in LATE_FIELDS) for key, value in given}
        fields.setdefault("name", draft.id)
        for key, value in fields.items():
            early = (
                {k: v for k, v in value.items() if k != "inputs"}
                if key == "function" and isinstance(value, dict)
                else value
            )
            if key not in LATE_FIELDS and any(True for _ in expressions.templates(early)):
                self._wrong((*draft.place, key), f"{key}: may read the workflow's own params alone")
                return None
        try:
            return self._rules.task(fields)
        except InvalidValue as error:
            field = _place_of(error.field)
            common = bool(field) and field[0] not in draft.given
            self._wrong((*(("defaults",) if common else draft.place), *field), str(error))
        except JarvisError as error:
            self._wrong(draft.place, str(error))
        return None

    def _fill(self, value: Any, place: Place, as_text: bool = False) -> Any:
        """Fill in what is known now. A text is filled in as a whole or not at all; ``as_text``: it stays a text."""
        if isinstance(value, dict):
            return {key: self._fill(inner, (*place, key), as_text) for key, inner in value.items()}
        if isinstance(value, list):
            return [self._fill(inner, (*place, at), as_text) for at, inner in enumerate(value)]
        if as_text and isinstance(value, int | float):  # as people write it in YAML: [sleep, 5]
            return expressions.to_text(value)
        if not isinstance(value, str) or "${{" not in value:
            return value
        names = expressions.names_in(value)
        if self._depth or self._late in names or not all(name.startswith("params.") for name in names):
            return value
        try:
            return (expressions.render_text if as_text else expressions.render)(value, self._static)
        except BadExpression as error:
            self._wrong(place, f"{place[-1]}: {error}")
            return value


def _expression(value: str | bool | int) -> str:
    """``true`` and numbers are expressions, too."""
    return value if isinstance(value, str) else repr(value)


def _approval(given: Any) -> Approval:
    if isinstance(given, dict):
        return Approval(given.get("message") or "", tuple(given.get("users", ())))
    return Approval(given if isinstance(given, str) else "")


def _place_of(field: str) -> Place:
    return tuple(int(part) if part.isdigit() else part for part in field.split(".") if part)
