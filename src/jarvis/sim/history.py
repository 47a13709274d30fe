"""What happened in a run, as one digest: two runs of a seed are the same if and only if it is."""

import hashlib
from collections import deque
from collections.abc import Callable

KEPT = 60


class History:
    """Lines of facts. ``echo`` gets each as it comes, for ``--trace``."""

    def __init__(self, now: Callable[[], float], echo: Callable[[str], None] | None = None) -> None:
        self._now, self._echo = now, echo
        self._digest = hashlib.blake2b(digest_size=8)
        self.last: deque[str] = deque(maxlen=KEPT)
        self.lines = 0

    def note(self, kind: str, *facts: object) -> None:
        line = f"{self._now():.6f} {kind} {' '.join(map(str, facts))}"
        self._digest.update(line.encode())
        self.last.append(line)
        self.lines += 1
        if self._echo is not None:
            self._echo(line)

    @property
    def digest(self) -> str:
        return self._digest.hexdigest()
