"""dramatiq with Redis as broker and result backend, its default of 8 threads in each process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from protocol import WARM_UP, arguments, each, tell, timed
from redis_server import redis

mode, count, workers, directory = arguments()
with redis(directory) as url:
    os.environ["BENCH_REDIS"] = url
    import dramatiq
    from dramatiq_tasks import nothing, process

    command = [sys.executable, "-m", "dramatiq", "dramatiq_tasks", "-p", str(workers)]
    worker = subprocess.Popen(command, cwd=Path(__file__).parent, stdout=sys.stderr, stderr=sys.stderr)
    try:

        def run(many: int) -> None:
            list(dramatiq.group(work.message(i) for i in range(many)).run().get_results(block=True, timeout=600_000))

        work = process if mode == "processes" else nothing
        run(WARM_UP)
        if mode == "one":
            tell(each(lambda i: nothing.send(i).get_result(block=True, timeout=60_000), count))
        else:
            tell(timed(lambda: run(count), count))
    finally:
        worker.terminate()
        worker.wait(30)
