"""PURE: guaranteed shares: what a project is sure to get when it wants it, and others may borrow while it does not.

A task is covered if its project stays within what it is guaranteed with it, in every resource that is named there; what is not
named comes along. What a project holds beyond its guarantee, or without one, is borrowed. A task is taken back as a whole, and
only if what its project keeps still is all that it is guaranteed: nobody within their guarantee loses anything.
"""

from collections.abc import Iterable

from jarvis.core.resources import Resources
from jarvis.scheduler.policy.fairness import Ledger
from jarvis.scheduler.policy.quotas import Quotas


class Guarantees:
    """Who is below, and who above what is guaranteed, in the course of a cycle that gives and takes."""

    def __init__(self, quotas: Quotas, ledger: Ledger) -> None:
        self.ledger = ledger
        self.of = {project: q.guaranteed for (project, user), q in quotas.items() if q.guaranteed and not user}
        self.changed: dict[str, Resources] = {}
        """Project → what it was given, less what it is losing, beside what the ledger says."""

    def __bool__(self) -> bool:
        return bool(self.of)

    def covers(self, project: str, need: Resources) -> bool:
        guaranteed = self.of.get(project)
        if guaranteed is None or not any(need.get(name) for name in guaranteed):
            return False
        return all(self._held(project, name) + need.get(name, 0) <= most for name, most in guaranteed.items())

    def spares(self, project: str, needs: Iterable[Resources]) -> bool:
        """Whether a project that loses all this keeps what it is guaranteed."""
        guaranteed = self.of.get(project)
        if guaranteed is None:
            return True
        lost: Resources = {}
        for need in needs:
            for name, amount in need.items():
                lost[name] = lost.get(name, 0) + amount
        return all(self._held(project, n) - lost[n] >= least for n, least in guaranteed.items() if lost.get(n))

    def give(self, project: str, need: Resources, sign: int = 1) -> None:
        """It gets this, or loses it."""
        if project in self.of:
            changed = self.changed.setdefault(project, {})
            for name, amount in need.items():
                changed[name] = changed.get(name, 0) + sign * amount

    def _held(self, project: str, name: str) -> int:
        holding = self.ledger.projects.get(project)
        held = 0 if holding is None else holding.held.get(name, 0)
        return held + self.changed.get(project, {}).get(name, 0)
