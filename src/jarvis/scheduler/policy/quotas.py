"""PURE: hard limits of projects and of users in them; never exceeded, whatever is free."""

from collections.abc import Mapping

from jarvis.core.quota import Quota
from jarvis.core.resources import Resources, format_amount
from jarvis.scheduler.filters import Reason
from jarvis.scheduler.policy.fairness import Ledger

Quotas = Mapping[tuple[str, str], Quota]
"""By (project, user); a whole project's under (project, "")."""
WORDS = {True: "QuotaProject", False: "QuotaUser"}


class Headroom:
    """What owners may still be given, in the course of a cycle that gives it."""

    def __init__(self, quotas: Quotas, ledger: Ledger) -> None:
        self.quotas, self.ledger = quotas, ledger
        self._given: dict[tuple[str, str], tuple[Resources, int]] = {}

    def over(self, project: str, user: str, need: Resources) -> Reason | None:
        """Why this owner may not have it now: of the user, else of the project."""
        return self._over(project, user, need) or self._over(project, "", need)

    def give(self, project: str, user: str, need: Resources) -> None:
        for owner in ((project, ""), (project, user)):
            if owner in self.quotas:
                resources, elements = self._given.get(owner, ({}, 0))
                grown = dict(resources)
                for name, amount in need.items():
                    grown[name] = grown.get(name, 0) + amount
                self._given[owner] = grown, elements + 1

    def _over(self, project: str, user: str, need: Resources) -> Reason | None:
        quota = self.quotas.get((project, user))
        if quota is None:
            return None
        holding = self.ledger.of(project, user)
        given, elements = self._given.get((project, user), ({}, 0))
        who = f"user {user} in project {project}" if user else f"project {project}"
        if quota.running is not None and holding.elements + elements >= quota.running:
            return Reason(WORDS[not user], f"{who} may have {quota.running} running, and has")
        for name, limit in sorted(quota.resources.items()):
            has = holding.held.get(name, 0) + given.get(name, 0)
            if need.get(name, 0) and has + need[name] > limit:
                limit_text, has_text = format_amount(name, limit), format_amount(name, has)
                wanted = format_amount(name, need[name])
                return Reason(
                    WORDS[not user], f"{who} may have {limit_text} {name}, has {has_text}, wanted {wanted} more"
                )
        return None


def never_within(quotas: Quotas, project: str, user: str, need: Resources) -> Reason | None:
    """Whether a single task asks for more than its owner may ever have."""
    return Headroom(quotas, Ledger()).over(project, user, need)
