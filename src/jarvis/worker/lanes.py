"""PURE: lanes: short processes are handed ahead to the supervisor, which starts the next of a lane the moment the one before
is over. Without them each start would wait for the report of an end to go up and an order to come down.
"""

from dataclasses import dataclass, field

from jarvis.worker.machine import Work

DEPTH = 128
"""Most that wait in one lane."""
REFILL = 0.75
"""A lane is filled when no more than this part of it is left: a few large pieces cost less than many small ones, and what is
left must last until the next report is answered."""
AHEAD_S = 0.1
"""Work that may wait in a lane: for twice the 40 ms that ends may be told late, so that no lane runs dry."""
OVERHEAD_S = 0.5e-3
"""What starting and reaping a process costs around the time that it runs."""
STALLED_S = 0.12
"""What waited this long behind another process is started elsewhere. Of this, ends may be told 40 ms late."""
PACES_MOST = 1000


@dataclass(slots=True, eq=False)
class Lane:
    """``work`` runs; ``queue`` follows it in order, with its resources, which all that are ever in the lane share."""

    ident: int
    work: Work
    heard: float
    shape: tuple[tuple[str, int], ...]
    queue: dict[int, Work] = field(default_factory=dict)


class Lanes:
    """Who runs in which lane, who follows, and how long processes of a shape take lately. ``now`` is seconds of any clock."""

    def __init__(self) -> None:
        self._lanes: dict[int, Lane] = {}
        """By the numbers of all that are in them."""
        self._queued: set[Lane] = set()
        self._paces: dict[tuple[tuple[str, int], ...], float] = {}

    def open(self, work: Work, now: float) -> Lane:
        """A lane of its own for something that starts now."""
        lane = self._lanes[work.number] = Lane(work.number, work, now, _shape(work))
        return lane

    def adopt(self, ident: int, running: Work, queued: list[Work], now: float) -> None:
        """A lane as the supervisor has it, for an agent that starts anew."""
        lane = Lane(ident, running, now, _shape(running))
        self._lanes[running.number] = lane
        for work in queued:
            self.add(lane, work)

    def room(self, lane: Lane) -> int:
        """How many may be added to it now; none while it is not known how long they take."""
        pace = self._paces.get(lane.shape)
        most = min(DEPTH, int(AHEAD_S / pace)) if pace else 0
        return most - len(lane.queue) if len(lane.queue) <= REFILL * most else 0

    def add(self, lane: Lane, work: Work) -> None:
        """It is to follow whatever is in the lane already."""
        self._lanes[work.number] = lane
        lane.queue[work.number] = work
        self._queued.add(lane)

    def of(self, number: int) -> Lane | None:
        return self._lanes.get(number)

    def waits(self, number: int) -> bool:
        """Whether it has not begun and waits behind another."""
        lane = self._lanes.get(number)
        return lane is not None and number in lane.queue

    def advance(self, number: int, now: float, took_s: float | None = None) -> Lane | None:
        """What ran under this number is over (or did not begin): the next of its lane runs. The lane, unless nothing is
        left in it. ``took_s``: how long it ran, if it did."""
        lane = self._lanes.pop(number, None)
        if lane is None or lane.work.number != number:
            return None
        lane.heard = now
        if took_s is not None:
            self._learn(lane.shape, took_s + OVERHEAD_S)
        if not lane.queue:
            return None
        lane.work = lane.queue.pop(next(iter(lane.queue)))
        if not lane.queue:
            self._queued.discard(lane)
        return lane

    def withdraw(self, numbers: list[int]) -> list[Work]:
        """These do not wait in their lanes any more."""
        taken = []
        for number in numbers:
            lane = self._lanes.get(number)
            if lane is None or number not in lane.queue:
                continue
            taken.append(lane.queue.pop(number))
            del self._lanes[number]
            if not lane.queue:
                self._queued.discard(lane)
        return taken

    def stalled(self, now: float) -> list[int]:
        """Numbers that wait behind something that takes long; their like are not handed ahead any more for a while."""
        late = [lane for lane in self._queued if now - lane.heard > STALLED_S]
        for lane in late:
            self._paces[lane.shape] = max(self._paces.get(lane.shape, 0.0), STALLED_S)
        return [number for lane in late for number in lane.queue]

    @property
    def some_wait(self) -> bool:
        return bool(self._queued)

    def _learn(self, shape: tuple[tuple[str, int], ...], seconds: float) -> None:
        before = self._paces.get(shape, seconds)
        if len(self._paces) >= PACES_MOST:
            self._paces.clear()
        self._paces[shape] = 0.8 * before + 0.2 * seconds


def _shape(work: Work) -> tuple[tuple[str, int], ...]:
    return tuple(sorted(work.spec.resources.items()))
