"""Which pieces an answer leaves in: head and body together where the length is told, and nothing held back that is waited for."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import uvicorn
from uvicorn.protocols.http import httptools_impl
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle
from uvicorn.server import ServerState

from jarvis.api import whole_answers
from jarvis.api.whole_answers import WholeAnswers

Send = Callable[[dict[str, Any]], Awaitable[None]]


class Written(asyncio.Transport):
    """What leaves in one piece each."""

    def __init__(self) -> None:
        super().__init__()
        self.pieces: list[bytes] = []
        self.closed = False

    def write(self, data: Any) -> None:
        self.pieces.append(bytes(data))

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


def asked(answers: list[tuple[list[tuple[bytes, bytes]], list[bytes]]], *requests: bytes) -> Written:
    """Send requests over one connection, which are answered in turn by headers and pieces of a body; an answer without pieces
    breaks off after its head."""

    async def app(scope: dict[str, Any], receive: Callable[[], Awaitable[Any]], send: Send) -> None:
        headers, pieces = answers.pop(0)
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for i, piece in enumerate(pieces):
            await send({"type": "http.response.body", "body": piece, "more_body": i + 1 < len(pieces)})
        if not pieces:
            raise RuntimeError("the rest is lost")

    async def run() -> Written:
        config = uvicorn.Config(app, lifespan="off", log_config=None, server_header=False, date_header=False)
        config.load()
        transport = Written()
        protocol = WholeAnswers(config, ServerState(), {})
        protocol.connection_made(transport)
        for request in requests:
            protocol.data_received(request)
            for _ in range(20):
                await asyncio.sleep(0)
        protocol.connection_lost(None)
        return transport

    return asyncio.run(run())


def length(count: int) -> list[tuple[bytes, bytes]]:
    return [(b"content-length", str(count).encode())]


GET = b"GET / HTTP/1.1\r\nHost: here\r\n\r\n"
HEAD = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n"


def test_an_answer_of_known_length_leaves_in_one_piece_each_time() -> None:
    assert asked([(length(4), [b"body"]), (length(2), [b"ok"])], GET, GET).pieces == [
        HEAD % 4 + b"body",
        HEAD % 2 + b"ok",
    ]


def test_what_is_long_leaves_as_it_comes() -> None:
    assert asked([(length(6), [b"ab", b"cd", b"ef"])], GET).pieces == [HEAD % 6 + b"ab", b"cd", b"ef"]


def test_a_stream_says_at_once_that_it_has_begun() -> None:
    head, first, last = asked([([], [b"one", b""])], GET).pieces
    assert head.endswith(b"transfer-encoding: chunked\r\n\r\n")
    assert (first, last) == (b"3\r\none\r\n", b"0\r\n\r\n")


@pytest.mark.parametrize(("request_", "count"), [(GET, 0), (GET.replace(b"GET", b"HEAD"), 9)])
def test_a_head_that_nothing_follows_is_not_held(request_: bytes, count: int) -> None:
    assert b"".join(asked([(length(count), [b""])], request_).pieces) == HEAD % count


def test_an_interim_answer_leaves_by_itself() -> None:
    posted = b"POST / HTTP/1.1\r\nHost: here\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n"
    assert asked([(length(2), [b"ok"])], posted, b"x").pieces == [b"HTTP/1.1 100 Continue\r\n\r\n", HEAD % 2 + b"ok"]


def test_an_answer_that_breaks_off_ends_its_connection() -> None:
    assert asked([(length(2), [])], GET).closed


def test_where_uvicorn_has_not_what_is_looked_at_answers_leave_as_it_sends_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(whole_answers, "NEEDED", (*whole_answers.NEEDED, "what_it_was_called"))
    assert asked([(length(4), [b"body"])], GET).pieces == [HEAD % 4, b"body"]


class Lines(RequestResponseCycle):
    """Writes bodies by another method of its transport."""

    async def send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            await super().send(message)
        else:
            self.transport.writelines([message["body"]])
            self.response_complete = True
            self.on_response()


def test_what_uvicorn_writes_otherwise_comes_after_its_head(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(httptools_impl, "RequestResponseCycle", Lines)
    assert asked([(length(4), [b"body"])], GET).pieces == [HEAD % 4, b"body"]
