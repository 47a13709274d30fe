"""What a rebuild reads, read before it is needed, by a server that may lead soon.

Each live task is kept with the version of its row, which is the transaction that wrote it (PostgreSQL documentation, "System
Columns", ``xmin``). Whoever begins to lead asks for the versions of all, under its epoch, and reads anew only what has another
one. A transaction's number is met again only after a failover to a standby that had not received it, or in another database:
then nothing that was kept counts.
"""

from bisect import bisect_right
from collections.abc import Sequence
from typing import NamedTuple

from jarvis.core.states import ON_NODE
from jarvis.core.task import Task
from jarvis.state.persistence import task_from_row
from jarvis.state.postgres import Connection, Postgres
from jarvis.state.store import Live
from jarvis.state.stores.postgres.live import LIVE, current_attempts, live_elements
from jarvis.state.stores.postgres.schema import Q

PAGE = 500
"""Tasks read at once: a standby has others to serve, too, and 500 take it a few milliseconds."""
MOST = 250_000
"""Tasks kept, about 1 KB each. What comes after them is read when it is needed."""
_VERSIONED = Q["task_columns"].replace(
    " FROM ", ", n.xmin, n.element IS NULL AND NOT EXISTS (SELECT 1 FROM element e WHERE e.task = n.id) FROM ", 1
)


class Kept(NamedTuple):
    """``bare``: nothing is stored of its elements. The first of that comes in a commit that writes the task's row, too."""

    version: int
    task: Task
    bare: bool


class ReadAhead:
    """Belongs to one store. What it gives away it keeps no longer: whoever leads changes it."""

    def __init__(self, postgres: Postgres, most: int = MOST) -> None:
        self._postgres, self._most = postgres, most
        self._life: tuple[int, str] = (0, "")
        """The database and its timeline that what is kept was read from."""
        self._kept: dict[int, Kept] = {}
        self._given: dict[int, Kept] = {}
        self._ids: list[int] = []
        """Of a rebuild under way: what is left of the kept, and the tasks that there are as far as it was asked."""
        self._round = 0

    def __len__(self) -> int:
        return len(self._kept)

    async def read(self) -> None:
        """Let what is kept be as it is now; given up as soon as a rebuild begins. Raises as the store does."""
        self._round += 1
        nth = self._round
        await self._postgres.transaction(lambda c: self._read(c, nth))

    async def _read(self, c: Connection, nth: int) -> None:
        life, live = await self._versions(c)
        if nth != self._round:
            return
        same = life == self._life
        kept = {i: k for i, k in self._kept.items() if live.get(i) == k.version} if same else {}
        self._life, self._kept = life, kept
        missing = [ident for ident in live if ident not in kept]
        for at in range(0, len(missing), PAGE):
            found = await _tasks(c, missing[at : at + PAGE])
            if nth != self._round:
                return
            kept.update(found)

    async def _versions(self, c: Connection) -> tuple[tuple[int, str], dict[int, int]]:
        """Task → version of its row, by id."""
        oid, timeline, ids, versions = await c.fetchrow(Q["live_versions"], self._most)
        return (oid, timeline), dict(zip(ids or (), versions or (), strict=True))

    async def take(self, after_id: int, limit: int) -> Live:
        """A page of a rebuild under the epoch of whoever asks; the first one (``after_id`` 0) ends the reading ahead."""
        if after_id == 0:
            self._round += 1
            self._given, self._kept, self._ids = self._kept, {}, []
        return await self._postgres.transaction(lambda c: self._take(c, after_id, limit))

    async def _take(self, c: Connection, after_id: int, limit: int) -> Live:
        if after_id == 0 and self._given:
            life, live = await self._versions(c)
            same = life == self._life
            self._given = {i: k for i, k in self._given.items() if live.get(i) == k.version} if same else {}
            self._ids = list(live)
        first = bisect_right(self._ids, after_id)
        ids = self._ids[first : first + limit]
        if not ids:  # nothing was read ahead, or it has come to its end
            self._given, self._ids = {}, []
            return await _page(c, after_id, limit)
        return await self._together(c, ids)

    async def _together(self, c: Connection, ids: Sequence[int]) -> Live:
        known = {ident: kept for ident in ids if (kept := self._given.pop(ident, None)) is not None}
        missing = [ident for ident in ids if ident not in known]
        if missing:
            known |= await _tasks(c, missing)
        tasks = [known[ident].task for ident in ids if ident in known]
        return await _with_elements(c, tasks, [ident for ident, kept in known.items() if not kept.bare])


async def _tasks(c: Connection, ids: Sequence[int]) -> dict[int, Kept]:
    """Those that live."""
    where = " WHERE n.id = ANY($1::bigint[]) AND n.ended_at IS NULL ORDER BY n.id"
    rows = await c.fetch(_VERSIONED + where, list(ids))
    return {row[0]: Kept(row[-2], task_from_row(row), row[-1]) for row in rows}


async def _page(c: Connection, after_id: int, limit: int) -> Live:
    tasks = [task_from_row(row) for row in await c.fetch(Q["task_columns"] + LIVE, after_id, limit)]
    return await _with_elements(c, tasks, [task.id for task in tasks])


async def _with_elements(c: Connection, tasks: list[Task], asked: list[int]) -> Live:
    """``asked``: those of the tasks that may have elements."""
    elements = await live_elements(c, asked) if asked else []
    on_nodes = sorted({element.task for element in elements if element.state in ON_NODE})
    return Live(tasks, elements, await current_attempts(c, on_nodes) if on_nodes else [])
