"""As whom a task runs: the owner's account where the worker is root, else the worker's own."""

import os
import pwd
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Account:
    """What the supervisor and the environment need of a user. ``switch`` is None when no change of uid is needed."""

    name: str
    home: str
    shell: str
    switch: dict[str, Any] | None


class NoSuchUser(Exception):
    """The owner has no account here, or may not run here."""


def account_of(user: str, allow_root: bool) -> Account:
    """The account that a task of ``user`` runs under; raises :class:`NoSuchUser`."""
    me = pwd.getpwuid(os.geteuid())
    if me.pw_uid != 0:
        return Account(me.pw_name, me.pw_dir, me.pw_shell or "/bin/sh", None)
    try:
        owner = pwd.getpwnam(user)
    except KeyError:
        raise NoSuchUser(f"user {user!r} has no account on this node") from None
    if owner.pw_uid == 0:
        if not allow_root:
            raise NoSuchUser("this node does not run tasks as root")
        return Account(owner.pw_name, owner.pw_dir, owner.pw_shell or "/bin/sh", None)
    groups = os.getgrouplist(owner.pw_name, owner.pw_gid)
    switch = {"uid": owner.pw_uid, "gid": owner.pw_gid, "groups": groups}
    return Account(owner.pw_name, owner.pw_dir, owner.pw_shell or "/bin/sh", switch)
