"""Quota: what a project, or a user in it, may have at once; and the record of what they used."""

import msgspec

from jarvis.core.resources import Resources


class Quota(msgspec.Struct, gc=False, frozen=True, kw_only=True, omit_defaults=True):
    """Hard limits, never exceeded whatever is free. ``user`` empty: of the whole project."""

    project: str
    user: str = ""
    weight: float | None = None
    """Of the project among projects, instead of what the settings say; not for users."""
    resources: Resources = {}
    """At most so much on nodes at once; a name that is absent has no limit."""
    guaranteed: Resources = {}
    """Of the project, not of users: so much others give back when its tasks wait; what it does not use, they may borrow."""
    running: int | None = None
    """Elements on nodes at once."""
    tasks: int | None = None
    """Tasks that have not ended; more are refused at submission."""


class Used(msgspec.Struct, gc=False, frozen=True, kw_only=True, omit_defaults=True):
    """Amount-seconds that an owner held on nodes up to ``at``: ``recent`` decays as the policy says, ``total`` does not."""

    project: str
    user: str = ""
    at: float
    recent: dict[str, float] = {}
    total: dict[str, float] = {}
    elements: int = 0
    """Attempts begun."""
