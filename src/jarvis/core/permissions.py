"""Who may do what: one pure rule, asked by every route and socket."""

from typing import Literal

import msgspec

Role = Literal["admin", "user", "task", "node", "join", "peer"]
ROLES: frozenset[str] = frozenset({"admin", "user", "task", "node", "join"})
"""Of stored tokens; ``join`` lets one node in, once; ``peer`` is another server of the cluster."""
Access = Literal["see", "read", "submit", "act", "operate", "agent", "join", "peer"]
"""see: the cluster's own figures; read: a project's tasks; submit: into a project; act: on an owner's task;
operate: nodes and everything that belongs to all; agent: speak as a node; join: become one; peer: speak as a server."""

ANY_PROJECT = "*"
_SPEAKS: dict[str, Access] = {"node": "agent", "join": "join", "peer": "peer"}
"""Roles that are no people's, and the one thing that each may."""


class Principal(msgspec.Struct, frozen=True):
    """Who a request comes from. ``label`` of a node may be ``member:NAME``: then it speaks for the node of that name alone."""

    user: str
    role: Role
    projects: tuple[str, ...] = ()
    label: str = ""

    @property
    def projects_seen(self) -> frozenset[str] | None:
        """Projects whose tasks it may read; None for all."""
        if self.role == "admin" or ANY_PROJECT in self.projects:
            return None
        return frozenset(self.projects) if self.role in ("user", "task") else frozenset()


def allowed(principal: Principal, access: Access, project: str | None = None, owner: str | None = None) -> bool:
    """The rule: admins may all; nodes and servers only speak as such; members read and submit, and act on what is theirs."""
    if principal.role == "admin":
        return True
    if principal.role in _SPEAKS:
        return access == _SPEAKS[principal.role]
    if access == "see":
        return True
    if access in ("operate", "agent", "join", "peer"):
        return False
    seen = principal.projects_seen
    member = seen is None or project in seen
    return member and (access != "act" or owner == principal.user)
