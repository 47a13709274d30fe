"""Celery with Redis as broker and result backend; prefork workers that prefetch, as its guide to optimising advises for
many short tasks."""

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
    from celery import group
    from celery_tasks import app, nothing, process

    command = [sys.executable, "-m", "celery", "-A", "celery_tasks", "worker", "-P", "prefork", "-c", str(workers)]
    command += ["--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel", "ERROR"]
    worker = subprocess.Popen(command, cwd=Path(__file__).parent, stdout=sys.stderr, stderr=sys.stderr)
    try:

        def run(many: int) -> None:
            group(work.s(i) for i in range(many))().get(timeout=600, disable_sync_subtasks=False)

        work = process if mode == "processes" else nothing
        run(WARM_UP)
        if mode == "one":
            tell(each(lambda i: nothing.delay(i).get(timeout=60), count))
        else:
            tell(timed(lambda: run(count), count))
    finally:
        app.close()
        worker.terminate()
        worker.wait(30)
