"""Submissions to PostgreSQL: what has gathered while the group before was on its way goes in one transaction."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from jarvis.core.errors import IdempotencyConflict, InvalidValue, JarvisError, StoreUnavailable
from jarvis.state.persistence import encode, specs_of
from jarvis.state.postgres import Connection, Postgres
from jarvis.state.store import Accepted, IdempotencyKey, Submission
from jarvis.state.stores.postgres.rows import columns, new_task_columns
from jarvis.state.stores.postgres.schema import Q

if TYPE_CHECKING:
    from jarvis.core.task import NewTask

Answer = Accepted | JarvisError
WAITING_LIMIT = 10_000
"""Submissions that may wait; beyond, they are refused rather than kept in memory."""
GROUP_TASKS = 20_000
"""Tasks in one transaction, about."""
Name = tuple[str, str, str, str]


@dataclass(slots=True)
class _Waiting:
    submission: Submission
    specs: list[bytes]
    answer: asyncio.Future[Answer]


class Submissions:
    """Group commit without a window: a lone submission goes at once, a thousand at a time share one commit."""

    def __init__(self, postgres: Postgres, at: Callable[[], float | None]) -> None:
        self._postgres, self._at = postgres, at
        self._waiting: list[_Waiting] = []
        self._running: asyncio.Task[None] | None = None

    async def insert(self, submissions: Sequence[Submission]) -> list[Answer]:
        """One answer for each; a refused one never fails its neighbours."""
        loop = asyncio.get_running_loop()
        if len(self._waiting) + len(submissions) > WAITING_LIMIT:
            raise StoreUnavailable("too many submissions are waiting")
        answers: list[asyncio.Future[Answer]] = []
        for submission in submissions:
            specs, future = specs_of(submission), loop.create_future()
            answers.append(future)
            if isinstance(specs, InvalidValue):
                future.set_result(specs)
            else:
                self._waiting.append(_Waiting(submission, specs, future))
        if self._waiting and self._running is None:
            self._running = loop.create_task(self._run())
        told = list(await asyncio.gather(*answers))
        if told and all(isinstance(answer, StoreUnavailable) for answer in told):
            raise told[0]  # type: ignore[misc]
        return told

    async def stop(self) -> None:
        """After what was asked before."""
        if self._running is not None:
            await asyncio.wait([self._running])

    async def _run(self) -> None:
        try:
            while self._waiting:
                await self._insert_group(self._next_group())
        finally:
            self._running = None

    def _next_group(self) -> list[_Waiting]:
        size = count = 0
        for waiting in self._waiting:
            size += len(waiting.specs)
            if count and size > GROUP_TASKS:
                break
            count += 1
        group, self._waiting = self._waiting[:count], self._waiting[count:]
        return group

    async def _insert_group(self, group: list[_Waiting]) -> None:
        """Together; when the database refuses something of it, one by one, so that only that one fails."""
        try:
            found: list[Answer] = await self._postgres.transaction(lambda c: self._insert(c, group))
        except StoreUnavailable as error:
            found = [await self._heard_before(waiting, error) for waiting in group]
        except JarvisError as error:
            if len(group) > 1:
                for waiting in group:
                    await self._insert_group([waiting])
                return
            found = [error]
        except BaseException as error:
            for waiting in group:
                if not waiting.answer.done():
                    waiting.answer.set_exception(error if isinstance(error, Exception) else StoreUnavailable("closed"))
            if isinstance(error, Exception):  # a defect: who asked is told, and what gathered behind it goes next
                return
            raise
        for waiting, answer in zip(group, found, strict=True):
            if not waiting.answer.done():
                waiting.answer.set_result(answer)

    async def _heard_before(self, waiting: _Waiting, error: StoreUnavailable) -> Answer:
        """The answer to the commit may be what was lost: its key tells."""
        key = waiting.submission.idempotency
        if key is None:
            return error
        try:
            rows = await self._postgres.fetch(Q["idempotency_list"], *columns([_name(key)], 4))
            return _told(key, rows[0]) if rows else error
        except JarvisError:
            return error

    async def _insert(self, c: Connection, group: list[_Waiting]) -> list[Answer]:
        now, same_life = await c.fetchrow(Q["submission_begin"], self._at())
        if not same_life:
            raise StoreUnavailable("the database was failed over, and no server leads yet; repeat it in a few seconds")
        answers = await self._answered(c, group)
        fresh = [at for at, waiting in enumerate(group) if answers[at] is None and not _repeats(group, at)]
        ids = [int(row[0]) for row in await c.fetch(Q["task_ids"], sum(len(group[at].specs) for at in fresh))]
        for at in fresh:
            count = len(group[at].specs)
            answers[at], ids = Accepted(tuple(ids[:count]), now), ids[count:]
        await self._claim_keys(c, group, answers, fresh, now)
        rows: list[tuple[int, tuple[NewTask, bytes]]] = []
        for at in fresh:
            accepted, waiting = answers[at], group[at]
            if isinstance(accepted, Accepted) and not accepted.replayed:
                rows += zip(accepted.ids, zip(waiting.submission.tasks, waiting.specs, strict=True), strict=True)
        if rows:
            await c.execute(Q["task_insert"], *new_task_columns([i for i, _ in rows], [r for _, r in rows]), now)
            await c.execute(Q["task_insert_now"], [i for i, _ in rows])
        return [answer or _as_the_first(group, answers, at) for at, answer in enumerate(answers)]

    async def _answered(self, c: Connection, group: list[_Waiting]) -> list[Answer | None]:
        """What keys were answered with before; None for what is new."""
        keys = {at: key for at, waiting in enumerate(group) if (key := waiting.submission.idempotency) is not None}
        told: list[Answer | None] = [None] * len(group)
        if keys:
            names = columns([_name(key) for key in keys.values()], 4)
            known = {tuple(row[:4]): row for row in await c.fetch(Q["idempotency_list"], *names)}
            for at, key in keys.items():
                if (row := known.get(_name(key))) is not None:
                    told[at] = _told(key, row)
        return told

    async def _claim_keys(
        self, c: Connection, group: list[_Waiting], answers: list[Answer | None], fresh: list[int], now: float
    ) -> None:
        """Keep what they are answered with. Another server may have been faster: then its answer holds."""
        rows, claimed = [], []
        for at in fresh:
            key, answer = group[at].submission.idempotency, answers[at]
            if key is not None and isinstance(answer, Accepted):
                rows.append((*_name(key), key.body_hash, encode(answer.ids)))
                claimed.append(at)
        if not rows:
            return
        ours = {tuple(row) for row in await c.fetch(Q["idempotency_insert"], *columns(rows, 6), now)}
        late = [group[at] for at, row in zip(claimed, rows, strict=True) if row[:4] not in ours]
        if late:
            earlier = iter(await self._answered(c, late))
            for at, row in zip(claimed, rows, strict=True):
                if row[:4] not in ours:
                    answers[at] = next(earlier)


def _repeats(group: list[_Waiting], at: int) -> bool:
    """Whether its key came earlier in the same group."""
    key = group[at].submission.idempotency
    return key is not None and _first(group, key) < at


def _first(group: list[_Waiting], key: IdempotencyKey) -> int:
    keys = (waiting.submission.idempotency for waiting in group)
    return next(at for at, other in enumerate(keys) if other is not None and _name(other) == _name(key))


def _as_the_first(group: list[_Waiting], answers: list[Answer | None], at: int) -> Answer:
    """Of a key that came earlier in the same group."""
    key = group[at].submission.idempotency
    assert key is not None
    first = _first(group, key)
    answer, other = answers[first], group[first].submission.idempotency
    if other is None or other.body_hash != key.body_hash:
        return IdempotencyConflict(key.key)
    assert isinstance(answer, Accepted)
    return Accepted(answer.ids, answer.submitted_at, replayed=True)


def _name(key: IdempotencyKey) -> Name:
    return (key.principal, key.project, key.route, key.key)


def _told(key: IdempotencyKey, row: Sequence[object]) -> Answer:
    """The answer that a stored key stands for."""
    _, _, _, _, body_hash, at, ids = row
    if body_hash != key.body_hash:
        return IdempotencyConflict(key.key)
    assert isinstance(at, float)
    assert isinstance(ids, bytes)
    return Accepted(tuple(msgspec.msgpack.decode(ids)), at, replayed=True)
