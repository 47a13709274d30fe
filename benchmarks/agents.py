"""S8: ``python -m benchmarks.agents COUNT SECONDS``: many agents in one process, each with a socket and an id of its own.

What their heartbeats cost the server, of a core, and how soon all are back after it was killed and started again. The protocol is
the real one; the tasks that they run beside are in tests/chaos/test_swarm.py.
"""

import json
import sys
import time

from benchmarks.queued import processor_s
from tests.chaos.pool import Pool
from tests.e2e.cluster.harness import Home, home, wait_for

PATIENCE_S = 120


def _share(made: Home, seconds: float) -> float:
    """Of a core, in which the server is at work."""
    before = processor_s(made.server.pid)
    time.sleep(seconds)
    return (processor_s(made.server.pid) - before) / seconds


def measure(count: int, seconds: float) -> dict[str, float]:
    with home() as made:
        made.jarvis("up", "--cpus", "1")
        idle = _share(made, seconds)
        agents = Pool([made.directory], count)
        try:
            agents.until(count, PATIENCE_S)
            share = _share(made, seconds) - idle
            made.kill_server()
            wait_for(lambda: agents.figures["connected"] == 0, "all are cut off")
            begun = time.monotonic()
            made.jarvis("up", *made.up_with)
            agents.until(count, PATIENCE_S)
            return {"agents": count, "share": share, "back_s": time.monotonic() - begun}
        finally:
            agents.end()


if __name__ == "__main__":
    sys.stdout.write(json.dumps(measure(int(sys.argv[1]), float(sys.argv[2]))) + "\n")
