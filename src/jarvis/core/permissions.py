"""Who may do what: one pure rule, asked by every route and socket."""

from typing import Literal

import msgspec

Role = Literal["admin", "user", "task", "node", "peer"]
ROLES: frozenset[str] = frozenset({"admin", "user", "task", "node"})
"""Of stored tokens; ``peer`` is another server of the cluster."""
Access = Literal["see", "read", "submit", "act", "operate", "agent", "peer"]
"""see: the cluster's own figures; read: a project's tasks; submit: into a project; act: on an owner's task;
operate: nodes and everything that belongs to all; agent: speak as a node; peer: speak as a server of the cluster."""

ANY_PROJECT = "*"


class Principal(msgspec.Struct, frozen=True):
    """Who a request comes from. ``label`` of a node's token may be ``node:7``: then it speaks for node 7 alone."""

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
    if principal.role in ("node", "peer"):
        return access == ("agent" if principal.role == "node" else "peer")
    if access == "see":
        return True
    if access in ("operate", "agent", "peer"):
        return False
    seen = principal.projects_seen
    member = seen is None or project in seen
    return member and (access != "act" or owner == principal.user)
