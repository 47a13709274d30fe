"""PURE: quotas as commands set and remove them, and what owners used as it is written down."""

from collections.abc import Mapping

from jarvis.core.command import NewCommand
from jarvis.core.errors import OverQuota
from jarvis.core.quota import Quota, Used
from jarvis.core.resources import Resources
from jarvis.core.task import TaskSpec
from jarvis.scheduler.cluster import Cluster
from jarvis.scheduler.policy.fairness import Holding
from jarvis.scheduler.policy.quotas import WORDS, never_within
from jarvis.scheduler.turn import Turn

SAVE_S = 30.0
"""How often what was used is written down: so much of it may be lost with a leader."""
_RESOURCE, _GUARANTEED = "resource.", "guaranteed."


def quota_args(quota: Quota) -> dict[str, str | int | float | None]:
    """As the arguments of a command."""
    return {
        "user": quota.user, "weight": quota.weight, "running": quota.running, "tasks": quota.tasks,
        **{_RESOURCE + name: amount for name, amount in quota.resources.items()},
        **{_GUARANTEED + name: amount for name, amount in quota.guaranteed.items()},
    }  # fmt: skip


def _quota_of(command: NewCommand) -> Quota:
    args = command.args
    running, tasks = (None if args.get(name) is None else int(args[name] or 0) for name in ("running", "tasks"))
    weight = args.get("weight")
    return Quota(
        project=command.project or "", user=str(args.get("user") or ""), running=running, tasks=tasks,
        weight=None if weight is None else float(weight),
        resources=_amounts(args, _RESOURCE), guaranteed=_amounts(args, _GUARANTEED),
    )  # fmt: skip


def _amounts(args: Mapping[str, object], prefix: str) -> Resources:
    return {n.removeprefix(prefix): int(str(v or 0)) for n, v in args.items() if n.startswith(prefix)}


def on_quota(turn: Turn, command: NewCommand) -> str:
    """Set it as a whole, or remove it. What runs goes on."""
    owner = command.project or "", str(command.args.get("user") or "")
    if command.verb == "quota_remove":
        if turn.cluster.quotas.pop(owner, None) is None:
            return "no such quota"
        turn.changes.quotas[owner] = None
    else:
        turn.cluster.quotas[owner] = turn.changes.quotas[owner] = _quota_of(command)
    kind = "quota.removed" if command.verb == "quota_remove" else "quota.set"
    turn.event(kind, project=owner[0], user=owner[1], by=command.user)
    return ""


def load(cluster: Cluster, quotas: list[Quota], used: list[Used]) -> None:
    """What the store knows, before anything is held."""
    cluster.quotas = {(quota.project, quota.user): quota for quota in quotas}
    for row in used:
        holding = Holding({}, 0, dict(row.recent), dict(row.total), row.elements, row.at)
        if row.user:
            cluster.ledger.users[row.project, row.user] = holding
        else:
            cluster.ledger.projects[row.project] = holding


def allows(cluster: Cluster, project: str, user: str, spec: TaskSpec, more: int) -> OverQuota | None:
    """Why a task is refused at submission: it asks for more than its owner may ever have, or there are too many already;
    ``more`` are on their way."""
    if not cluster.quotas:
        return None
    reason = never_within(cluster.quotas, project, user, spec.whole)
    if reason is not None:
        return OverQuota(reason.word, reason.text)
    for owner, who in (((project, user), f"user {user} in project {project}"), ((project, ""), f"project {project}")):
        quota = cluster.quotas.get(owner)
        if quota is not None and quota.tasks is not None and cluster.ledger.live.get(owner, 0) + more >= quota.tasks:
            has, wanted = cluster.ledger.live.get(owner, 0), "" if not more else f", and this would be {more + 1} more"
            text = f"{who} may have {quota.tasks} tasks that have not ended, and has {has}{wanted}"
            return OverQuota(WORDS[not owner[1]], text)
    return None


def write_down(turn: Turn) -> None:
    """What owners used since it was last written down."""
    ledger = turn.cluster.ledger
    if not ledger.changed or turn.now - ledger.saved_at < SAVE_S:
        return
    for project, user in sorted(ledger.changed):
        holding = ledger.user(project, user) if user else ledger.project(project)
        holding.settle(turn.now, ledger.half_life)
        turn.changes.used[project, user] = Used(
            project=project, user=user, at=turn.now, recent=dict(holding.used), total=dict(holding.total),
            elements=holding.begun,
        )  # fmt: skip
    ledger.saved_at = turn.now
    ledger.changed = {
        (project, user)
        for project, user in ledger.changed
        if (ledger.user(project, user) if user else ledger.project(project)).elements
    }
