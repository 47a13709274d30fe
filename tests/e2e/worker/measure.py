"""CPU of agent and warm processes for each of many no-op calls: ``python -m tests.e2e.worker.measure [calls]``."""

import asyncio
import os
import sys
import tempfile
import time
from pathlib import Path

import msgspec
from tests.e2e.worker.harness import PYTHON, FakeServer, Node, call, living, running


def cpu_ns(pid: int) -> int:
    """CPU time of all threads, as the scheduler counts it."""
    total = 0
    for path in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        total += int(path.read_text().split()[0])
    return total


def warm_pids(node: Node) -> list[int]:
    found = []
    for pid in living():
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            continue
        if b"function_worker" in command and os.fsencode(str(node.state)) in command:
            found.append(pid)
    return found


async def measure(server: FakeServer, node: Node, count: int, base: int) -> None:
    function = lambda: None  # noqa: E731 - pickled by value
    one = call(server, base, function)
    work = [msgspec.structs.replace(one, number=base + n, task=base + n) for n in range(count)]
    (agent,) = node.agent_pids()
    before = {pid: cpu_ns(pid) for pid in [agent, *warm_pids(node)]}
    began = time.perf_counter()
    for at in range(0, count, 512):
        await server.assign(*work[at : at + 512])
    await server.until(lambda: len(server.ends) >= count, "all end")
    seconds = time.perf_counter() - began
    used = {pid: (cpu_ns(pid) - cpu) / 1000 / count for pid, cpu in before.items()}
    others = sum(cost for pid, cost in used.items() if pid != agent)
    print(  # noqa: T201
        f"{count} calls: {count / seconds:,.0f}/s; agent {used[agent]:.1f} us, processes {others:.1f} us a call ({PYTHON})"
    )
    server.ends.clear()


async def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    with tempfile.TemporaryDirectory() as folder:
        async with running(Path(folder), "--cpus", "2", "--memory", "2G", "--allow-root") as (server, node):
            await measure(server, node, 200, 1)
            for turn in range(1, 4):
                await measure(server, node, count, turn * 1_000_000)


if __name__ == "__main__":
    asyncio.run(main())
