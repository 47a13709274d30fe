"""Many tasks at once: in requests of as many as the server takes, a few of them under way at a time.

While one is written to disk the next is read there, and the one after that is made here.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import count, islice
from typing import Any

from jarvis.sdk.connection import Connection, as_json

Spec = dict[str, Any]
Answer = dict[str, Any]
MOST = 10_000
"""Tasks of a request, as the server takes them."""
AT_ONCE = 4
"""One that is made, one that is read, one that is written, and one that waits for whichever is over first."""


def submit(
    connection: Connection, specs: Iterable[Spec], *, batch: int = MOST, at_once: int = AT_ONCE, key: str | None = None
) -> list[Answer]:
    """One answer per spec, in order. The first failure is raised when what is under way has been answered; nothing is sent after
    it."""
    if not 0 < batch <= MOST or at_once < 1:
        raise ValueError(f"batch is 1 to {MOST:,} and at_once at least 1, not {batch} and {at_once}")
    pieces = zip(_pieces(specs, batch), (f"{key}-{n}" if key and n else key for n in count()))
    first, second = next(pieces, ([], key)), next(pieces, None)
    if second is None:
        return _post(connection, *first)
    answers: list[Answer] = []
    under_way: deque[Future[list[Answer]]] = deque()
    with ThreadPoolExecutor(at_once, "jarvis-batch") as pool:
        under_way += (pool.submit(_post, connection, *piece) for piece in (first, second))
        for piece in pieces:
            while len(under_way) >= at_once:
                answers += under_way.popleft().result()
            under_way.append(pool.submit(_post, connection, *piece))
        while under_way:
            answers += under_way.popleft().result()
    return answers


def _pieces(specs: Iterable[Spec], batch: int) -> Iterator[list[Spec]]:
    source = iter(specs)
    while piece := list(islice(source, batch)):
        yield piece


def _post(connection: Connection, specs: list[Spec], key: str | None) -> list[Answer]:
    import msgspec  # the command line has no use for it until it submits

    body = as_json({"tasks": specs})
    answer = connection.post_bytes("/tasks/batch", body, idempotent=True, kind="application/json", key=key)
    return list(msgspec.json.decode(answer)["results"])
