"""How near the supervisor comes to bare `posix_spawn`: `true` with a session and an output file, alternating.

    python benchmarks/spawn.py [TASKS [ROUNDS [WIDTH]]] [--memory] [--shm]

`WIDTH` run at once on either side. Prints each round and the ratio of the sums. Folders are fresh and nothing is
deleted before the end, because deleting many files makes creating files slow on some file systems. `--memory` gives
each task a control group.
"""

from __future__ import annotations

import argparse
import json
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from peers.run_spawn import ENV, bare

MAIN = Path(__file__).parents[1] / "src/jarvis/worker/supervisor/__main__.py"


class Agent:
    """Keeps `width` lanes filled ahead and acknowledges what ends, in batches as it comes."""

    def __init__(self, path: Path) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(str(path))
        self.data = bytearray()
        self.send([{"op": "hello", "version": 1}])
        while not self.receive():
            pass

    def send(self, messages: list[dict[str, object]]) -> None:
        frames = bytearray()
        for message in messages:
            body = json.dumps(message).encode()
            frames += struct.pack(">I", len(body)) + body
        self.sock.sendall(frames)

    def receive(self) -> list[dict[str, object]]:
        self.data += self.sock.recv(1 << 18)
        found = []
        while len(self.data) >= 4 and len(self.data) >= 4 + (size := struct.unpack_from(">I", self.data)[0]):
            found.append(json.loads(self.data[4 : 4 + size]))
            del self.data[: 4 + size]
        return found


def supervised(agent: Agent, folder: Path, first: int, tasks: int, *, width: int, memory: int | None) -> float:
    """Tasks a second through the supervisor, from the first start sent to the last end received."""
    fields = {"op": "start", "tag": "", "argv": ["true"], "cwd": "/", "env": ENV, "memory_bytes": memory}
    fields["output_limit"] = 1 << 30
    orders: list[dict[str, object]] = [
        {**fields, "number": first + n, "slot": n % width, "stdout": f"{folder}/{n}"} for n in range(tasks)
    ]
    began = time.monotonic()
    ahead, ended = min(tasks, 512), 0
    agent.send(orders[:ahead])
    while ended < tasks:
        numbers = [message["number"] for message in agent.receive() if message["op"] == "ended"]
        ended += len(numbers)
        more = orders[ahead : ahead + len(numbers)]
        ahead += len(more)
        if numbers:
            agent.send([*more, {"op": "ack", "numbers": numbers, "floor": first + ended - 1024}])
    return tasks / (time.monotonic() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tasks", nargs="?", type=int, default=5000)
    parser.add_argument("rounds", nargs="?", type=int, default=3)
    parser.add_argument("width", nargs="?", type=int, default=2)
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--shm", action="store_true", help="output files in memory")
    options = parser.parse_args()
    root = Path(tempfile.mkdtemp(prefix="spawn-", dir="/dev/shm" if options.shm else None))
    state = root / "state"
    process = subprocess.Popen([sys.executable, "-I", "-S", str(MAIN), "--dir", str(state)])
    while not (state / "supervisor.sock").exists():
        time.sleep(0.01)
    agent = Agent(state / "supervisor.sock")
    rates: tuple[list[float], list[float]] = ([], [])
    for turn in range(options.rounds):
        folders = root / f"bare{turn}", root / f"supervised{turn}"
        for folder in folders:
            folder.mkdir()
        rates[0].append(bare(folders[0], options.tasks, options.width))
        memory = 256 << 20 if options.memory else None
        rates[1].append(
            supervised(agent, folders[1], turn * options.tasks, options.tasks, width=options.width, memory=memory)
        )
        print(f"round {turn + 1}: bare {rates[0][-1]:.0f}/s, supervised {rates[1][-1]:.0f}/s", flush=True)
    status = Path(f"/proc/{process.pid}/status").read_text()
    rss = next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS"))
    ratio = sum(1 / rate for rate in rates[0]) / sum(1 / rate for rate in rates[1])
    print(f"ratio {ratio:.2f}; supervisor RSS {int(rss) // 1024} MiB")
    process.terminate()
    process.wait()
    shutil.rmtree(root)


if __name__ == "__main__":
    main()
