"""Ray: tasks on a local cluster without its dashboard."""

from __future__ import annotations

import subprocess

import ray
from protocol import WARM_UP, arguments, each, tell, timed

mode, count, workers, _ = arguments()
ray.init(num_cpus=workers, include_dashboard=False, log_to_driver=False, logging_level="ERROR")


@ray.remote(num_cpus=1)
def nothing(number: int) -> None:
    """No work."""


@ray.remote(num_cpus=1)
def process(number: int) -> int:
    return subprocess.run(["true"], check=False).returncode


ray.get([nothing.remote(i) for i in range(WARM_UP)])
if mode == "one":
    tell(each(lambda i: ray.get(nothing.remote(i)), count))
else:
    work = process if mode == "processes" else nothing
    tell(timed(lambda: ray.get([work.remote(i) for i in range(count)]), count))
