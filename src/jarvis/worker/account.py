"""As whom a task runs: the owner's account where the worker is root, else the worker's own."""

import os
import pwd
import time
from dataclasses import dataclass
from typing import Any

KEEP_S = 30.0
"""How long an answer of the name service is believed: asking for each task would cost more than starting it."""


@dataclass(frozen=True, slots=True)
class Account:
    """What the supervisor and the environment need of a user. ``switch`` is None when no change of uid is needed."""

    name: str
    home: str
    shell: str
    switch: dict[str, Any] | None


class NoSuchUser(Exception):
    """The owner has no account here, or may not run here."""


class Accounts:
    """Accounts by owner, remembered for a moment. ``allow_root``: tasks of root may run as root."""

    def __init__(self, allow_root: bool) -> None:
        self._allow_root = allow_root
        self._known: dict[str, tuple[float, Account]] = {}

    def of(self, user: str) -> Account:
        """The account that a task of ``user`` runs under; raises :class:`NoSuchUser`."""
        now = time.monotonic()
        at, account = self._known.get(user, (0.0, None))
        if account is None or now - at > KEEP_S:
            if len(self._known) > 10_000:
                self._known.clear()
            account = account_of(user, self._allow_root)
            self._known[user] = (now, account)
        return account


def account_of(user: str, allow_root: bool) -> Account:
    """Ask the name service; raises :class:`NoSuchUser`."""
    me = pwd.getpwuid(os.geteuid())
    if me.pw_uid != 0:
        return Account(me.pw_name, me.pw_dir, me.pw_shell or "/bin/sh", None)
    try:
        owner = pwd.getpwnam(user)
    except (KeyError, ValueError):
        raise NoSuchUser(f"user {user!r} has no account on this node") from None
    if owner.pw_uid == 0:
        if not allow_root:
            raise NoSuchUser("this node does not run tasks as root")
        return Account(owner.pw_name, owner.pw_dir, owner.pw_shell or "/bin/sh", None)
    groups = os.getgrouplist(owner.pw_name, owner.pw_gid)
    switch = {"uid": owner.pw_uid, "gid": owner.pw_gid, "groups": groups}
    return Account(owner.pw_name, owner.pw_dir, owner.pw_shell or "/bin/sh", switch)
