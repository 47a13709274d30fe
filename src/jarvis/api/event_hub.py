"""One watcher of the bus for a whole server: long polls and event feeds hang on it, so a thousand of them cost one."""

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from itertools import chain

from jarvis.bus.bus import Bus
from jarvis.core.errors import StoreUnavailable
from jarvis.core.event import Event
from jarvis.core.ids import SOLO
from jarvis.core.states import TERMINAL
from jarvis.state.store import Store

LIVE_MOST = 100_000
"""Tasks known to live that are remembered."""
FEED_LIMIT = 200
"""Batches that may wait for a slow reader; beyond that it reads on from the store."""
PAGE = 1000
LOOK_S = 5.0
"""An event may be lost: a look at the store now and then is what makes an end sure."""

_ENDS = frozenset(str(state) for state in TERMINAL)


class Place:
    """Where one long poll for the ends of tasks waits: ``replaced`` when a newer one came under its name, ``took`` when it
    replaced one. ``ended`` are the wanted tasks that have ended since, None when only the store knows."""

    def __init__(self, wanted: frozenset[int], hears: bool) -> None:
        """``hears``: whether events come, so that no end escapes it."""
        self.hears = hears
        self.changed = asyncio.Event()
        self.replaced = self.took = False
        self.ended: set[int] | None = set()
        self._wanted = wanted

    def heard(self, ended: set[int]) -> None:
        """These tasks have ended."""
        mine = ended & self._wanted
        if mine:
            self.ended = None if self.ended is None else self.ended | mine
            self.changed.set()

    def look_again(self) -> None:
        """What was heard is not all there was."""
        self.ended = None
        self.changed.set()


class LastEnd:
    """Where somebody waits for the end of a task: of the elements of an array, no end wakes them that cannot be the last."""

    def __init__(self) -> None:
        self.changed = asyncio.Event()
        self._ends, self._left = 0, math.inf

    def look(self) -> None:
        """The store is about to be asked how many have not ended."""
        self.changed.clear()
        self._ends, self._left = 0, math.inf

    async def wait(self, left: int) -> None:
        """Until so many may have ended since, as the store said ``left``, or something happened to the task itself."""
        self._left = left
        if self._ends < left:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    await self.changed.wait()

    def heard(self, event: Event) -> None:
        if event.index == SOLO:
            self.changed.set()
        elif event.kind in _ENDS:
            self._ends += 1
            if self._ends >= self._left:
                self.changed.set()


class EventHub:
    """Wakes who waits for a task, and copies events to feeds."""

    def __init__(self, bus: Bus, store: Store, poll_s: float | None = None) -> None:
        """``poll_s``: how often to look for events that no message brought, where messages can be lost."""
        self._bus, self._store, self._poll_s = bus, store, poll_s
        self._seen = 0
        self._waiting: dict[int, dict[asyncio.Event, frozenset[str]]] = {}
        """Who waits for something to happen to it, and for which kinds of events; empty: for any."""
        self._last: dict[int, set[LastEnd]] = {}
        """Who waits for the end of a task."""
        self._readers: dict[tuple[str, str], Place] = {}
        self._live: set[int] = set()
        """Tasks that the store said had not ended, and of whose end nothing was heard since: it need not be asked again."""
        self._feeds: set[asyncio.Queue[list[Event] | None]] = set()

    @property
    def seen(self) -> int:
        """The number of the last event that came here."""
        return self._seen

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watch())
            if self._poll_s is not None:
                group.create_task(self._poll(self._poll_s))

    async def _watch(self) -> None:
        """A watch that was ended for being slow starts again: everybody re-reads the store then."""
        while True:
            async for batch in self._bus.watch():
                self._spread(batch)
            self._wake_all()
            await asyncio.sleep(0.05)

    async def _poll(self, every_s: float) -> None:
        """Level-triggered: what the store has and nobody told makes everybody read."""
        while True:
            seen = self._seen
            await asyncio.sleep(every_s)
            with contextlib.suppress(StoreUnavailable):
                last = await self._store.event_last_seq()
                if last > self._seen and self._seen == seen:
                    self._seen = last
                    self._wake_all()

    def _wake_all(self) -> None:
        self._live.clear()
        for feed in self._feeds:
            _push(feed, None)
        for waiters in self._waiting.values():
            for waiter in waiters:
                waiter.set()
        self._look_again()

    def _look_again(self) -> None:
        for last in chain.from_iterable(self._last.values()):
            last.changed.set()
        for place in self._readers.values():
            place.look_again()

    def _spread(self, batch: list[Event]) -> None:
        if batch[0].seq != self._seen + 1:  # something did not come here
            self._live.clear()
            self._look_again()
        self._seen = max(self._seen, batch[-1].seq)
        for event in batch if self._waiting else ():
            for waiter, kinds in self._waiting.get(event.task, {}).items():
                if not kinds or event.kind in kinds:
                    waiter.set()
        for event in batch if self._last else ():
            for last in self._last.get(event.task, ()):
                last.heard(event)
        if self._readers or self._live:
            ended = {event.task for event in batch if event.kind in _ENDS}
            self._live -= ended
            for place in self._readers.values():
                place.heard(ended)
        for feed in self._feeds:
            _push(feed, batch)

    @contextlib.contextmanager
    def reading(self, user: str, name: str, wanted: frozenset[int]) -> Iterator[Place]:
        """The place of a user's named long poll for the ends of tasks; one that waits under the same name is woken and ends."""
        place, older = Place(wanted, hears=self._seen > 0), self._readers.get((user, name))
        if older is not None:
            older.replaced = place.took = True
            older.changed.set()
        self._readers[user, name] = place
        try:
            yield place
        finally:
            if self._readers.get((user, name)) is place:
                del self._readers[user, name]

    def may_have_ended(self, tasks: Sequence[int]) -> list[int]:
        """Those that are not known to live."""
        return [task for task in tasks if task not in self._live]

    def fresh(self, tasks: Iterable[int]) -> None:
        """This server has stored them a moment ago, and nobody else could do anything about them yet: they live."""
        if self._poll_s is None and self._seen:
            if len(self._live) > LIVE_MOST:
                self._live.clear()
            self._live.update(tasks)

    def looked(self, place: Place, tasks: Sequence[int], ended: set[int]) -> None:
        """The store was asked how ``tasks`` ended while ``place`` listened, and knew it of those that had."""
        if place.hears and place.ended is not None and not place.replaced:
            if len(self._live) > LIVE_MOST:
                self._live.clear()
            self._live.update(task for task in tasks if task not in ended and task not in place.ended)

    @contextlib.contextmanager
    def waiting(self, ident: int, kinds: frozenset[str] = frozenset()) -> Iterator[asyncio.Event]:
        """An asyncio.Event set whenever something happened to the task or workflow, or only what is among ``kinds``; look at
        the store after entering, too."""
        waiter = asyncio.Event()
        self._waiting.setdefault(ident, {})[waiter] = kinds
        try:
            yield waiter
        finally:
            waiters = self._waiting[ident]
            del waiters[waiter]
            if not waiters:
                del self._waiting[ident]

    @contextlib.contextmanager
    def waiting_for_end(self, ident: int) -> Iterator[LastEnd]:
        last = LastEnd()
        self._last.setdefault(ident, set()).add(last)
        try:
            yield last
        finally:
            self._last[ident].discard(last)
            if not self._last[ident]:
                del self._last[ident]

    async def follow(self, after: int, idle_s: float) -> AsyncIterator[list[Event]]:
        """All events above ``after``, without gap or repeat: the store's, then the bus's. Empty lists mark idling."""
        feed: asyncio.Queue[list[Event] | None] = asyncio.Queue()
        self._feeds.add(feed)
        try:
            behind = True
            while True:
                while behind:
                    page = await self._store.event_list(after, PAGE)
                    behind = len(page) == PAGE
                    if page:
                        after = page[-1].seq
                        yield page
                try:
                    async with asyncio.timeout(idle_s):
                        batch = await feed.get()
                except TimeoutError:
                    batch, behind = [], True
                if batch is None or (batch and batch[0].seq > after + 1):
                    behind = True
                    continue
                fresh = [event for event in batch if event.seq > after]
                after = fresh[-1].seq if fresh else after
                if fresh or not batch:
                    yield fresh
        finally:
            self._feeds.discard(feed)


def _push(feed: asyncio.Queue[list[Event] | None], batch: list[Event] | None) -> None:
    """A feed that is full loses what it holds and is told to read the store."""
    if feed.qsize() >= FEED_LIMIT:
        while not feed.empty():
            feed.get_nowait()
        batch = None
    feed.put_nowait(batch)
