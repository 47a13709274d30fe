"""A disk under the store: slow, away, or silent after it has written. What was committed outlives the server."""

import asyncio
from collections.abc import Callable
from inspect import iscoroutinefunction
from random import Random
from typing import Any, cast

from jarvis.core.changes import Changes
from jarvis.core.errors import StoreUnavailable
from jarvis.state.store import Store

WRITES = frozenset(
    {"leader_commit", "task_insert_many", "command_insert_many", "leadership_acquire", "leadership_renew"}
)


class Disk:
    """Stands before any store. ``committed`` hears of each turn of a leader at the instant at which it is durable; ``shared``:
    others write to it, so that nobody is told early."""

    def __init__(
        self, store: Store, random: Random, committed: Callable[[Changes], None], *, shared: bool = False
    ) -> None:
        self._store, self._random, self._committed, self._shared = store, random, committed, shared
        self.slowness = 1.0
        self.away = False
        self.dead = False
        """Whoever used it is gone: nothing of it arrives any more."""
        self.silent_share = 0.0
        """Of the writes: done, but the answer does not come back."""

    @property
    def port(self) -> Store:
        return cast("Store", self)

    def __getattr__(self, name: str) -> Any:
        verb = getattr(self._store, name)
        if not iscoroutinefunction(verb):
            return verb

        async def through(*args: Any, **kwargs: Any) -> Any:
            await self._reach()
            if self._shared:
                kwargs.pop("early", None)
            result = await verb(*args, **kwargs)
            if name == "leader_commit":
                self._committed(args[1])
            await self._reach()
            if name in WRITES and self._random.random() < self.silent_share:
                raise StoreUnavailable("the answer of the disk is lost")
            return result

        return through

    async def _reach(self) -> None:
        """Half of the way; a server that dies on the first half has not written, on the second it has."""
        if self.dead:
            raise StoreUnavailable("the process is gone")
        await asyncio.sleep(self._random.uniform(0.0, 0.002) * self.slowness)
        if self.away:
            raise StoreUnavailable("the disk is away")
