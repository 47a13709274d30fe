"""Workflows as JSON shows them."""

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from jarvis.api.schemas.values import rfc3339
from jarvis.core.states import TERMINAL, State
from jarvis.core.workflow import PHASES, Block, Step, StepSpec, Workflow


def workflow_out(workflow: Workflow, counts: Mapping[State, int] | None = None) -> dict[str, Any]:
    """One workflow; ``steps`` counts those that have left ``waiting``, elements and iterations included."""
    return {
        "id": workflow.id,
        "uuid": workflow.uuid,
        "name": workflow.spec.name,
        "description": workflow.spec.description,
        "state": workflow.state,
        "reason": workflow.reason,
        "ended": workflow.state in TERMINAL,
        "user": workflow.user,
        "project": workflow.project,
        "params": workflow.spec.params,
        "output": json_of(workflow.output),
        "rerun_of": workflow.rerun_of,
        "submitted_at": rfc3339(workflow.submitted_at),
        "started_at": rfc3339(workflow.started_at),
        "ended_at": rfc3339(workflow.ended_at),
        "steps": None if counts is None else dict(counts),
    }


def step_out(step: Step) -> dict[str, Any]:
    """One step with a row."""
    detail = step.detail
    return {
        "path": step.path,
        "state": step.state,
        "task": step.task,
        "reason": step.reason,
        "started_at": rfc3339(step.started_at),
        "ended_at": rfc3339(step.ended_at),
        "output": json_of(step.output),
        "case": detail.case or None,
        "by": detail.by or None,
        "wake_at": rfc3339(detail.wake_at),
        "reused": detail.reused,
        "failures": detail.failures,
        "artifacts": detail.artifacts,
    }


def json_of(data: bytes | None) -> Any:
    """JSON within JSON, as it stands."""
    return None if data is None else msgspec.Raw(data)


def outline(block: Block, rows: Mapping[str, Step], over: bool, prefix: str = "") -> list[dict[str, Any]]:
    """Every declared step in the order of the document, with its state; those of inner blocks within it. What has no row
    waits, or, when all is over, was never reached."""
    return [_outlined(step, phase, rows, over, prefix) for phase in PHASES for step in block.phase(phase)]


def _outlined(step: StepSpec, phase: str, rows: Mapping[str, Step], over: bool, prefix: str) -> dict[str, Any]:
    path = prefix + step.id
    row = rows.get(path)
    many = step.for_each is not None or step.loop is not None
    # The steps within a fan-out or a loop are many: there is no one state to show.
    inner = [
        part for label, block in step.blocks for part in outline(block, {} if many else rows, over, f"{path}/{label}")
    ]
    state = row.state if row is not None else State.SKIPPED if over else State.WAITING
    return {
        "id": step.id,
        "path": path,
        "kind": step.kind,
        "phase": phase,
        "depends_on": [{"step": edge.step, "on": edge.on} for edge in step.depends_on],
        "for_each": step.for_each is not None,
        "loop": step.loop is not None,
        "state": state,
        "task": None if row is None else row.task,
        "reason": "" if row is None else row.reason,
        "started_at": None if row is None else rfc3339(row.started_at),
        "ended_at": None if row is None else rfc3339(row.ended_at),
        "reused": None if row is None else row.detail.reused,
        "steps": inner,
    }


def plan_out(block: Block, levels: Iterable[list[str]]) -> dict[str, Any]:
    """What a valid document means: how many steps, and the order in which those of its outermost block may run."""
    found = list(levels)
    return {"valid": True, "problems": [], "levels": found, "order": [ident for level in found for ident in level]}
