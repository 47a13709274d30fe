"""Bodies over the session: what tasks need is fetched from the server, what they made is stored there."""

import asyncio

from jarvis.bus.messages import BlobData, BlobGet, BlobPut, BlobStored
from jarvis.core.manifest import matches_digest
from jarvis.worker.session import Session

ANSWER_S = 30.0
GIVE_UP_S = 600.0
PIECE = 256 * 1024
AT_ONCE = 4
FETCH_LIMIT = 256 << 20


async def _checked(data: bytes, digest: str) -> bytes:
    """The bytes themselves, if they are those of that name: a disk or a server may have damaged them."""
    same = matches_digest(data, digest) if len(data) <= PIECE else await asyncio.to_thread(matches_digest, data, digest)
    if not same:
        raise OSError(f"the server's copy of {digest} is damaged: it has another checksum")
    return data


class Bodies:
    """Requests by number. One that a broken session left without an answer is asked again on the next."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._waiting: dict[int, asyncio.Future[BlobData | BlobStored | None]] = {}
        self._fetching: dict[str, asyncio.Task[bytes]] = {}
        self._window = asyncio.Semaphore(AT_ONCE)
        self._last = 0

    async def fetch(self, task: int, digest: str) -> bytes:
        """A body that a task here needs; raises OSError when the server does not have it. Those who ask for the same at
        the same time share the answer."""
        running = self._fetching.get(digest)
        if running is None:
            running = asyncio.create_task(self._fetch(task, digest))
            self._fetching[digest] = running
            running.add_done_callback(lambda done: self._fetched(digest, done))
        return await asyncio.shield(running)

    def _fetched(self, digest: str, done: asyncio.Task[bytes]) -> None:
        """Also when those who asked do not wait any more: then nobody else looks at how it failed."""
        self._fetching.pop(digest, None)
        if not done.cancelled():
            done.exception()

    async def _fetch(self, task: int, digest: str) -> bytes:
        parts: list[bytes] = []
        offset = 0
        async with self._window:
            while True:
                request = self._next()
                get = BlobGet(request=request, task=task, digest=digest, offset=offset, length=PIECE)
                answer = await self._ask(request, get)
                assert isinstance(answer, BlobData)
                if answer.error:
                    raise OSError(answer.error)
                if answer.size > FETCH_LIMIT:
                    raise OSError(f"a body of {answer.size} bytes is over the limit of {FETCH_LIMIT}")
                parts.append(answer.data)
                offset += len(answer.data)
                if offset >= answer.size or not answer.data:
                    return await _checked(b"".join(parts), digest)

    async def put(self, number: int, token: int, data: bytes) -> str:
        """Store it; the digest. Raises OSError when the server refuses."""
        request = self._next()
        async with self._window:
            answer = await self._ask(request, BlobPut(request=request, number=number, token=token, data=data))
        assert isinstance(answer, BlobStored)
        if answer.error:
            raise OSError(answer.error)
        return answer.digest

    def answered(self, message: BlobData | BlobStored) -> None:
        future = self._waiting.pop(message.request, None)
        if future is not None and not future.done():
            future.set_result(message)

    def ask_again(self) -> None:
        """The session is over, and the answers with it."""
        for future in self._waiting.values():
            if not future.done():
                future.set_result(None)
        self._waiting.clear()

    def _next(self) -> int:
        self._last += 1
        return self._last

    async def _ask(self, request: int, message: BlobGet | BlobPut) -> BlobData | BlobStored:
        async with asyncio.timeout(GIVE_UP_S):
            while True:
                future: asyncio.Future[BlobData | BlobStored | None] = asyncio.get_running_loop().create_future()
                self._waiting[request] = future
                self._session.say(message)
                try:
                    async with asyncio.timeout(ANSWER_S if self._session.connected else 0.2):
                        answer = await future
                except TimeoutError:
                    continue
                if answer is not None:
                    return answer
