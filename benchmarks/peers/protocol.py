"""What each peer's script speaks: ``SCRIPT MODE COUNT WORKERS DIRECTORY``, one line of JSON at the end.

A script runs in its peer's own environment, so this file and ``measure`` use the standard library alone. Modes:
``functions`` (COUNT no-ops, submitted until the last result is here), ``one`` (COUNT no-ops one after another, milliseconds of
each), ``processes`` (COUNT times ``true``).
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from benchmarks.measure import MARK, cpu_seconds, members

if TYPE_CHECKING:
    from collections.abc import Callable

WARM_UP = 200


def timed(run: Callable[[], Any], count: int) -> dict[str, float]:
    """Rate and processor time for each of ``count``."""
    mark = os.environ[MARK]
    before, begin = cpu_seconds(members(mark)), time.perf_counter()
    run()
    seconds = time.perf_counter() - begin
    used = cpu_seconds(members(mark)) - before
    return {"seconds": seconds, "rate": count / seconds, "cpu_us": used / count * 1e6}


def each(run: Callable[[int], Any], count: int) -> dict[str, Any]:
    """Milliseconds of each call."""
    times = []
    for number in range(count):
        begin = time.perf_counter()
        run(number)
        times.append((time.perf_counter() - begin) * 1000)
    return {"times_ms": times}


def arguments() -> tuple[str, int, int, Path]:
    mode, count, workers, directory = sys.argv[1:5]
    return mode, int(count), int(workers), Path(directory)


def tell(found: dict[str, Any]) -> None:
    """The last line is the answer."""
    print(json.dumps(found), flush=True)
