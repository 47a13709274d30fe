"""Entries through Redis: one capped stream for each server, read with a cursor of its own."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import redis.asyncio as redis
from redis.exceptions import RedisError

from jarvis.bus.transport import TransportDown

PREFIX = "jarvis:to:"
LENGTH = 2000
"""Entries that a stream keeps, about; a server that is so far behind begins anew anyway."""
BLOCK_S = 2.0
PAGE = 100
RETRY_S = 0.5
ANSWER_S = 1.0
FORGET_S = 600
"""A stream that nobody writes to any more goes by itself."""


class RedisTransport:
    """See the port. Several clusters may share a Redis: what is of another one is not believed."""

    name = "redis"

    def __init__(self, url: str) -> None:
        options: dict[str, Any] = {"protocol": 2, "socket_connect_timeout": ANSWER_S, "health_check_interval": 5}
        # Untyped on purpose: the library's types allow for text everywhere, and these answer with bytes.
        self._client: Any = redis.Redis.from_url(url, socket_timeout=ANSWER_S, **options)
        self._reader: Any = redis.Redis.from_url(url, socket_timeout=BLOCK_S + ANSWER_S, **options)
        self._closed = False

    async def send(self, to: str, entry: bytes) -> None:
        stream = PREFIX + to
        try:
            async with self._client.pipeline(transaction=False) as pipe:
                pipe.xadd(stream, {b"e": entry}, maxlen=LENGTH, approximate=True)
                pipe.expire(stream, FORGET_S)
                await pipe.execute()
        except (RedisError, OSError, TimeoutError) as error:
            raise TransportDown(str(error)) from None

    async def ping(self) -> float:
        started = asyncio.get_running_loop().time()
        try:
            await self._client.ping()
        except (RedisError, OSError, TimeoutError) as error:
            raise TransportDown(str(error)) from None
        return asyncio.get_running_loop().time() - started

    async def receive(self, inbox: str) -> AsyncIterator[bytes]:
        stream, cursor = PREFIX + inbox, b""
        while not self._closed:
            _end_if_cancelled()
            try:
                newest = await self._newest(stream)
                if not cursor:
                    cursor = newest or b"0-0"
                elif newest is not None and _order(newest) < _order(cursor):
                    cursor = b"0-0"  # it was emptied, and its clock has gone back
                found = await self._reader.xread({stream: cursor}, count=PAGE, block=int(BLOCK_S * 1000))
            except (RedisError, OSError, TimeoutError):
                with suppress(RedisError, OSError, TimeoutError):
                    await self._drop_what_is_no_stream(stream)
                await asyncio.sleep(RETRY_S)
                continue
            for _, entries in found or ():
                for ident, fields in entries:
                    cursor = ident
                    if b"e" in fields:
                        yield fields[b"e"]

    async def _newest(self, stream: str) -> bytes | None:
        last = await self._client.xrevrange(stream, count=1)
        return bytes(last[0][0]) if last else None

    async def _drop_what_is_no_stream(self, stream: str) -> None:
        if await self._client.type(stream) not in (b"stream", b"none"):
            await self._client.delete(stream)

    async def close(self) -> None:
        self._closed = True
        for client in (self._client, self._reader):
            with suppress(RedisError, OSError, TimeoutError):
                await client.aclose()


def _end_if_cancelled() -> None:
    """The library may keep a cancellation to itself that comes while it connects."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


def _order(ident: bytes) -> tuple[int, int]:
    milliseconds, _, number = ident.partition(b"-")
    return int(milliseconds), int(number or 0)
