"""F14: a node whose frames come twice, in another order, late, cut into pieces, mixed with those of long ago, or not at all.

The node's way to its server leads through a proxy that does so; nothing that was acknowledged may be lost or run twice.
"""

import asyncio
import contextlib
import json
import os
import random
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from tests.chaos.frames import FrameProxy
from tests.chaos.load import Load, ends
from tests.e2e.cluster.harness import Home, home

from jarvis.worker import supervisor

SOAK = bool(os.environ.get("JARVIS_SOAK"))
FRAMES = int(os.environ.get("JARVIS_FRAMES") or (100_000 if SOAK else 150))
"""Faults go on until so many have passed the proxy."""
SILENCE_S = 8.0
"""Longer than either end waits for the other."""
LOST_S = 70
"""Longer than all of it together keeps a node silent: what runs on one that is lost may run again, and nothing else may."""
SUPERVISOR = Path(supervisor.__file__).parent / "__main__.py"
pytestmark = pytest.mark.timeout(180 + FRAMES / 10)


@contextlib.asynccontextmanager
async def node(made: Home, proxy: FrameProxy, directory: Path) -> AsyncIterator[None]:
    """A node of eight processors behind the proxy."""
    state = directory / "node"
    state.mkdir(mode=0o711)
    agent = [sys.executable, "-m", "jarvis.worker.agent", "--dir", str(state), "--name", "far", "--cpus", "8"]
    agent += ["--url", f"http://127.0.0.1:{proxy.port}", "--token-file", str(made.directory / "node.token")]
    with (directory / "supervisor.log").open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-I", "-S", str(SUPERVISOR), "--dir", str(state), "--agent", json.dumps([*agent, "--allow-root"]),
            stdout=log, stderr=log, env=made.env,
        )  # fmt: skip
    try:
        yield
        assert "Traceback" not in (state / "agent.log").read_text()
    finally:
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGTERM)
        await process.wait()


def spoil(proxy: FrameProxy, rng: random.Random) -> None:
    """Some faults at a time, others the next time."""
    on = {name: rng.random() < 0.5 for name in ("twice", "swap", "replay", "late", "cut", "slow", "reset")}
    proxy.twice_share, proxy.swap_share = 0.3 * on["twice"], 0.02 * on["swap"]
    proxy.replay_share, proxy.late_share = 0.3 * on["replay"], 0.01 * on["late"]
    proxy.late_s = rng.choice((0.5, SILENCE_S)) if SOAK else 0.5
    proxy.cut_small, proxy.delay_s = on["cut"], 0.05 * on["slow"]
    proxy.reset_after = 30_000 if on["reset"] else None


def heal(proxy: FrameProxy) -> None:
    proxy.twice_share = proxy.swap_share = proxy.replay_share = proxy.late_share = proxy.delay_s = 0.0
    proxy.cut_small, proxy.reset_after = False, None


async def test_frames_are_not_to_be_trusted(tmp_path: Path) -> None:
    seed = random.randrange(1 << 32)
    rng, short = random.Random(seed), tmp_path / "short"
    with home() as made:
        made.env["JARVIS_SCHEDULER__LOST_S"] = str(LOST_S)
        await asyncio.to_thread(made.jarvis, "up", "--node-name", "near")
        with made.client() as client:
            near = client.connection.get("/nodes")["items"][0]["id"]
            client.connection.post(f"/nodes/{near}/cordon")
        url = urlsplit(made.server.url)
        proxy = FrameProxy((url.hostname or "", url.port or 0), rng)
        await proxy.start()
        async with node(made, proxy, tmp_path):
            load = Load([made], short, clients=4, behind_most=200)
            cycles = 0
            try:
                while proxy.acted["frames"] < FRAMES or cycles < 4:
                    spoil(proxy, rng)
                    cycles += 1
                    await asyncio.sleep(rng.uniform(0.5, 1.5))
            finally:
                heal(proxy)
                await proxy.cut()
                await asyncio.to_thread(load.stop)
            with made.client() as client:
                told = await asyncio.to_thread(ends, client, load.acknowledged)
        await proxy.stop()
    ran = Counter(map(int, short.read_text().split()))
    lost, doubled = [i for i in load.acknowledged if i not in ran], [i for i, n in ran.items() if n > 1]
    acted = " ".join(f"{what}={count}" for what, count in sorted(proxy.acted.items()))
    print(  # noqa: T201 - the figure is the point
        f"\nF14 seed={seed} cycles={cycles} {acted} connections={proxy.connections} resets={proxy.resets} "
        f"acknowledged={len(load.acknowledged)} lost={len(lost)} doubled={len(doubled)}"
    )
    assert (lost, doubled) == ([], [])
    assert set(told.values()) == {"succeeded"}


async def test_each_fault_acts() -> None:
    """A fault test whose fault does not act proves nothing."""
    rng = random.Random(1)
    got: list[bytes] = []
    arrived = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readuntil(b"\r\n\r\n"))
        while data := await reader.read(1000):
            got.append(data)
            arrived.set()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    proxy = FrameProxy(server.sockets[0].getsockname()[:2], rng)
    await proxy.start()
    proxy.twice_share = proxy.replay_share = 1.0
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    writer.write(b"GET / HTTP/1.1\r\n\r\n")
    assert await reader.readuntil(b"\r\n\r\n")
    for seq in (1, 2):
        message = b"\x93" + bytes([seq]) + b"\x00\x91\x81\xa1t\xa4beat"
        writer.write(b"\x82" + bytes([0x80 | len(message)]) + b"\0\0\0\0" + message)
    async with asyncio.timeout(10):
        while b"".join(got).count(b"beat") < 2 * 1 + 2 * 2:
            arrived.clear()
            await arrived.wait()
    writer.close()
    await proxy.stop()
    server.close()
    assert proxy.acted == Counter(frames=2, doubled=2, replayed=1, swapped=0, late=0)
