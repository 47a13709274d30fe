"""What is told of tasks, elements, attempts, events and nodes. Plain dicts, because lists of them are long."""

import base64
from typing import Any

import msgspec

from jarvis.api.schemas.values import rfc3339
from jarvis.core.attempt import Attempt, Output, Placement
from jarvis.core.event import Event
from jarvis.core.gpus import room_of
from jarvis.core.node import Node
from jarvis.core.resources import format_amount
from jarvis.core.states import CODES, TERMINAL, State
from jarvis.core.task import Element, Task, TaskSpec


def spec_out(spec: TaskSpec) -> dict[str, Any]:
    """The spec with resources and instants as people write them."""
    body: dict[str, Any] = msgspec.to_builtins(spec)
    body["resources"] = {name: format_amount(name, amount) for name, amount in spec.resources.items()}
    for field in ("begin", "deadline"):
        if field in body:
            body[field] = rfc3339(body[field])
    return body


def element_state(task: Task, element: Element | None) -> State:
    """An element without a row is in the state of its task's unnamed rest."""
    if element is not None:
        return element.state
    return task.state if task.spec.array is None else task.base


def element_out(task: Task, element: Element | None, index: int) -> dict[str, Any]:
    """One element, with or without a row of its own."""
    state = element_state(task, element)
    body: dict[str, Any] = {
        "id": str(task.id) if index < 0 else f"{task.id}_{index}",
        "task": task.id,
        "index": None if index < 0 else index,
        "state": state,
        "code": CODES[state],
        "reason": element.reason if element is not None else task.reason,
    }
    return body | _last_try(element)


def _last_try(element: Element | None) -> dict[str, Any]:
    if element is None:
        element = Element(task=0, index=-1, state=State.SUBMITTED)
    return {
        "attempt": element.attempt or None,
        "node": element.node,
        "cause": element.cause,
        "exit_code": element.exit_code,
        "signal": element.signal,
        "failures": element.failures,
        "infra_losses": element.infra_losses,
        "preemptions": element.preemptions,
        "eligible_at": rfc3339(element.eligible_at),
    }


def task_out(task: Task, solo: Element | None = None) -> dict[str, Any]:
    """One task; for a task without an array its element is told along."""
    spec = task.spec
    body: dict[str, Any] = {
        "id": task.id,
        "uuid": task.uuid,
        "name": spec.name,
        "kind": spec.kind,
        "state": task.state,
        "code": CODES[task.state],
        "reason": task.reason or (solo.reason if solo is not None else ""),
        "ended": task.state in TERMINAL,
        "counts": dict(task.counts) or {task.state: task.size},
        "size": task.size,
        "owner": {"user": task.user, "project": task.project},
        "user": task.user,
        "project": task.project,
        "queue": spec.queue,
        "priority": spec.priority,
        "submitted_at": rfc3339(task.submitted_at),
        "started_at": rfc3339(task.started_at),
        "ended_at": rfc3339(task.ended_at),
        "retry_of": task.retry_of,
        "spec": spec_out(spec),
    }
    return body | _last_try(solo) if spec.array is None else body


def _output(output: Output | None) -> dict[str, Any] | None:
    return None if output is None else {"size": output.size, "path": output.path}


def attempt_out(attempt: Attempt) -> dict[str, Any]:
    """One try; the result itself comes from ``/result`` and output from ``/logs``."""
    return {
        "attempt": attempt.attempt,
        "token": attempt.token,
        "node": attempt.node,
        "placements": [_placement(p) | _rank(attempt, p.rank) for p in attempt.placements],
        "state": attempt.state,
        "cause": attempt.cause,
        "message": attempt.message,
        "exit_code": attempt.exit_code,
        "signal": attempt.signal,
        "assigned_at": rfc3339(attempt.assigned_at),
        "started_at": rfc3339(attempt.started_at),
        "ended_at": rfc3339(attempt.ended_at),
        "usage": None if attempt.usage is None else _named(attempt.usage),
        "stdout": _output(attempt.stdout),
        "stderr": _output(attempt.stderr),
        "has_result": attempt.result is not None or attempt.result_digest is not None,
    }


def _placement(placement: Placement) -> dict[str, Any]:
    resources = {name: format_amount(name, amount) for name, amount in placement.resources.items()}
    return {"rank": placement.rank, "node": placement.node, "resources": resources}


def _rank(attempt: Attempt, at: int) -> dict[str, Any]:
    """How one rank of a gang went; nothing where there is no gang, because its attempt tells."""
    if not attempt.ranks:
        return {}
    rank = attempt.ranks[at]
    return {
        "started_at": rfc3339(rank.started_at), "ended_at": rfc3339(rank.ended_at), "cause": rank.cause,
        "message": rank.message, "exit_code": rank.exit_code, "signal": rank.signal, "stdout": _output(rank.stdout),
        "stderr": _output(rank.stderr),
    }  # fmt: skip


def _named(usage: msgspec.Struct) -> dict[str, Any]:
    return {name: getattr(usage, name) for name in usage.__struct_fields__}


def event_out(event: Event, incarnation: int) -> dict[str, Any]:
    """One event; ``cursor`` is what ``after`` takes."""
    return {
        "cursor": f"{incarnation}.{event.seq}",
        "seq": event.seq,
        "at": rfc3339(event.at),
        "kind": event.kind,
        "task": event.task or None,
        "index": event.index if event.index >= 0 else None,
        "attempt": event.attempt or None,
        "node": event.node or None,
        "cause_id": event.cause_id,
        "detail": event.detail,
    }


def node_out(node: Node, maintenance: str = "") -> dict[str, Any]:
    """One node; ``maintenance``: until when it is under maintenance, and why."""
    return {
        "id": node.id,
        "name": node.name,
        "state": node.state,
        "schedulable": node.schedulable and not maintenance,
        "cordoned": node.cordoned,
        "draining": node.draining,
        "drain_deadline": rfc3339(node.drain_deadline),
        "reason": node.reason,
        "unfit": node.unfit,
        "maintenance": maintenance,
        "resources": {name: format_amount(name, amount) for name, amount in node.resources.items()},
        "gpu_memory": [format_amount("gpu_memory", size) for size in room_of(node.resources, node.gpu_memory).sizes],
        "labels": node.labels,
        "taints": list(node.taints),
        "watch": list(node.watch),
        "health": node.health,
        "version": node.version,
        "registered_at": rfc3339(node.registered_at),
        "seen_at": rfc3339(node.seen_at),
    }


def encode(body: object) -> bytes:
    """JSON; bytes anywhere inside become base64, as in what came in."""
    return msgspec.json.encode(body, enc_hook=lambda o: base64.b64encode(o).decode())
