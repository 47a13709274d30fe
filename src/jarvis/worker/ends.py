"""What the supervisor's report of an end means."""

from typing import Any

from jarvis.core.attempt import Usage
from jarvis.core.states import Cause

CAUSES = {
    "exit": Cause.EXIT, "signal": Cause.SIGNAL, "timeout": Cause.TIMEOUT, "oom": Cause.OOM,
    "output_limit": Cause.OUTPUT_LIMIT, "supervisor_lost": Cause.SUPERVISOR_LOST,
    "node_lost": Cause.NODE_LOST,
}  # fmt: skip
LOST = frozenset({"shutdown", "owner_gone"})
"""Kills by which the node went down: the task is not to blame and may run elsewhere."""
FENCED = "fence"
"""A kill because the node had no word of the leader for too long: it counts as lost, as the leader takes it for."""

FENCE_TEXT = "ended by its own node, which had no word of the leader: on_lost is fence"


def usage_of(report: dict[str, Any]) -> Usage:
    wall, usage = float(report.get("wall_s") or 0.0), report.get("usage")
    if not usage:
        return Usage(wall)
    return Usage(
        wall, float(usage.get("cpu_user_s") or 0.0), float(usage.get("cpu_sys_s") or 0.0),
        int(usage.get("max_rss_bytes") or 0), int(usage.get("read_bytes") or 0), int(usage.get("write_bytes") or 0),
    )  # fmt: skip


def cause_of(report: dict[str, Any], asked: Cause | None) -> Cause:
    """Why it ended. A kill has the cause for which it was asked; one by the node's own end is a loss of the node."""
    cause = CAUSES.get(str(report.get("cause")))
    if cause is not None:
        return cause
    kill = str(report.get("kill_cause") or "")
    if kill in LOST:
        return Cause.SUPERVISOR_LOST
    if kill == FENCED:
        return Cause.NODE_LOST
    if kill in Cause.__members__.values():
        return Cause(kill)
    return asked or Cause.CANCELLED
