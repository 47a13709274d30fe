"""Requests over kept connections: what the server gave up meanwhile costs nothing, and who closes is not waited for."""

import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException

import pytest

from jarvis.sdk.posting import Posts, can_post

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Server:
    """Answers each connection with what it is told to, one piece for one request; then it closes it."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}/api/v1"
        self.heard: list[bytes] = []
        self.connections = 0
        self.asked, self.closed = threading.Event(), threading.Event()

    def serve(self, *answers: list[bytes]) -> None:
        """One list for each connection; the empty answer closes it instead."""
        for each in answers:
            peer, _ = self.listener.accept()
            self.connections += 1
            with peer:
                for answer in each:
                    self.heard.append(peer.recv(1 << 16))
                    self.asked.set()
                    if answer:
                        peer.sendall(answer)
            self.closed.set()


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.listener.close()


@pytest.fixture
def background() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as pool:
        yield pool


def test_a_connection_is_kept_and_a_request_leaves_in_one_piece(server: Server, background: ThreadPoolExecutor) -> None:
    serving = background.submit(server.serve, [ANSWER, ANSWER])
    posts = Posts(server.url, {"Authorization": "Bearer t"}, None)
    assert posts.post("/tasks/calls", b"body", {"Idempotency-Key": "k"}, 10) == (200, b"ok")
    assert posts.post("/tasks/calls", b"", {}, 10) == (200, b"ok")
    serving.result(10)
    assert server.connections == 1
    head, _, body = server.heard[0].partition(b"\r\n\r\n")
    assert head.startswith(b"POST /api/v1/tasks/calls HTTP/1.1\r\nHost: 127.0.0.1:")
    assert {b"Authorization: Bearer t", b"Idempotency-Key: k", b"Content-Length: 4"} <= set(head.split(b"\r\n"))
    assert body == b"body"
    posts.close()


def test_a_connection_that_the_server_closed_is_followed_by_another(
    server: Server, background: ThreadPoolExecutor
) -> None:
    serving = background.submit(server.serve, [ANSWER], [ANSWER])
    posts = Posts(server.url, {}, None)
    posts.post("/a", b"1", {}, 10)
    assert server.closed.wait(10)
    assert posts.post("/a", b"2", {}, 10) == (200, b"ok")
    serving.result(10)
    assert server.connections == 2
    posts.close()


def test_one_that_is_closed_as_it_is_asked_is_asked_again_on_a_new_one(
    server: Server, background: ThreadPoolExecutor
) -> None:
    serving = background.submit(server.serve, [ANSWER, b""], [ANSWER])
    posts = Posts(server.url, {}, None)
    posts.post("/a", b"1", {}, 10)
    assert posts.post("/a", b"2", {}, 10) == (200, b"ok")
    serving.result(10)
    assert [data.rpartition(b"\r\n\r\n")[2] for data in server.heard] == [b"1", b"2", b"2"]
    posts.close()


def test_a_new_connection_that_is_closed_is_an_error(server: Server, background: ThreadPoolExecutor) -> None:
    serving = background.submit(server.serve, [b""])
    posts = Posts(server.url, {}, None)
    with pytest.raises(ConnectionError):
        posts.post("/a", b"1", {}, 10)
    serving.result(10)
    posts.close()


def test_an_answer_that_ends_its_connection_is_whole(server: Server, background: ThreadPoolExecutor) -> None:
    last = b"HTTP/1.1 409 Conflict\r\nConnection: close\r\n\r\n{}"
    serving = background.submit(server.serve, [last], [ANSWER])
    posts = Posts(server.url, {}, None)
    assert posts.post("/a", b"1", {}, 10) == (409, b"{}")
    assert posts.post("/a", b"1", {}, 10) == (200, b"ok")
    serving.result(10)
    posts.close()


def test_closing_ends_what_waits_and_what_comes_later(server: Server, background: ThreadPoolExecutor) -> None:
    posts = Posts(server.url, {}, None)
    waiting = background.submit(posts.post, "/a", b"1", {}, 30)
    peer, _ = server.listener.accept()
    with peer:
        peer.recv(100)
        posts.close()
        with pytest.raises((OSError, RuntimeError)):
            waiting.result(10)
    with pytest.raises(RuntimeError, match="closed"):
        posts.post("/a", b"1", {}, 10)


def test_where_a_proxy_is_named_or_nobody_to_believe_the_general_client_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    assert can_post("http://127.0.0.1:7517/api/v1", None)
    assert not can_post("https://server:7516/api/v1", None)
    monkeypatch.setenv("HTTP_PROXY", "http://proxy:3128")
    assert not can_post("http://127.0.0.1:7517/api/v1", None)


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        (b"HTTP/1.1 200 OK\r\ncontent-length:3\r\n\r\nabc", (200, b"abc")),
        (b"HTTP/1.1 201\r\nX: Content-Length: 9\r\nCONTENT-LENGTH: 0\r\n\r\n", (201, b"")),
        (b"HTTP/1.1 401 No\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", (401, b"{}")),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", (200, b"ok")),
        (b"HTTP/1.1 204 No Content\r\n\r\n", (204, b"")),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 70000\r\n\r\n" + b"x" * 70000, (200, b"x" * 70000)),
    ],
)
@pytest.mark.parametrize("cut", [5, 20, 37, 1 << 20])
def test_answers_are_understood_in_whatever_pieces_they_come(
    server: Server, background: ThreadPoolExecutor, answer: bytes, found: tuple[int, bytes], cut: int
) -> None:
    """Also such as only a proxy or a refusal sends; the connection is good for the next one afterwards."""

    def serve() -> None:
        peer, _ = server.listener.accept()
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with peer:
            for _ in range(2):
                peer.recv(1 << 16)
                peer.sendall(answer[:cut])
                threading.Event().wait(0.01 if answer[cut:] else 0)
                peer.sendall(answer[cut:])

    serving = background.submit(serve)
    posts = Posts(server.url, {}, None)
    assert posts.post("/a", b"1", {}, 10) == found
    assert posts.post("/a", b"2", {}, 10) == found
    serving.result(10)
    posts.close()


@pytest.mark.parametrize(
    "answer", [b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\nonly this", b"HTTP/1.1 2", b"SSH-2.0-else\r\n\r\n"]
)
def test_half_an_answer_or_none_is_an_error(server: Server, background: ThreadPoolExecutor, answer: bytes) -> None:
    serving = background.submit(server.serve, [answer])
    posts = Posts(server.url, {}, None)
    with pytest.raises((OSError, HTTPException)):
        posts.post("/a", b"1", {}, 10)
    serving.result(10)
    posts.close()
