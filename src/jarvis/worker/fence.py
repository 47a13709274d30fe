"""PURE: the fence of a node: until when it may run what must not run twice at a time (``on_lost=fence``)."""

from dataclasses import dataclass, field

from jarvis.core.node import DEFAULT_WINDOWS

ASKED_MOST = 100
"""Heartbeats that may be without an answer; older ones are not worth remembering."""


@dataclass(slots=True)
class Fence:
    """Counts from the sending of the last heartbeat that the leader answered. All times are of one clock of this node, which
    goes on while the machine sleeps."""

    next_beat: int
    """Of this agent alone: an answer to another one's heartbeat must not be taken for one of ours."""
    since: float = float("-inf")
    fence_s: float = DEFAULT_WINDOWS.fence_s
    grace_s: float = DEFAULT_WINDOWS.grace_s
    _asked: dict[int, float] = field(default_factory=dict)

    @property
    def until(self) -> float:
        """Afterwards nothing fenced is started, and what runs is ended."""
        return self.since + self.fence_s

    def is_stale(self, now: float, fresh_s: float) -> bool:
        """Whether it is time to ask the leader, if there is anything to fence."""
        return now - self.since > fresh_s

    def ask(self, now: float) -> int:
        """The number of a heartbeat that is about to be sent."""
        self.next_beat += 1
        self._asked[self.next_beat] = now
        while len(self._asked) > ASKED_MOST:
            del self._asked[next(iter(self._asked))]
        return self.next_beat

    def answered(self, beat: int) -> bool:
        """The leader heard that heartbeat; whether the fence moved."""
        sent = self._asked.pop(beat, None)
        return sent is not None and self._move(sent)

    def welcomed(self, said: float, fence_s: float, grace_s: float) -> bool:
        """A session began with a Hello that was said then; whether the fence moved."""
        self.fence_s, self.grace_s = fence_s, grace_s
        self._asked.clear()
        return self._move(said)

    def _move(self, sent: float) -> bool:
        moved = sent > self.since
        self.since = max(self.since, sent)
        return moved
