"""PURE: weighted, hierarchical dominant-resource fairness over projects and their users (Ghodsi et al., NSDI'11).

The project with the lowest share goes first, and within it the user with the lowest; a share is the largest fraction of the
cluster that they hold of any one resource, over their weight. Past use counts beside it, decayed by half in ``half_life``
seconds: as the average share of the recent past.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from jarvis.core.resources import Resources


@dataclass(frozen=True, slots=True)
class Fairness:
    """``by``: nobody, or owners (projects, and users within each)."""

    by: str = "owners"
    half_life: float = 0.0
    """Seconds after which past use counts half; 0: only what is held now counts."""
    weights: dict[str, float] = field(default_factory=dict)
    """Project → its weight among projects; 1 where nothing is said."""


@dataclass(slots=True)
class Holding:
    """What a project, or a user within it, holds on nodes, and what it used before (amount-seconds, decayed to ``at``)."""

    held: Resources = field(default_factory=dict)
    elements: int = 0
    used: dict[str, float] = field(default_factory=dict)
    total: dict[str, float] = field(default_factory=dict)
    """As ``used``, but never decayed."""
    begun: int = 0
    """Attempts ever."""
    at: float = 0.0

    def settle(self, now: float, half_life: float) -> None:
        """Bring ``used`` up to ``now``: what was there decays, what was held meanwhile is added, decayed as well."""
        seconds = now - self.at
        if seconds <= 0:
            return
        for name, amount in self.held.items():
            if amount:
                self.total[name] = self.total.get(name, 0.0) + amount * seconds
        self.used = self.used_at(now, half_life)
        self.at = now

    def used_at(self, now: float, half_life: float) -> dict[str, float]:
        """What ``used`` is when it is brought up to ``now``."""
        seconds = now - self.at
        if seconds <= 0:
            return self.used
        rate = math.log(2) / half_life if half_life else 0.0
        kept = math.exp(-rate * seconds) if rate else 1.0
        gained = (1.0 - kept) / rate if rate else seconds
        names = sorted(self.used.keys() | self.held.keys())
        return {name: self.used.get(name, 0.0) * kept + self.held.get(name, 0) * gained for name in names}


def dominant(held: Mapping[str, float], capacity: Mapping[str, int]) -> float:
    """The largest fraction of the cluster in any one resource."""
    best = 0.0
    for name, amount in held.items():
        total = capacity.get(name, 0)
        if total and amount > best * total:
            best = amount / total
    return best


class Ledger:
    """Who holds what, kept up by each placement and each end; past use as far as ``half_life`` asks for it."""

    def __init__(self, half_life: float = 0.0) -> None:
        self.projects: dict[str, Holding] = {}
        self.users: dict[tuple[str, str], Holding] = {}
        self.half_life = half_life
        self.changed: set[tuple[str, str]] = set()
        """(project, user), whole projects as (project, ""), whose use has to be written down."""
        self.saved_at = 0.0
        self.live: dict[tuple[str, str], int] = {}
        """Tasks that have not ended, likewise by owner."""

    def count_task(self, project: str, user: str, step: int) -> None:
        for owner in ((project, ""), (project, user)):
            self.live[owner] = self.live.get(owner, 0) + step

    def project(self, name: str) -> Holding:
        holding = self.projects.get(name)
        if holding is None:
            holding = self.projects[name] = Holding()
        return holding

    def user(self, project: str, name: str) -> Holding:
        holding = self.users.get((project, name))
        if holding is None:
            holding = self.users[project, name] = Holding()
        return holding

    def of(self, project: str, user: str = "") -> Holding:
        """To look at: of who never held anything, nothing is noted. A whole project's without a user."""
        found = self.users.get((project, user)) if user else self.projects.get(project)
        return Holding() if found is None else found

    def change(self, project: str, user: str, need: Resources, now: float, step: int) -> None:
        """So many elements that need so much each are held from now on, or below 0, no longer."""
        if (project, user) not in self.changed:
            self.changed |= {(project, ""), (project, user)}
        for holding in (
            self.projects.get(project) or self.project(project),
            self.users.get((project, user)) or self.user(project, user),
        ):
            if now > holding.at:
                holding.settle(now, self.half_life)
            held = holding.held
            for name, amount in need.items():
                held[name] = held.get(name, 0) + step * amount
            holding.elements += step
            holding.begun += max(step, 0)

    def past(self, holding: Holding, capacity: Resources, now: float) -> float:
        """The share of the recent past, which counts beside what is held now."""
        if not self.half_life:
            return 0.0
        return dominant(holding.used_at(now, self.half_life), capacity) * math.log(2) / self.half_life
