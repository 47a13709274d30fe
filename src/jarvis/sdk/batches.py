"""Many tasks at once: in requests of as many as the server takes, a few of them under way at a time.

While one is written to disk the next is read there, and the one after that is made here.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain, islice
from typing import Any

from jarvis.sdk.connection import Connection, as_json

Spec = dict[str, Any]
Answer = dict[str, Any]
MOST = 10_000
"""Tasks that the server takes in a request."""
BATCH = 2_000
"""Tasks of a request where it takes several."""
AT_ONCE = 8
"""Some are made or on their way while one is read there and those before it are written to disk together."""


def submit(
    connection: Connection,
    specs: Iterable[Spec],
    *,
    batch: int | None = None,
    at_once: int = AT_ONCE,
    key: str | None = None,
) -> list[Answer]:
    """One answer per spec, in order. The first failure is raised when what is under way has been answered, and nothing is sent
    after it. Raises ValueError for a ``batch`` that no server takes."""
    if not 0 < (BATCH if batch is None else batch) <= MOST or at_once < 1:
        raise ValueError(f"batch is 1 to {MOST:,} and at_once at least 1, not {batch} and {at_once}")
    source = iter(specs)
    first = list(islice(source, batch or MOST))
    second = list(islice(source, 1))
    if not second:
        return _post(connection, first, key)
    answers: list[Answer] = []
    under_way: deque[Future[list[Answer]]] = deque()
    with ThreadPoolExecutor(at_once, "jarvis-batch") as pool:
        for number, piece in enumerate(_pieces(chain(first, second, source), batch or BATCH)):
            if len(under_way) >= at_once:
                answers += under_way.popleft().result()
            under_way.append(pool.submit(_post, connection, piece, key and f"{key}-{number}"))
        while under_way:
            answers += under_way.popleft().result()
    return answers


def _pieces(specs: Iterator[Spec], batch: int) -> Iterator[list[Spec]]:
    while piece := list(islice(specs, batch)):
        yield piece


def _post(connection: Connection, specs: list[Spec], key: str | None) -> list[Answer]:
    import msgspec  # the command line has no use for it until it submits

    body = as_json({"tasks": specs})
    answer = connection.post_bytes("/tasks/batch", body, idempotent=True, kind="application/json", key=key)
    return list(msgspec.json.decode(answer)["results"])
