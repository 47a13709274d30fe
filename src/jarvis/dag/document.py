"""PURE: from the document that people write to a draft of the model, with every mistake named by its place in the document.

The draft has the shape of the model, but tasks are still the fields that were given: what they mean is settled when the
parameters are known (``building``).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from jarvis.core.workflow import MAX_DEPTH, MAX_ITERATIONS, MAX_STEPS, PHASES, Edge, Phase

Place = tuple[str | int, ...]
"""Keys and positions that lead to a value of the document."""
MAX_PROBLEMS = 100
ID = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}\Z")
PARAM = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}\Z")
TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,), "integer": (int,), "number": (int, float), "boolean": (bool,), "list": (list,), "object": (dict,),
}  # fmt: skip

TASK_FIELDS = frozenset({
    "name", "command", "image", "pull", "mounts", "network", "entrypoint", "container_user", "script", "function",
    "resources", "nodes", "queue", "priority", "array", "entries", "time_limit", "soft_limit", "grace", "retry", "on_lost",
    "preemptible", "constraints", "tolerations", "keys", "near", "apart", "prefer", "licenses", "balancer",
    "env", "cwd", "stdout", "stderr", "stdin", "output_limit", "login_shell",
    "push", "artifacts",
})  # fmt: skip
"""Of ``POST /tasks``, that a step may have."""
WORK_FIELDS = ("command", "image", "script", "function")
KINDS = (*WORK_FIELDS, "steps", "race", "workflow", "switch", "sleep", "wait_until", "approval")
_BLOCK_FIELDS = ("on_failure", "finally", "output", "fail_fast")
_STEP_FIELDS = frozenset({
    "id", "depends_on", "trigger", "when", "for_each", "concurrency", "while", "until", "max_iterations", "delay", "cases",
    "default", "with", "timeout", "allow_failure", "cache", *KINDS, *_BLOCK_FIELDS, *TASK_FIELDS,
})  # fmt: skip
_TOP_FIELDS = frozenset({
    "name", "description", "params", "defaults", "steps", "concurrency", "timeout", "project", "workflows", *_BLOCK_FIELDS,
})  # fmt: skip
_SUB_FIELDS = frozenset({"description", "params", "steps", *_BLOCK_FIELDS})


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """A mistake: where in the document, and what is wrong there."""

    place: Place = field(compare=False)
    message: str

    @property
    def path(self) -> str:
        return ".".join(map(str, self.place))


@dataclass(slots=True)
class Param:
    """A declared parameter."""

    type: str
    required: bool = False
    default: Any = None
    enum: list[Any] | None = None
    place: Place = ()


@dataclass(slots=True)
class DraftBlock:
    place: Place
    phases: dict[Phase, list["DraftStep"]] = field(default_factory=dict)
    output: Any = None
    race: bool = False
    fail_fast: bool = False
    params: dict[str, Param] | None = None
    """Of a sub-workflow; None where those around it hold."""


@dataclass(slots=True)
class DraftStep:
    """``given`` are the fields as written; ``task`` those of its task, defaults included."""

    id: str
    place: Place
    given: dict[str, Any]
    edges: list[Edge] = field(default_factory=list)
    task: dict[str, Any] | None = None
    blocks: list[tuple[str, Any, DraftBlock]] = field(default_factory=list)
    """(label, value of its case, block)"""


@dataclass(slots=True)
class Draft:
    name: str = ""
    given: dict[str, Any] = field(default_factory=dict)
    params: dict[str, Param] = field(default_factory=dict)
    block: DraftBlock = field(default_factory=lambda: DraftBlock(()))
    problems: list[Problem] = field(default_factory=list)
    steps: int = 0


def read(data: object) -> Draft:
    """The draft of a document, and in it everything that is wrong with its shape."""
    draft = Draft()
    reader = _Reader(draft)
    if not isinstance(data, dict):
        reader.wrong((), "a workflow is an object with name and steps")
        return draft
    draft.given = data
    reader.read(data)
    return draft


class _Reader:
    def __init__(self, draft: Draft) -> None:
        self.draft = draft
        self._defaults: dict[str, Any] = {}
        self._known: dict[str, Any] = {}

    def wrong(self, place: Place, message: str) -> None:
        problem = Problem(place, message)
        if len(self.draft.problems) < MAX_PROBLEMS and problem not in self.draft.problems:
            self.draft.problems.append(problem)

    def read(self, data: dict[str, Any]) -> None:
        self._unknown(data, (), _TOP_FIELDS)
        name = data.get("name", "workflow")
        if not isinstance(name, str) or not 0 < len(name) <= 100 or not name.isprintable():
            self.wrong(("name",), "name: 1 to 100 characters without control characters")
        else:
            self.draft.name = name
        self._type(data, (), "description", str)
        self._type(data, (), "project", str)
        self._positive(data, (), "concurrency")
        defaults = data.get("defaults", {})
        if self._object(defaults, ("defaults",)):
            self._unknown(defaults, ("defaults",), TASK_FIELDS - set(WORK_FIELDS) - {"name", "array", "entries"})
            self._defaults = defaults
        known = data.get("workflows", {})
        if self._object(known, ("workflows",)):
            self._known = known
        self.draft.params = self._params(data.get("params", {}), ("params",))
        self.draft.block = self._block(data, (), ())

    # ------------------------------------------------------------ shapes

    def _object(self, value: object, place: Place) -> bool:
        if isinstance(value, dict) and all(isinstance(key, str) for key in value):
            return True
        self.wrong(place, f"{_last(place)}: expected an object with texts as keys")
        return False

    def _unknown(self, data: Mapping[str, Any], place: Place, known: frozenset[str]) -> None:
        for key in data:
            if key not in known:
                close = _closest(str(key), known)
                self.wrong(
                    (*place, key), f"unknown field {str(key)[:60]!r}" + (f"; did you mean {close!r}?" if close else "")
                )

    def _type(self, data: Mapping[str, Any], place: Place, key: str, wanted: type) -> bool:
        """Whether the value is there and of that type; what is there and is not, is told."""
        value = data.get(key)
        if value is None:
            return False
        if type(value) is not wanted:
            words = {str: "a text", bool: "true or false", int: "a whole number", list: "a list", dict: "an object"}
            self.wrong((*place, key), f"{key}: expected {words[wanted]}")
            return False
        return True

    def _positive(self, data: Mapping[str, Any], place: Place, key: str, most: int = 1_000_000) -> None:
        if self._type(data, place, key, int) and not 0 < data[key] <= most:
            self.wrong((*place, key), f"{key}: expected a whole number from 1 to {most:,}")

    # ------------------------------------------------------------ parameters

    def _params(self, given: object, place: Place) -> dict[str, Param]:
        out: dict[str, Param] = {}
        if not self._object(given, place):
            return out
        assert isinstance(given, dict)
        for name, value in given.items():
            at = (*place, name)
            if not PARAM.match(name):
                self.wrong(at, f"{name[:60]!r} is not a name: letters, digits and _")
            else:
                out[name] = self._param(value, at)
        return out

    def _param(self, value: Any, place: Place) -> Param:
        """``{type, default, enum}``, or the default alone."""
        if not (isinstance(value, dict) and "type" in value):
            kind = next((n for n, types in TYPES.items() if type(value) in types), None)
            if kind is None:
                self.wrong(place, f"{_last(place)}: give {{type: …}}, or a value as its default")
            return Param(kind or "string", default=value, place=place)
        self._unknown(value, place, frozenset({"type", "default", "enum", "description"}))
        kind = value["type"]
        if not isinstance(kind, str) or kind not in TYPES:
            self.wrong((*place, "type"), f"type: expected one of {', '.join(TYPES)}")
            return Param("string", place=place)
        enum = value.get("enum")
        if enum is not None and not isinstance(enum, list):
            self.wrong((*place, "enum"), "enum: expected a list of values")
            enum = None
        found = Param(kind, "default" not in value, value.get("default"), enum, place)
        if not found.required and (said := mismatch(found, found.default)):
            self.wrong((*place, "default"), f"default: {said}")
        return found

    # ------------------------------------------------------------ blocks

    def _block(
        self, data: Mapping[str, Any], place: Place, inside: tuple[str, ...], first: str = "steps"
    ) -> DraftBlock:
        """``inside``: the names of the sub-workflows that it is in, to see one that holds itself."""
        block = DraftBlock(place, output=data.get("output"), race=first == "race")
        block.fail_fast = self._type(data, place, "fail_fast", bool) and data["fail_fast"]
        seen: dict[str, Place] = {}
        for phase in PHASES:
            key = first if phase == "steps" else phase
            block.phases[phase] = self._steps(data.get(key), (*place, key), inside, seen, needed=phase == "steps")
        return block

    def _steps(
        self, given: object, place: Place, inside: tuple[str, ...], seen: dict[str, Place], needed: bool
    ) -> list["DraftStep"]:
        if given is None and not needed:
            return []
        if not isinstance(given, list) or (needed and not given):
            self.wrong(place if given is not None else place[:-1], f"{_last(place)}: expected a list of steps")
            return []
        out = []
        for at, item in enumerate(given):
            self.draft.steps += 1
            if self.draft.steps > MAX_STEPS:
                self.wrong(place, f"{_last(place)}: a workflow has at most {MAX_STEPS:,} steps, inner ones counted")
                break
            if self._object(item, (*place, at)):
                step = self._step(item, (*place, at), inside)
                if step.id in seen:
                    self.wrong(
                        (*place, at, "id"),
                        f"id: there are two steps {step.id!r} (the other one: {path(seen[step.id])})",
                    )
                elif step.id:
                    seen[step.id] = (*place, at)
                out.append(step)
        return out

    def _step(self, data: dict[str, Any], place: Place, inside: tuple[str, ...]) -> DraftStep:
        self._unknown(data, place, _STEP_FIELDS)
        ident = data.get("id")
        step = DraftStep("", place, data)
        if ident is None:
            self.wrong(place, "id: a step needs an id")
        elif not isinstance(ident, str) or not ID.match(ident):
            self.wrong((*place, "id"), "id: up to 64 letters, digits, _ and -, the first one not a digit or -")
        else:
            step.id = ident
        step.edges = self._edges(data.get("depends_on", []), (*place, "depends_on"))
        self._plain_fields(data, place)
        self._kind(step, data, place, inside)
        return step

    def _plain_fields(self, data: dict[str, Any], place: Place) -> None:
        if data.get("trigger", "all") not in ("all", "any", "none_failed", "always"):
            self.wrong((*place, "trigger"), "trigger: expected all, any, none_failed or always")
        for key in ("when", "while", "until", "switch"):
            if not isinstance(data.get(key, ""), str | bool | int) or data.get(key, 0) is None:
                self.wrong((*place, key), f"{key}: expected an expression")
        for key in ("allow_failure", "fail_fast"):
            self._type(data, place, key, bool)
        self._positive(data, place, "concurrency")
        self._positive(data, place, "max_iterations", MAX_ITERATIONS)
        loops = "while" in data or "until" in data
        if loops and "for_each" in data:
            self.wrong(
                (*place, "for_each"), "for_each: not beside while or until; put one of them into a step with steps"
            )
        for key, wants, there in (
            ("max_iterations", "while or until", loops), ("delay", "while or until", loops),
            ("concurrency", "for_each", "for_each" in data), ("with", "workflow", "workflow" in data),
            ("cases", "switch", "switch" in data), ("default", "switch", "switch" in data),
            ("cache", "a task", any(key in data for key in WORK_FIELDS)),
        ):  # fmt: skip
            if key in data and not there:
                self.wrong((*place, key), f"{key}: goes with {wants}")
        if "cache" in data:
            self._cache(data["cache"], (*place, "cache"), loops)

    def _cache(self, given: object, place: Place, loops: bool) -> None:
        if loops:
            self.wrong(place, "cache: not beside while or until: an iteration is there to find something new")
        if not self._object(given, place):
            return
        assert isinstance(given, dict)
        self._unknown(given, place, frozenset({"key", "ttl"}))
        key = given.get("key")
        if not isinstance(key, str) or not key:
            self.wrong((*place, "key"), "key: expected a text, like ${{ params.day }}")

    def _edges(self, given: object, place: Place) -> list[Edge]:
        items = given if isinstance(given, list) else [given]
        out: list[Edge] = []
        for at, given_edge in enumerate(items):
            item: Any = given_edge
            where = (*place, at) if isinstance(given, list) else place
            on = "success"
            if isinstance(item, dict):
                self._unknown(item, where, frozenset({"step", "on"}))
                item, on = item.get("step"), item.get("on", item.get(True, "success"))
            if not isinstance(item, str):
                self.wrong(where, "depends_on: expected the id of a step, or {step: ID, on: success | failure | any}")
            elif on not in ("success", "failure", "any"):
                self.wrong((*where, "on"), "on: expected success, failure or any")
            elif any(edge.step == item for edge in out):
                self.wrong(where, f"depends_on: names {item!r} twice; both cannot be meant")
            else:
                out.append(Edge(item, on))  # type: ignore[arg-type]  # one of the three
        return out

    # ------------------------------------------------------------ kinds

    def _kind(self, step: DraftStep, data: dict[str, Any], place: Place, inside: tuple[str, ...]) -> None:
        work = [key for key in WORK_FIELDS if key in data]
        kinds = [key for key in KINDS if key in data and key not in WORK_FIELDS] + work[:1]
        if len(kinds) != 1:
            said = "two kinds of work: " + " and ".join(kinds) if kinds else "nothing to do"
            self.wrong(place, f"step {step.id or '?'} has {said}; give one of {', '.join(KINDS)}")
            return
        kind = kinds[0]
        foreign = TASK_FIELDS - {"name"} if kind not in WORK_FIELDS else frozenset(_BLOCK_FIELDS) - {"fail_fast"}
        if kind in ("switch", "sleep", "wait_until", "approval"):
            foreign |= set(_BLOCK_FIELDS) - {"fail_fast"}
        for key in sorted(foreign & set(data)):
            self.wrong((*place, key), f"{key}: not beside {kind}")
        if len(inside) >= MAX_DEPTH:
            self.wrong(place, f"steps within steps go {MAX_DEPTH} deep at most")
        elif kind in WORK_FIELDS:
            step.task = {key: value for key, value in data.items() if key in TASK_FIELDS}
            step.task = _with_defaults(self._defaults, step.task)
        elif kind in ("steps", "race"):
            step.blocks.append(("", None, self._block(data, place, (*inside, ""), kind)))
        elif kind == "workflow":
            self._sub_workflow(step, data["workflow"], place, inside)
        elif kind == "switch":
            self._cases(step, data, place, inside)
        elif kind == "approval":
            self._approval(data["approval"], (*place, "approval"))

    def _sub_workflow(self, step: DraftStep, given: Any, place: Place, inside: tuple[str, ...]) -> None:
        """One that is written here, or the name of one of ``workflows``."""
        at: Place = (*place, "workflow")
        name = ""
        if isinstance(given, str):
            name = given
            if name in inside:
                loop = [*inside[inside.index(name) :], name]
                self.wrong(at, f"workflow: {' → '.join(n for n in loop if n)} holds itself")
                return
            if name not in self._known:
                self.wrong(at, f"workflow: there is no {name[:60]!r} under workflows")
                return
            given, at = self._known[name], ("workflows", name)
        if not self._object(given, at):
            return
        self._unknown(given, at, _SUB_FIELDS)
        block = self._block(given, at, (*inside, name))
        block.params = self._params(given.get("params", {}), (*at, "params"))
        values = step.given.get("with", {})
        if self._object(values, (*place, "with")):
            for key in values:
                if key not in block.params:
                    self.wrong((*place, "with", key), f"with: the workflow has no parameter {key[:60]!r}")
            for key, param in block.params.items():
                if param.required and key not in values:
                    self.wrong((*place, "with"), f"with: the parameter {key!r} has no default and needs a value")
        step.blocks.append(("", None, block))

    def _cases(self, step: DraftStep, data: dict[str, Any], place: Place, inside: tuple[str, ...]) -> None:
        cases = data.get("cases")
        if not isinstance(cases, dict) or not cases:
            self.wrong((*place, "cases"), "cases: expected an object from values to {steps: …}")
            return
        for value, case in cases.items():
            label, at = str(value), (*place, "cases", value)
            if not ID.match(label) and not label.isalnum():
                self.wrong(at, "cases: a value is up to 64 letters, digits, _ and -")
            elif self._object(case, at):
                self._unknown(case, at, frozenset({"steps", *_BLOCK_FIELDS}))
                step.blocks.append((label, value, self._block(case, at, (*inside, ""))))
        default = data.get("default")
        if default is not None and self._object(default, (*place, "default")):
            self._unknown(default, (*place, "default"), frozenset({"steps", *_BLOCK_FIELDS}))
            step.blocks.append(("default", None, self._block(default, (*place, "default"), (*inside, ""))))

    def _approval(self, given: Any, place: Place) -> None:
        if isinstance(given, str) or given is True:
            return
        if self._object(given, place):
            self._unknown(given, place, frozenset({"message", "users"}))
            self._type(given, place, "message", str)
            users = given.get("users", [])
            if not isinstance(users, list) or not all(isinstance(u, str) for u in users):
                self.wrong((*place, "users"), "users: expected a list of names")


def mismatch(param: Param, value: Any) -> str:
    """Why a value does not go with a parameter; empty when it does."""
    types = TYPES[param.type]
    if not isinstance(value, types) or (isinstance(value, bool) and param.type != "boolean"):
        return f"expected {'an' if param.type[0] in 'aeio' else 'a'} {param.type}, not {type(value).__name__}"
    if param.enum is not None and value not in param.enum:
        return f"expected one of {', '.join(map(str, param.enum))[:200]}"
    return ""


def _with_defaults(defaults: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """Objects (resources, env, retry) are joined key by key."""
    out = {**defaults, **given}
    for key in ("resources", "env", "retry"):
        if isinstance(defaults.get(key), dict) and isinstance(given.get(key), dict):
            out[key] = {**defaults[key], **given[key]}
    return out


def _last(place: Place) -> str:
    return str(place[-1]) if place else "the document"


def path(place: Place) -> str:
    return ".".join(map(str, place))


def _closest(word: str, known: frozenset[str]) -> str:
    """The field that was probably meant: one that differs in one or two letters."""
    from difflib import get_close_matches

    return next(iter(get_close_matches(word[:60], sorted(known), 1, 0.75)), "")
