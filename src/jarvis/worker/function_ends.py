"""How calls end, and what stands in for a call of which little is known."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from jarvis.core.attempt import Output, Usage
from jarvis.core.effects import Assignment
from jarvis.core.inputs import Ended
from jarvis.core.states import Cause
from jarvis.core.task import INLINE_LIMIT, FunctionCall, TaskSpec
from jarvis.worker.ends import CAUSES, FENCE_TEXT, FENCED, usage_of
from jarvis.worker.function_protocol import Result
from jarvis.worker.function_spool import Found
from jarvis.worker.logs import INLINE, read_range
from jarvis.worker.machine import Work
from jarvis.worker.task_executor import DEFECT, cut, failed
from jarvis.worker.warm import PYTHON, Warm, WarmTag

EMPTY = Output()


def end_of_process(node: str, warm: Warm, work: Work, report: dict[str, Any], found: Found) -> Ended:
    """The end of the call in which a warm process ended."""
    if "code" in report:
        return failed(work, f"node {node}: {report['error']}", int(report["code"]))
    begin = found.log_start if found.number == work.number else 0
    output = read_range(warm.log, max(begin, int(report.get("out_bytes") or 0) - INLINE), INLINE)
    if not warm.connected and warm.killing is None:
        text = output.decode(errors="replace")[-1000:]
        return failed(work, f"node {node}: the process for functions did not start: {text}")
    cause = CAUSES.get(str(report.get("cause")), Cause.EXIT)
    if warm.killing is not None and warm.killing[0] == work.number and cause is not Cause.OOM:
        cause = warm.killing[1]
    if report.get("kill_cause") == FENCED:
        cause = Cause.NODE_LOST
    end = cut(work, cause)
    if cause is Cause.NODE_LOST:
        end.message = FENCE_TEXT
    elif cause is Cause.SUPERVISOR_LOST and warm.killing is not None:
        end.message = DEFECT
    elif cause is Cause.EXIT:
        end.exit_code, end.message = int(report.get("exit_code") or 1), "the process ended in the middle of the call"
    elif cause is Cause.SIGNAL:
        end.message = "the process was killed in the middle of the call"
    end.signal = report.get("signal")
    end.usage = usage_of(report)
    end.stdout = Output(size=len(output), inline=output or None)
    return end


def other_python(work: Work, call: FunctionCall, node: str) -> Ended:
    """A call that no process here could run."""
    text = f"the function was pickled by Python {call.python}, node {node} has {PYTHON}: use the same version on both sides"
    return failed(work, text)


def stub(number: int, token: int, tag: WarmTag | None) -> Work:
    """What is known of a call of which only the number is known: the resources are those of its process."""
    resources, shares = ({}, ()) if tag is None else (tag.resources, tag.shares)
    function = FunctionCall(code="", python=PYTHON, environment="" if tag is None else tag.environment)
    fence = tag is not None and tag.fence
    spec = TaskSpec(
        name="", function=function, resources=resources, on_lost="fence" if fence else "rerun",
        artifacts=() if tag is None else tag.artifacts,
    )  # fmt: skip
    project, user = ("", "") if tag is None else (tag.project, tag.user)
    assignment = Assignment(number, token, 0, 0, -1, project, user, msgspec.Raw(b""))
    return Work(assignment, spec, shares)


def again(attempt: dict[str, Any], folder_of: Callable[[str], Path]) -> Warm | None:
    """A process that an agent before this one started, as the supervisor has it; None where its tag is none."""
    try:
        tag = msgspec.json.decode(attempt["tag"], type=WarmTag)
    except msgspec.MsgspecError:
        return None
    return Warm(int(attempt["number"]), tag.name, str(folder_of(tag.name)), tag.shares, tag, like=stub(0, 0, tag))


def work_of(assignment: Assignment) -> Work:
    return Work(assignment, msgspec.msgpack.decode(assignment.spec, type=TaskSpec))


def end_of_call(work: Work, result: Result) -> Ended:
    """The end of a call as its process tells it."""
    size = result.log_end - result.log_start
    end = Ended(
        number=result.number, token=work.assignment.token, cause=Cause.EXIT if result.ok else Cause.EXCEPTION,
        exit_code=0 if result.ok else 1, message=result.message, exception=result.exception or None,
        usage=Usage(result.wall_s, result.user_s, result.system_s, result.max_rss),
        stdout=Output(size=size, inline=result.output) if size else EMPTY,
    )  # fmt: skip
    if result.json:
        end.output = result.json
    if len(result.payload) <= INLINE_LIMIT:
        end.result = result.payload
    return end
