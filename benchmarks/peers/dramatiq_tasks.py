"""The tasks that dramatiq's workers import."""

from __future__ import annotations

import os
import subprocess

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend

broker = RedisBroker(url=os.environ["BENCH_REDIS"])
broker.add_middleware(Results(backend=RedisBackend(url=os.environ["BENCH_REDIS"])))
dramatiq.set_broker(broker)


@dramatiq.actor(store_results=True)
def nothing(number: int) -> int:
    return number


@dramatiq.actor(store_results=True)
def process(number: int) -> int:
    return subprocess.run(["true"], check=False).returncode
