"""DBOS: durable workflows in PostgreSQL, in the process of their client, as its guide starts them."""

from __future__ import annotations

import os
import subprocess

from dbos import DBOS
from protocol import WARM_UP, arguments, each, tell, timed

mode, count, workers, _ = arguments()
DBOS(config={"name": "bench", "system_database_url": os.environ["BENCH_POSTGRES"], "log_level": "ERROR"})


@DBOS.workflow()
def nothing(number: int) -> None:
    """No work."""


@DBOS.workflow()
def process(number: int) -> int:
    return subprocess.run(["true"], check=False).returncode


DBOS.launch()
queue = DBOS.register_queue("bench", polling_interval_sec=0.1)
work = process if mode == "processes" else nothing


def run(many: int) -> None:
    for handle in [queue.enqueue(work, i) for i in range(many)]:
        handle.get_result()


run(WARM_UP // 4)
if mode == "one":
    tell(each(lambda i: DBOS.start_workflow(nothing, i).get_result(), count))
else:
    tell(timed(lambda: run(count), count))
DBOS.destroy()
