"""The fence: attempts that must not run beside another one end here when nobody extends it, whether or not an agent lives."""

from __future__ import annotations

import os

from .children import AGENT, Children, Helper
from .loop import NEVER
from .processes import MARK
from .system import log, now

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .limits import Limits
    from .protocol import Message

GRACE = 5.0
AGAIN = 1.0


class Fence:
    """`until` is on our own clock, which goes on in suspend. Before the first word of an agent it is in the past."""

    def __init__(self, children: Children, limits: Limits) -> None:
        self.children, self.limits = children, limits
        self.until, self.grace = 0.0, GRACE
        self.guards: dict[int, list[str]] = {}  # assignment → program that ends what is not a child of ours
        self.due = NEVER

    @property
    def closed(self) -> bool:
        """Whether nothing fenced may begin now."""
        return now() >= self.until

    def extend(self, message: Message) -> None:
        """The leader has heard what this node sent at `at`. A fence never moves back, and never starts in the future."""
        self.grace = float(message["grace_s"])
        self.until = max(self.until, min(float(message["at"]), now()) + float(message["fence_s"]))
        self.due = self.until

    def guard(self, message: Message) -> None:
        """Remember how to end something that others run for us, a container; without `argv` it is over."""
        if message.get("argv"):
            self.guards[message["number"]] = [str(word) for word in message["argv"]]
            if self.closed:
                self.due = now()
        else:
            self.guards.pop(message["number"], None)

    def on_due(self, moment: float) -> None:
        """Nobody extended it: what is fenced is asked to stop, and after the grace it is killed."""
        self.due = NEVER
        for number, argv in list(self.guards.items()):
            self._run_guard(number, argv)
        fenced = [attempt for attempt in self.children.mains.values() if attempt.fence]
        if fenced:
            log(f"no word of the leader: {len(fenced)} fenced attempts end")
        for attempt in fenced:
            self.limits.end(attempt, "killed", "fence", self.grace)

    def _run_guard(self, number: int, argv: list[str]) -> None:
        """Again and again until it says that it has done it, or somebody says that there is nothing to do."""

        def ended(status: int) -> None:
            if status == 0:
                self.guards.pop(number, None)
            elif self.closed:
                self.due = min(self.due, now() + AGAIN)

        env = {**os.environ, MARK: f"{self.children.identity}.{AGENT}"}
        try:
            pid = os.posix_spawnp(argv[0], argv, env, setsigmask=())
        except OSError as error:
            log(f"guard {argv[0]}: {error}")
            self.due = min(self.due, now() + AGAIN)
            return
        self.children.helpers[pid] = Helper(AGENT, ended)

    def to_state(self) -> dict[str, Any]:
        return {"until": self.until, "grace": self.grace, "guards": list(self.guards.items())}

    def restore(self, state: dict[str, Any]) -> None:
        """An upgrade keeps it."""
        self.until, self.grace, self.guards = state["until"], state["grace"], dict(state["guards"])
        self.due = self.until
