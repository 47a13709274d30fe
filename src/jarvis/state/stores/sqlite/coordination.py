"""Who leads, who is there, who may enter: the small rows of the SQLite store."""

import sqlite3
from collections.abc import Sequence
from typing import Any

import msgspec

from jarvis.core.errors import LeadershipHeld, StaleEpoch
from jarvis.state.coordination import TAKEOVERS, Leader, Leadership, Replica, Takeover, Token, takeover_cause
from jarvis.state.persistence import INCARNATION_EPOCH, REPLICA_S, encode
from jarvis.state.stores.sqlite.database import SqliteDatabase, run
from jarvis.state.stores.sqlite.file import Q, bump


class SqliteCoordination(SqliteDatabase):
    """That part of the port; one server owns the file, so leases matter only where a test plays several."""

    async def leadership_acquire(self, holder: str, lease_s: float = 0.0) -> Leadership:
        now = self._clock()

        def unit(c: sqlite3.Connection) -> Leadership:
            before, incarnation, epoch, ends_at, renewed_at = c.execute(Q["leader_get"]).fetchone()
            if ends_at > now:
                raise LeadershipHeld(before, ends_at - now)
            run(c, "leadership_acquire", [(holder,)])
            run(c, "lease_put", [(now + lease_s, now)])
            cause = takeover_cause(epoch, lease_s=lease_s, left_s=ends_at - now, released=ends_at == renewed_at)
            run(c, "takeover_put", [(epoch + 1, holder, now, cause, now - renewed_at if epoch else 0.0)])
            run(c, "takeover_delete", [(epoch + 1 - TAKEOVERS,)])
            return Leadership(incarnation, epoch + 1)

        return await self._writer.do(unit)

    async def leadership_renew(self, leadership: Leadership, lease_s: float) -> None:
        await self._lease(leadership, lease_s)

    async def leadership_release(self, leadership: Leadership) -> None:
        try:
            await self._lease(leadership, 0.0)
        except StaleEpoch:
            return

    async def _lease(self, leadership: Leadership, lease_s: float) -> None:
        now = self._clock()

        def unit(c: sqlite3.Connection) -> None:
            check_epoch(c, leadership)
            run(c, "lease_put", [(now + lease_s, now)])

        await self._writer.do(unit)

    async def takeover_list(self, limit: int) -> list[Takeover]:
        return await self._many("takeover_list", lambda row: Takeover(*row), (limit,))

    async def leader_get(self) -> Leader:
        holder, incarnation, epoch, ends_at, _ = await self._read(lambda c: c.execute(Q["leader_get"]).fetchone())
        return Leader(holder, Leadership(incarnation, epoch), ends_at - self._clock())

    async def incarnation_bump(self, reason: str) -> int:
        return await self._writer.do(lambda c: bump(c, int(self._clock()) - INCARNATION_EPOCH))

    async def replica_seen(self, replica: Replica) -> None:
        r, now = replica, self._clock()

        def unit(c: sqlite3.Connection) -> None:
            run(c, "replica_put", [(r.name, r.url, r.version, r.role, r.epoch, r.seq, now)])
            run(c, "replica_delete_before", [(now - REPLICA_S,)])

        await self._writer.do(unit)

    async def replica_list(self, max_age_s: float) -> list[Replica]:
        return await self._many("replica_list", lambda row: Replica(*row), (self._clock() - max_age_s,))

    async def node_seen_many(self, seen: Sequence[tuple[int, float, dict[str, float]]], replica: str = "") -> None:
        rows = [(at, encode(health), node) for node, at, health in seen]
        held = [(replica, node) for node, _, _ in seen]

        def unit(c: sqlite3.Connection) -> None:
            run(c, "node_seen", rows)
            run(c, "node_replica_put", held)

        await self._writer.do(unit)

    async def node_replicas(self) -> dict[int, str]:
        return dict(await self._many("node_replica_list", lambda row: (int(row[0]), str(row[1]))))

    async def secret_keep(self, name: str, value: bytes) -> bytes:
        def unit(c: sqlite3.Connection) -> bytes:
            run(c, "secret_insert", [(name, value)])
            return bytes(c.execute(Q["secret_get"], (name,)).fetchone()[0])

        return await self._writer.do(unit)

    async def token_put(self, token: Token) -> None:
        row = (token.hash, token.user, token.role, encode(token.projects), token.label, token.expires_at)
        await self._writer.do(lambda c: run(c, "token_put", [row]))

    async def token_take(self, token_hash: str) -> Token | None:
        now = self._clock()

        def unit(c: sqlite3.Connection) -> Token | None:
            row = c.execute(Q["token_get"], (token_hash, now)).fetchone()
            run(c, "token_delete", [(token_hash,)])
            return None if row is None else _token(row)

        return await self._writer.do(unit)

    async def token_list(self) -> list[Token]:
        return await self._many("token_list", _token, (self._clock(),))


def check_epoch(c: sqlite3.Connection, leadership: Leadership) -> None:
    """Raise :class:`StaleEpoch` unless this epoch leads."""
    row = c.execute(Q["cluster_get"]).fetchone()
    if (row[0], row[1]) != (leadership.incarnation, leadership.epoch):
        raise StaleEpoch(f"epoch {leadership.epoch} is over, {row[1]} leads")


def _token(row: Any) -> Token:
    return Token(row[0], row[1], row[2], tuple(msgspec.msgpack.decode(row[3])), row[4], row[5])
