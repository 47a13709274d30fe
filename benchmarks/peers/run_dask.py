"""Dask.distributed: a local cluster of processes with one thread each."""

from __future__ import annotations

import subprocess

from distributed import Client, LocalCluster
from protocol import WARM_UP, arguments, each, tell, timed


def nothing(number: int) -> None:
    """No work."""


def process(number: int) -> int:
    return subprocess.run(["true"], check=False).returncode


def main() -> None:
    mode, count, workers, _ = arguments()
    with (
        LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=None, silence_logs=50) as cluster,
        Client(cluster) as client,
    ):
        client.gather(client.map(nothing, range(WARM_UP), pure=False))
        if mode == "one":
            tell(each(lambda i: client.submit(nothing, i, pure=False).result(), count))
        else:
            work = process if mode == "processes" else nothing
            tell(timed(lambda: client.gather(client.map(work, range(count), pure=False)), count))


if __name__ == "__main__":
    main()
