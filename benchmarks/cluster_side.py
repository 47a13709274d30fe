"""Row S10: what ``jarvis_side`` does, in the cluster profile: ``python -m benchmarks.cluster_side MODE COUNT WORKERS DIRECTORY``.

One server, with a PostgreSQL that syncs and a Redis of its own on the same machine. The processor time told is without that of
PostgreSQL, which writes over the environment by which the processes of a run are known.
"""

from __future__ import annotations

import os
from contextlib import ExitStack

from benchmarks.jarvis_side import MODES
from benchmarks.peers.protocol import arguments, tell
from tests.servers.postgres import PostgresServer
from tests.servers.redis import RedisServer

import jarvis


def main() -> None:
    mode, count, workers, directory = arguments()
    with ExitStack() as stack:
        postgres, redis = PostgresServer(sync=True), RedisServer()
        stack.callback(postgres.remove)
        stack.callback(redis.remove)
        postgres.create()
        redis.start()
        os.environ |= {
            "JARVIS_WORKER__CPUS": str(workers), "JARVIS_STORE__KIND": "postgres", "JARVIS_STORE__URL": postgres.database(),
            "JARVIS_BUS__REDIS_URL": redis.url,
        }  # fmt: skip
        tell(MODES[mode](stack.enter_context(jarvis.local(directory)), count))


if __name__ == "__main__":
    main()
