"""What a workflow must come to, worked out by walking the document once: no time, no queue, no counters, nothing of Jarvis.

``outcome(path)`` says what a task does: a list of (exit code, output) for each try. What depends on which of two things comes
first (``race``, ``fail_fast``, timeouts, cancelling) has no one answer and is not known here.
"""

import re
from collections.abc import Callable
from typing import Any

Try = tuple[int, Any]
Outcome = Callable[[str], list[Try]]
GOOD, FAILED, SKIPPED, UPSTREAM = "succeeded", "failed", "skipped", "upstream_failed"
BAD = (FAILED, UPSTREAM)
_TEMPLATE = re.compile(r"\$\{\{(.*?)\}\}")


TYPES = {"string": str, "integer": int, "boolean": bool, "list": list, "object": dict}


class Bad(Exception):
    """An expression that has no value."""


class Record(dict[str, Any]):
    """An object whose keys are read as attributes."""

    def __getattr__(self, name: str) -> Any:
        return self[name]


def wrapped(value: Any) -> Any:
    if isinstance(value, dict):
        return Record({key: wrapped(inner) for key, inner in value.items()})
    return [wrapped(inner) for inner in value] if isinstance(value, list) else value


def plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    return [plain(inner) for inner in value] if isinstance(value, list) else value


class Reference:
    """``states`` after :meth:`run`: path → state of everything that came up; ``started``: path → tries of its task."""

    def __init__(self, document: dict[str, Any], outcome: Outcome, params: dict[str, Any] | None = None) -> None:
        self.document, self.outcome = document, outcome
        declared = {
            k: v["default"] if isinstance(v, dict) and "type" in v else v for k, v in document.get("params", {}).items()
        }
        self.params = declared | (params or {})
        self.states: dict[str, str] = {}
        self.outputs: dict[str, Any] = {}
        self.started: dict[str, int] = {}

    def run(self) -> str:
        state, _ = self.block(self.document, "", {"params": self.params}, {})
        return state

    # ------------------------------------------------------------ blocks

    def block(self, block: dict[str, Any], prefix: str, names: dict[str, Any], seen: dict[str, str]) -> tuple[str, Any]:
        """(state, output). ``seen``: the steps that expressions may read, by id."""
        seen = dict(seen)
        failed = self.phase(block["steps"], prefix, names, seen)
        if failed and block.get("on_failure"):
            failed = self.phase(block["on_failure"], prefix, names, seen) or failed
        if block.get("finally"):
            failed = self.phase(block["finally"], prefix, names, seen) or failed
        if failed:
            return FAILED, None
        if block.get("output") is None:
            return GOOD, None
        try:
            return GOOD, self.fill(block["output"], names, seen)
        except Bad:
            return FAILED, None

    def phase(self, steps: list[dict[str, Any]], prefix: str, names: dict[str, Any], seen: dict[str, str]) -> bool:
        """Whether it has failed: a failure counts unless somebody expected it."""
        left = {step["id"]: step for step in steps}
        expected = {edge["step"] for step in steps for edge in edges_of(step) if edge["on"] == "failure"}
        failed = False
        while left:
            ready = [s for s in left.values() if not any(edge["step"] in left for edge in edges_of(s))]
            for step in ready:
                del left[step["id"]]
                path = prefix + step["id"]
                seen[step["id"]] = path
                state = self.step(step, path, names, seen)
                self.states[path] = state
                if state == FAILED and not step.get("allow_failure") and step["id"] not in expected:
                    failed = True
        return failed

    # ------------------------------------------------------------ steps

    def step(self, step: dict[str, Any], path: str, names: dict[str, Any], seen: dict[str, str]) -> str:
        ends = [(edge["on"], self.states[seen[edge["step"]]]) for edge in edges_of(step)]
        if not may_run(step.get("trigger", "all"), ends):
            return UPSTREAM if any(state in BAD for _, state in ends) else SKIPPED
        try:
            if "when" in step and not self.value(step["when"], names, seen):
                return SKIPPED
            if "for_each" in step:
                return self.fan_out(step, path, names, seen)
            if "while" in step or "until" in step:
                return self.loop(step, path, names, seen)
        except Bad:
            return FAILED
        return self.body(step, path, names, seen)

    def fan_out(self, step: dict[str, Any], path: str, names: dict[str, Any], seen: dict[str, str]) -> str:
        given = step["for_each"]
        items = (
            [self.fill(i, names, seen) for i in given] if isinstance(given, list) else self.value(given, names, seen)
        )
        if not isinstance(items, list):
            return FAILED
        states = []
        for at, item in enumerate(items):
            inner = names | {"item": item, "index": at}
            states.append(self.body(step, f"{path}[{at}]", inner, seen))
            self.states[f"{path}[{at}]"] = states[-1]
        if FAILED in states:
            return FAILED
        outputs = [self.outputs.get(f"{path}[{at}]") for at in range(len(items))]
        if not items or any(f"{path}[{at}]" in self.outputs for at in range(len(items))):
            self.outputs[path] = outputs
        return GOOD

    def loop(self, step: dict[str, Any], path: str, names: dict[str, Any], seen: dict[str, str]) -> str:
        last: Any = None
        for at in range(step.get("max_iterations", 100) + 1):
            inner = names | {"iteration": at, "last": last}
            if "while" in step and not self.value(step["while"], inner, seen):
                if last is not None:
                    self.outputs[path] = last
                return GOOD
            if at == step.get("max_iterations", 100):
                break
            state = self.body(step, f"{path}[{at}]", inner, seen)
            self.states[f"{path}[{at}]"] = state
            if state == FAILED:
                return FAILED
            last = self.outputs.get(f"{path}[{at}]")
            after = names | {"iteration": at + 1, "last": last}
            if "until" in step and self.value(step["until"], after, seen):
                if last is not None:
                    self.outputs[path] = last
                return GOOD
        if last is not None:
            self.outputs[path] = last
        return FAILED

    def body(self, step: dict[str, Any], path: str, names: dict[str, Any], seen: dict[str, str]) -> str:
        try:
            if "command" in step:
                return self.task(step, path, names, seen)
            if "steps" in step:
                return self.kept(path, self.block(step, f"{path}/", names, seen))
            if "workflow" in step:
                inner = (
                    step["workflow"]
                    if isinstance(step["workflow"], dict)
                    else self.document["workflows"][step["workflow"]]
                )
                values = {
                    k: v["default"] if isinstance(v, dict) and "type" in v else v
                    for k, v in inner.get("params", {}).items()
                }
                values |= {key: self.fill(value, names, seen) for key, value in step.get("with", {}).items()}
                for key, declared in inner.get("params", {}).items():
                    wanted = type(declared) if not isinstance(declared, dict) else TYPES[declared["type"]]
                    if type(values[key]) is not wanted:
                        return FAILED
                return self.kept(path, self.block(inner, f"{path}/", names | {"params": values}, seen))
            if "switch" in step:
                return self.switch(step, path, names, seen)
        except Bad:
            return FAILED
        return GOOD  # a pause

    def kept(self, path: str, result: tuple[str, Any]) -> str:
        state, output = result
        if output is not None:
            self.outputs[path] = output
        return state

    def switch(self, step: dict[str, Any], path: str, names: dict[str, Any], seen: dict[str, str]) -> str:
        value = text_of(self.value(step["switch"], names, seen))
        if value in step["cases"]:
            return self.kept(path, self.block(step["cases"][value], f"{path}/{value}/", names, seen))
        if step.get("default"):
            return self.kept(path, self.block(step["default"], f"{path}/default/", names, seen))
        return SKIPPED

    def task(self, step: dict[str, Any], path: str, names: dict[str, Any], seen: dict[str, str]) -> str:
        for part in [*step["command"], *step.get("env", {}).values()]:
            self.fill(part, names, seen)
        tries = self.outcome(path)
        allowed = step.get("retry", {}).get("max_attempts", 1)
        for number, (code, output) in enumerate(tries[:allowed], 1):
            self.started[path] = number
            if code == 0:
                if output is not None:
                    self.outputs[path] = output
                return GOOD
        return FAILED

    # ------------------------------------------------------------ expressions

    def value(self, text: Any, names: dict[str, Any], seen: dict[str, str]) -> Any:
        """A condition: an expression, or ``${{ }}`` around one."""
        if not isinstance(text, str):
            return text
        whole = _TEMPLATE.fullmatch(text.strip())
        return self.evaluated(whole.group(1) if whole else text, names, seen)

    def evaluated(self, text: str, names: dict[str, Any], seen: dict[str, str]) -> Any:
        steps = {
            ident: {"state": self.states.get(path, SKIPPED), "output": self.outputs.get(path)}
            for ident, path in seen.items()
        }
        known = {key: wrapped(value) for key, value in names.items()}
        known |= {"steps": wrapped(steps), "true": True, "false": False, "null": None}
        try:
            return plain(
                eval(text.strip(), {"__builtins__": {}, "len": len, "range": lambda *a: list(range(*a))}, known)
            )
        except Exception as error:  # noqa: BLE001 - whatever is wrong with it, it has no value
            raise Bad(str(error)) from None

    def fill(self, value: Any, names: dict[str, Any], seen: dict[str, str]) -> Any:
        if isinstance(value, dict):
            return {key: self.fill(inner, names, seen) for key, inner in value.items()}
        if isinstance(value, list):
            return [self.fill(inner, names, seen) for inner in value]
        if not isinstance(value, str):
            return value
        whole = _TEMPLATE.fullmatch(value.strip())
        if whole:
            return self.evaluated(whole.group(1), names, seen)
        return _TEMPLATE.sub(lambda match: text_of(self.evaluated(match.group(1), names, seen)), value)


def edges_of(step: dict[str, Any]) -> list[dict[str, str]]:
    given = step.get("depends_on", [])
    items = given if isinstance(given, list) else [given]
    return [{"step": item, "on": "success"} if isinstance(item, str) else {"on": "success", **item} for item in items]


def may_run(trigger: str, ends: list[tuple[str, str]]) -> bool:
    met = [on == "any" or (state == GOOD if on == "success" else state in BAD) for on, state in ends]
    if not ends or trigger == "always":
        return True
    if trigger == "any":
        return any(met)
    if trigger == "none_failed":
        return not any(state in BAD for _, state in ends)
    return all(met)


def text_of(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else str(value)
