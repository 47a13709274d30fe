"""PURE: how fast nodes are let in: after a restart they all come at once, and each costs the leader a comparison."""

from dataclasses import dataclass

RATE = 50.0
"""Nodes a second, by each server."""
BURST = 50
LONGEST_S = 8.0
"""Whoever is turned away has been heard, and is heard again before it is taken for lost."""


@dataclass(slots=True)
class Admission:
    """A bucket of tokens that fills at ``rate`` and holds ``burst``. Who finds it empty is told within how many seconds to come
    again: twice as many as those before it take, because it chooses any instant in them."""

    rate: float = RATE
    burst: int = BURST
    _left: float = BURST
    _at: float = 0.0
    _turned_away: float = 0.0
    """How many were told to come later and have not had their time yet."""

    def ask(self, now: float) -> float:
        """0: come in. Otherwise: come again within so many seconds."""
        gained = max(now - self._at, 0.0) * self.rate
        self._at = now
        self._left = min(self._left + gained, float(self.burst))
        self._turned_away = max(self._turned_away - gained, 0.0)
        if self._left >= 1.0:
            self._left -= 1.0
            return 0.0
        self._turned_away += 1.0
        return min(max(2 * self._turned_away / self.rate, 1.0), LONGEST_S)
