"""The tasks that Celery's workers import."""

from __future__ import annotations

import os
import subprocess

from celery import Celery

app = Celery("bench", broker=os.environ["BENCH_REDIS"], backend=os.environ["BENCH_REDIS"])
app.conf.update(worker_prefetch_multiplier=64, task_acks_late=False, result_expires=3600)


@app.task
def nothing(number: int) -> None:
    """No work."""


@app.task
def process(number: int) -> int:
    return subprocess.run(["true"], check=False).returncode
