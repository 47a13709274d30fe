"""Workflows in Python: ``@workflow`` around calls of ``@task`` functions, or an explicit :class:`WorkflowBuilder`."""

import base64
import hashlib
from collections.abc import Callable, Iterable, Mapping
from contextvars import ContextVar
from typing import Any, Generic, ParamSpec, Self

import cloudpickle

from jarvis.core.task import INLINE_LIMIT, StepValue
from jarvis.sdk.caller import PYTHON
from jarvis.sdk.client import Client
from jarvis.sdk.pushes import as_digests
from jarvis.sdk.workflow_handle import WorkflowHandle

P = ParamSpec("P")
building: ContextVar["WorkflowBuilder | None"] = ContextVar("building", default=None)
"""The workflow that is being written down: calls of tasks become steps of it."""


class StepRef:
    """A step of a workflow that is being written down. Given to another step, it stands for its result."""

    def __init__(self, ident: str) -> None:
        self.id = ident

    def __repr__(self) -> str:
        return f"<step {self.id}>"

    @property
    def output(self) -> str:
        """Its result, in the texts of commands and in other fields."""
        return "${{ " + f"steps['{self.id}'].output" + " }}"

    @property
    def artifacts(self) -> "Part":
        """The files that it left, for ``push`` of a later step."""
        return Part(self, f"steps['{self.id}'].artifacts")

    def __getitem__(self, key: str | int) -> "Part":
        return Part(self, f"steps['{self.id}'].output[{key!r}]")


class Part:
    """Something within a step's result: ``step["rows"][0]``."""

    def __init__(self, step: StepRef, expression: str) -> None:
        self.step, self.expression = step, expression

    @property
    def output(self) -> str:
        return "${{ " + self.expression + " }}"

    def __getitem__(self, key: str | int) -> "Part":
        return Part(self.step, f"{self.expression}[{key!r}]")


class WorkflowBuilder:
    """Steps in the order in which they are added; ``with`` makes calls of ``@task`` functions steps of it.

    Further fields of a step (``when``, ``retry``, ``timeout``, ``resources`` …) are keywords; ``after`` names steps to wait
    for, whose results are not used: steps, or ``(step, "failure")``.
    """

    def __init__(self, name: str, **fields: Any) -> None:
        """``fields`` of the document: ``concurrency``, ``timeout``, ``output`` …"""
        self._document: dict[str, Any] = {"name": name, **fields, "steps": []}
        self._codes: dict[str, bytes] = {}
        self._names: dict[str, int] = {}
        self._token: Any = None

    def __enter__(self) -> Self:
        self._token = building.set(self)
        return self

    def __exit__(self, *exc: object) -> None:
        building.reset(self._token)

    # ------------------------------------------------------------ steps

    def step(self, ident: str, *, after: Iterable[Any] = (), **fields: Any) -> StepRef:
        """Any step, by the fields of the document; results within them are filled in."""
        used: dict[str, str] = {}
        filled = _filled(fields, used)
        edges = [_edge(one) for one in after]
        edges += [{"step": step} for step in used if all(edge["step"] != step for edge in edges)]
        name = self._name(ident)
        self._document["steps"].append({"id": name, **filled, **({"depends_on": edges} if edges else {})})
        return StepRef(name)

    def command(self, ident: str, command: str | list[Any], **fields: Any) -> StepRef:
        return self.step(ident, command=command, **fields)

    def approval(self, ident: str, message: str = "", **fields: Any) -> StepRef:
        return self.step(ident, approval=message or True, **fields)

    def sleep(self, ident: str, seconds: float | str, **fields: Any) -> StepRef:
        return self.step(ident, sleep=seconds, **fields)

    def call(self, function: Callable[..., Any], spec: Mapping[str, Any], args: tuple[Any, ...], kwargs: dict[str, Any],
             each: Any = None) -> StepRef:  # fmt: skip
        """A function's call; ``each``: once for each element of a list or a step's result, given as first argument."""
        after, fields = kwargs.pop("after", ()), dict(spec)
        inputs: dict[str, Any] = {}
        if each is not None:
            fields["for_each"] = each
            inputs["item"] = "${{ item }}"
            args = (StepValue("item"), *args)
        body = cloudpickle.dumps((_placed(args, inputs), _placed(kwargs, inputs)), protocol=5)
        call: dict[str, Any] = {
            **fields.pop("function"),
            "code": self._body(cloudpickle.dumps(function)),
            "python": PYTHON,
        }
        if len(body) > INLINE_LIMIT:
            call["args_digest"] = self._body(body)
        else:
            call["args"] = base64.b64encode(body).decode()
        call["inputs"] = {name: value if isinstance(value, str) else value.output for name, value in inputs.items()}
        used = [
            value if isinstance(value, StepRef) else value.step
            for value in inputs.values()
            if not isinstance(value, str)
        ]
        known = {_edge(one)["step"] for one in after}
        waits = [step for step in {step.id: step for step in used}.values() if step.id not in known]
        return self.step(fields.pop("name"), function=call, after=[*after, *waits], **fields)

    def _name(self, wanted: str) -> str:
        clean = "".join(c if (c.isalnum() and c.isascii()) or c in "_-" else "_" for c in wanted)[:50] or "step"
        clean = clean if clean[0].isalpha() or clean[0] == "_" else f"_{clean}"
        self._names[clean] = self._names.get(clean, 0) + 1
        return clean if self._names[clean] == 1 else f"{clean}_{self._names[clean]}"

    def _body(self, data: bytes) -> str:
        digest = hashlib.sha256(data).hexdigest()
        self._codes[digest] = data
        return digest

    # ------------------------------------------------------------ the whole

    def returns(self, value: Any) -> None:
        """What the workflow's output is; results within it are filled in."""
        self._document["output"] = _filled(value, {})

    def document(self) -> dict[str, Any]:
        """As ``POST /workflows`` takes it."""
        return self._document

    def submit(self, client: Client | None = None) -> WorkflowHandle:
        """Durable when it returns. Without a client: to the running server."""
        client = client or Client()
        for data in self._codes.values():
            client.put_blob(data)
        steps = [
            {**step, "push": as_digests(client, step["push"])} if "push" in step else step
            for step in self._document["steps"]
        ]
        return client.submit_workflow({**self._document, "steps": steps})


def _edge(one: Any) -> dict[str, str]:
    if isinstance(one, tuple):
        return {"step": one[0].id if isinstance(one[0], StepRef) else str(one[0]), "on": one[1]}
    return {"step": one.id if isinstance(one, StepRef) else str(one)}


def _filled(value: Any, used: dict[str, str]) -> Any:
    """Results as templates; ``used`` collects their steps."""
    if isinstance(value, StepRef | Part):
        used[value.id if isinstance(value, StepRef) else value.step.id] = ""
        return value.output
    if isinstance(value, Mapping):
        return {key: _filled(item, used) for key, item in value.items()}
    return [_filled(item, used) for item in value] if isinstance(value, list | tuple) else value


def _placed(value: Any, inputs: dict[str, Any]) -> Any:
    """Results as placeholders; ``inputs`` collects what stands for each."""
    if isinstance(value, StepRef | Part):
        name = f"i{len(inputs)}"
        inputs[name] = value
        return StepValue(name)
    if type(value) in (list, tuple):
        return type(value)(_placed(item, inputs) for item in value)
    return {key: _placed(item, inputs) for key, item in value.items()} if type(value) is dict else value


class WorkflowFunction(Generic[P]):
    """A function that writes a workflow down: its calls of ``@task`` functions become steps, what it returns the output."""

    def __init__(self, function: Callable[P, Any], fields: dict[str, Any]) -> None:
        self._function, self._fields = function, fields
        self.__name__ = getattr(function, "__name__", "workflow")
        self.__doc__ = function.__doc__

    def build(self, *args: P.args, **kwargs: P.kwargs) -> WorkflowBuilder:
        with WorkflowBuilder(self.__name__, **self._fields) as builder:
            returned = self._function(*args, **kwargs)
        if returned is not None:
            builder.returns(returned)
        return builder

    def submit(self, *args: P.args, **kwargs: P.kwargs) -> WorkflowHandle:
        """To the running server."""
        return self.build(*args, **kwargs).submit()

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Any:
        """Submit it and wait for its output."""
        with Client() as client:
            return self.build(*args, **kwargs).submit(client).result()


def workflow(function: Callable[P, Any] | None = None, **fields: Any) -> Any:
    """Decorator: ``@workflow`` or ``@workflow(concurrency=4, timeout="1h")``."""
    if function is not None:
        return WorkflowFunction(function, fields)
    return lambda f: WorkflowFunction(f, fields)
