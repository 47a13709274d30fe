"""Who leads, who is there, who may enter: the small rows of the PostgreSQL store."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import msgspec

from jarvis.core.errors import LeadershipHeld, StaleEpoch, StoreUnavailable
from jarvis.state.coordination import TAKEOVERS, Leader, Leadership, Replica, Takeover, Token, takeover_cause
from jarvis.state.persistence import ID_JUMP, INCARNATION_EPOCH, REPLICA_S, encode
from jarvis.state.postgres import FAILURES, Connection, Postgres
from jarvis.state.stores.postgres.schema import Q, migrate

EARLY_S = 2.0
"""A leader that has not renewed for so long, and whose own connection is gone, is taken for gone."""


class PostgresCoordination:
    """That part of the port. ``clock`` is for tests; without one, the database's own is asked."""

    def __init__(self, url: str, clock: Callable[[], float] | None = None) -> None:
        self.postgres = Postgres(url)
        self._clock = clock
        self._session: Connection | None = None
        """The connection whose lock tells others that this leader lives."""

    def _at(self) -> float | None:
        return None if self._clock is None else self._clock()

    async def open(self) -> None:
        await self.postgres.open()
        try:
            await migrate(self.postgres, self._at())
        except BaseException:
            await self.postgres.close()
            raise

    async def close(self) -> None:
        await self._end_session()
        await self.postgres.close()

    async def now(self) -> float:
        return float((await self.postgres.fetch(Q["now"], self._at()))[0][0])

    # ------------------------------------------------------------ leadership

    async def leadership_acquire(self, holder: str, lease_s: float = 0.0) -> Leadership:
        async def unit(c: Connection) -> Leadership:
            incarnation, epoch, before, timeline = await c.fetchrow(Q["leadership_lock"])
            left, silent, released = await c.fetchrow(Q["lease_get"], self._at())
            if left > 0 and not (silent >= EARLY_S and self._session is None and await self._begin_session()):
                raise LeadershipHeld(before, left, max(EARLY_S - silent, 0.0))
            current = await c.fetchval(Q["timeline"])
            cause = takeover_cause(epoch, lease_s=lease_s, left_s=left, released=released)
            if timeline not in ("", current):  # a standby was promoted: it may lack what was given last
                await c.execute(Q["task_id_jump"], ID_JUMP)
                incarnation = await c.fetchval(Q["incarnation_put"], self._at(), INCARNATION_EPOCH)
                cause = "the database failed over"
            row = await c.fetchrow(Q["leadership_put"], holder, incarnation, current)
            await c.execute(Q["lease_put"], self._at(), lease_s)
            told = (epoch + 1, holder, cause, silent if epoch else 0.0, TAKEOVERS)
            await c.execute(Q["takeover_put"], self._at(), *told)
            return Leadership(*row)

        had = self._session
        try:
            won = await self.postgres.transaction(unit)
        except BaseException:
            if self._session is not had:  # an attempt that comes to nothing must not look like a leader that lives
                await self._end_session()
            raise
        if self._session is None:
            await self._begin_session()
        return won

    async def leadership_renew(self, leadership: Leadership, lease_s: float) -> None:
        async def unit(c: Connection) -> None:
            await check_epoch(c, leadership, Q["leadership_settle"])
            await c.execute(Q["lease_put"], self._at(), lease_s)

        await self.postgres.transaction(unit)
        if self._session is None or self._session.is_closed():
            await self._begin_session()

    async def leadership_release(self, leadership: Leadership) -> None:
        try:
            with suppress(StaleEpoch):
                await self.leadership_renew(leadership, 0.0)
        finally:
            await self._end_session()

    async def _begin_session(self) -> bool:
        """Whether the lock that a living leader holds is ours now."""
        self._session = None
        try:
            session = await self.postgres.connect()
            if await session.fetchval(Q["session_lock"]):
                self._session = session
                return True
            await session.close()
        except (StoreUnavailable, *FAILURES):
            return False
        return False

    async def _end_session(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            with suppress(*FAILURES):
                await session.close(timeout=2.0)

    async def takeover_list(self, limit: int) -> list[Takeover]:
        return [Takeover(*row) for row in await self.postgres.fetch(Q["takeover_list"], limit)]

    async def leader_get(self) -> Leader:
        ((holder, incarnation, epoch, left),) = await self.postgres.fetch(Q["leader_get"], self._at())
        return Leader(holder, Leadership(incarnation, epoch), left)

    async def incarnation_bump(self, reason: str) -> int:
        async def unit(c: Connection) -> int:
            await c.execute(Q["task_id_jump"], ID_JUMP)
            return int(await c.fetchval(Q["incarnation_put"], self._at(), INCARNATION_EPOCH))

        return await self.postgres.transaction(unit)

    # ------------------------------------------------------------ replicas, nodes, secrets, tokens

    async def replica_seen(self, replica: Replica) -> None:
        r = replica

        async def unit(c: Connection) -> None:
            await c.execute(Q["replica_put"], self._at(), r.name, r.url, r.version, r.role, r.epoch, r.seq)
            await c.execute(Q["replica_delete"], self._at(), REPLICA_S)

        await self.postgres.transaction(unit)

    async def replica_list(self, max_age_s: float) -> list[Replica]:
        return [Replica(*row) for row in await self.postgres.fetch(Q["replica_list"], self._at(), max_age_s)]

    async def node_seen_many(self, seen: Sequence[tuple[int, float, dict[str, float]]], replica: str = "") -> None:
        nodes = [node for node, _, _ in seen]
        health = [encode(figures) for _, _, figures in seen]

        async def unit(c: Connection) -> None:
            await c.execute(Q["node_seen"], nodes, [at for _, at, _ in seen], health)
            await c.execute(Q["node_replica_put"], sorted(set(nodes)), replica)

        await self.postgres.transaction(unit)

    async def node_replicas(self) -> dict[int, str]:
        return dict(await self.postgres.fetch(Q["node_replica_list"]))

    async def secret_keep(self, name: str, value: bytes) -> bytes:
        async def unit(c: Connection) -> bytes:
            await c.execute(Q["secret_insert"], name, value)
            return bytes(await c.fetchval(Q["secret_get"], name))

        return await self.postgres.transaction(unit)

    async def token_put(self, token: Token) -> None:
        projects = encode(token.projects)
        row = (token.hash, token.user, token.role, projects, token.label, token.expires_at)
        await self.postgres.fetch(Q["token_put"], *row)

    async def token_take(self, token_hash: str) -> Token | None:
        rows = await self.postgres.fetch(Q["token_take"], self._at(), token_hash)
        return _token(rows[0]) if rows and rows[0][6] else None

    async def token_list(self) -> list[Token]:
        return [_token(row) for row in await self.postgres.fetch(Q["token_list"], self._at())]


async def check_epoch(c: Connection, leadership: Leadership, query: str = Q["leadership_share"]) -> bool:
    """Lock the leadership as it is; raise :class:`StaleEpoch` unless this epoch leads. Whether every server reads the only
    element of a task from the row of the task."""
    incarnation, epoch, same_life, solo_in_task = await c.fetchrow(query)
    if (incarnation, epoch) != (leadership.incarnation, leadership.epoch):
        raise StaleEpoch(f"epoch {leadership.epoch} is over, {epoch} leads")
    if not same_life:
        raise StaleEpoch(f"epoch {leadership.epoch} is over: the database was failed over")
    return bool(solo_in_task)


def _token(row: Any) -> Token:
    return Token(row[0], row[1], row[2], tuple(msgspec.msgpack.decode(row[3])), row[4], row[5])
