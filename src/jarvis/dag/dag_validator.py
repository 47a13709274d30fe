"""PURE: what is wrong with a workflow whose shape is right: cycles, missing steps, what can never run, expressions."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from jarvis.core.workflow import PHASES
from jarvis.dag import expressions
from jarvis.dag.document import MAX_PROBLEMS, Draft, DraftBlock, DraftStep, Place, Problem
from jarvis.dag.expressions import BadExpression
from jarvis.dag.resolver import find_cycle

OK, BAD, SKIPPED = "succeeded", "failed", "skipped"
_CANNOT_FAIL = ("sleep", "wait_until")
_EXPRESSIONS = ("when", "while", "until", "switch")


@dataclass(slots=True)
class _Scope:
    """What expressions may read at a place."""

    params: frozenset[str]
    steps: frozenset[str] = frozenset()
    """Visible from the blocks around: their ids, which inner steps may not have, too."""
    others: frozenset[str] = frozenset({"workflow"})
    taken: frozenset[str] = frozenset()
    static: frozenset[str] = field(default_factory=frozenset)


def validate(draft: Draft) -> list[Problem]:
    """Everything that is wrong, the shape included, in the order of the document."""
    checker = _Checker(draft)
    if not draft.problems:
        checker.block(draft.block, _Scope(frozenset(draft.params)))
    return checker.problems


class _Checker:
    def __init__(self, draft: Draft) -> None:
        self.problems = list(draft.problems)
        self._seen = {(p.place, p.message) for p in self.problems}

    def wrong(self, place: Place, message: str) -> None:
        if len(self.problems) < MAX_PROBLEMS and (place, message) not in self._seen:
            self._seen.add((place, message))
            self.problems.append(Problem(place, message))

    def block(self, block: DraftBlock, scope: _Scope) -> None:
        if block.params is not None:
            scope = _Scope(frozenset(block.params), scope.steps, scope.others, scope.taken)
        before: frozenset[str] = frozenset()
        for phase in PHASES:
            steps = block.phases.get(phase, [])
            ids = [step.id for step in steps]
            for step in steps:
                if step.id in scope.taken:
                    self.wrong((*step.place, "id"), f"id: a step around this one is called {step.id!r}, too")
            inner = _Scope(
                scope.params, scope.steps | before, scope.others, scope.taken | frozenset(ids) | before, scope.static
            )
            if self._edges_exist(steps, before) and self._no_cycle(steps):
                self._possible(steps)
                self._steps(steps, inner)
            before |= frozenset(ids)
        self._reads(block.output, _Scope(scope.params, scope.steps | before, scope.others), (*block.place, "output"))

    # ------------------------------------------------------------ edges

    def _edges_exist(self, steps: list[DraftStep], earlier: frozenset[str]) -> bool:
        known = {step.id for step in steps}
        good = True
        for step in steps:
            for edge in step.edges:
                if edge.step not in known:
                    there = (
                        "it is in an earlier part, which has ended by then"
                        if edge.step in earlier
                        else "there is none here"
                    )
                    self.wrong(_edge_place(step, edge.step), f"depends_on: no step {edge.step!r}: {there}")
                    good = False
        return good

    def _no_cycle(self, steps: list[DraftStep]) -> bool:
        places = {step.id: step for step in steps}
        cycle = find_cycle({step.id: [edge.step for edge in step.edges] for step in steps})
        if cycle is None:
            return True
        first = min(cycle[:-1], key=lambda ident: list(places).index(ident))
        turned = cycle[:-1][cycle.index(first) :] + cycle[: cycle.index(first)] + [first]
        step = places[first]
        self.wrong(_edge_place(step, turned[1]), f"depends_on: a cycle: {' waits for '.join(turned[:12])}")
        return False

    def _possible(self, steps: list[DraftStep]) -> None:
        """Which ends each step can have, from those before it; a step that can never begin is told, those behind it are not."""
        ends: dict[str, frozenset[str]] = {}
        for step in _in_order(steps):
            met = [bool(ends[edge.step] & _meets(edge.on)) for edge in step.edges]
            trigger = step.given.get("trigger", "all")
            runs = not met or (any(met) if trigger == "any" else all(met) or trigger in ("none_failed", "always"))
            never = _never(step.given.get("when"))
            if not runs:
                edge = step.edges[met.index(False)]
                said = f"step {step.id!r} can never run: {edge.step!r} never ends by {edge.on}"
                self.wrong(_edge_place(step, edge.step), said)
            if never:
                self.wrong((*step.place, "when"), f"step {step.id!r} can never run: its condition is always false")
            ends[step.id] = _ends_of(step) if runs else frozenset({OK, BAD, SKIPPED})

    # ------------------------------------------------------------ expressions

    def _steps(self, steps: list[DraftStep], scope: _Scope) -> None:
        before = _ancestors(steps)
        for step in steps:
            seen = _Scope(scope.params, scope.steps | before[step.id], scope.others, scope.taken)
            self._step(step, seen)

    def _step(self, step: DraftStep, scope: _Scope) -> None:
        given = step.given
        others = scope.others
        if "for_each" in given:
            others |= {"item", "index"}
        if "while" in given or "until" in given:
            others |= {"iteration", "last"}
        inside = _Scope(scope.params, scope.steps, others, scope.taken)
        for key in _EXPRESSIONS:
            if isinstance(given.get(key), str):
                at = inside if key in ("while", "until", "switch") else scope
                self._expression(given[key], at, (*step.place, key))
        self._reads_or_expression(given.get("for_each"), scope, (*step.place, "for_each"))
        for key in ("sleep", "wait_until", "with", "cache"):
            self._reads(given.get(key), inside, (*step.place, key))
        for key, value in (step.task or {}).items():
            self._reads(value, inside, (*step.place, key))
        for _, _, block in step.blocks:
            self.block(block, inside)

    def _reads_or_expression(self, value: object, scope: _Scope, place: Place) -> None:
        """A list, a template, or a bare expression."""
        if isinstance(value, str) and "${{" not in value:
            self._expression(value, scope, place)
        elif value is not None and not isinstance(value, str | list):
            self.wrong(place, "for_each: expected a list or an expression that gives one")
        else:
            self._reads(value, scope, place)

    def _reads(self, value: object, scope: _Scope, place: Place) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                self._reads(key, scope, (*place, key))
                self._reads(inner, scope, (*place, key))
        elif isinstance(value, list):
            for at, inner in enumerate(value):
                self._reads(inner, scope, (*place, at))
        elif isinstance(value, str) and "${{" in value:
            rest = expressions.TEMPLATE.sub("", value)
            if "${{" in rest:
                self.wrong(place, "a '${{' without its '}}'")
            for text in expressions.templates(value):
                self._expression(text, scope, place)

    def _expression(self, text: str, scope: _Scope, place: Place) -> None:
        try:
            read = expressions.names(text)
        except BadExpression as error:
            self.wrong(place, f"{place[-1]}: {error}")
            return
        for name in sorted(read):
            if said := _unreadable(name, scope):
                self.wrong(place, f"{place[-1]}: {said}")


def _unreadable(name: str, scope: _Scope) -> str:
    """Why an expression may not read a variable there; empty when it may."""
    kind, _, key = name.partition(".")
    if kind == "params":
        return (
            ""
            if key in scope.params
            else (f"there is no parameter {key!r}" if key else "name a parameter: params.NAME")
        )
    if kind == "steps":
        if not key:
            return "name a step: steps.ID"
        if key in scope.steps:
            return ""
        return f"reads steps.{key}, " + (
            "which this step does not wait for: name it in depends_on"
            if key in scope.taken
            else "and there is no such step"
        )
    if name in scope.others:
        return ""
    hints = {"item": "for_each", "index": "for_each", "iteration": "while or until", "last": "while or until"}
    if name in hints:
        return f"{name} is known within {hints[name]} alone"
    return f"there is no variable {name[:60]!r}; there are params, steps, {', '.join(sorted(scope.others))}"


def _never(when: object) -> bool:
    """Whether a condition is false whatever happens."""
    if not isinstance(when, str):
        return when is False
    try:
        return not expressions.names(when) and not expressions.evaluate(when, {})
    except BadExpression:
        return False


def _meets(on: str) -> frozenset[str]:
    return {"success": frozenset({OK}), "failure": frozenset({BAD}), "any": frozenset({OK, BAD, SKIPPED})}[on]


def _ends_of(step: DraftStep) -> frozenset[str]:
    """Ends that a step which may begin can have."""
    sure = any(key in step.given for key in _CANNOT_FAIL) and "timeout" not in step.given
    plain = isinstance(step.given.get("sleep", step.given.get("wait_until")), int | float)
    if sure and plain and not step.edges and "when" not in step.given and "for_each" not in step.given:
        return frozenset({OK})
    return frozenset({OK, BAD, SKIPPED})


def _in_order(steps: list[DraftStep]) -> Iterable[DraftStep]:
    """Each after those that it waits for."""
    from graphlib import TopologicalSorter

    by_id = {step.id: step for step in steps}
    order = TopologicalSorter({step.id: [edge.step for edge in step.edges] for step in steps})
    return (by_id[ident] for ident in order.static_order())


_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")


def _ancestors(steps: list[DraftStep]) -> Mapping[str, frozenset[str]]:
    """Step → those of the steps it names anywhere that have ended, or may have, when it begins."""
    bit = {step.id: 1 << at for at, step in enumerate(steps)}
    before: dict[str, int] = {}
    for step in _in_order(steps):
        mask = 0
        for edge in step.edges:
            mask |= before[edge.step] | bit[edge.step]
        before[step.id] = mask
    out: dict[str, frozenset[str]] = {}
    for step in steps:
        named = set(_WORD.findall(repr(step.given))) if "steps" in repr(step.given) else set()
        out[step.id] = frozenset(word for word in named if bit.get(word, 0) & before[step.id])
    return out


def _edge_place(step: DraftStep, other: str) -> Place:
    """Where the document names that edge."""
    given = step.given.get("depends_on")
    if isinstance(given, list):
        for at, item in enumerate(given):
            if item == other or (isinstance(item, dict) and item.get("step") == other):
                return (*step.place, "depends_on", at)
    return (*step.place, "depends_on")
