"""Booking: nodes that are set aside for a time, for nobody (maintenance) or for one owner alone (a reservation)."""

from typing import Literal

import msgspec


class Booking(msgspec.Struct, gc=False, frozen=True, kw_only=True, omit_defaults=True):
    """Instants are seconds since 1970 of the database's clock. Nodes are meant by name, also those that register later."""

    id: int
    nodes: tuple[str, ...]
    begin: float
    end: float
    reason: str = ""
    project: str = ""
    """Whose tasks may run there meanwhile, with ``user`` that one's alone; neither: nobody's."""
    user: str = ""
    by: str = ""
    begun: bool = False

    @property
    def kind(self) -> Literal["maintenance", "reservation"]:
        return "reservation" if self.project or self.user else "maintenance"

    def admits(self, project: str, user: str) -> bool:
        """Whether it is this owner's."""
        if not (self.project or self.user):
            return False
        return self.project in ("", project) and self.user in ("", user)
