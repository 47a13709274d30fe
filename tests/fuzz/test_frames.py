"""F14, of frames that are no frames: a node that says what no node would, to a real server, which must go on for all others.

Messages of every kind are sent, and in each something is another value, of another type or out of all bounds; and some are bytes
that mean nothing. What the node is given it tells about, too, so that its lies are about what the leader knows.
"""

import asyncio
import math
import os
import random
import time
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.e2e.cluster.harness import Home, home, wait_for
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from jarvis.bus.messages import (
    PROTOCOL_VERSION,
    AgentFrame,
    BlobGet,
    BlobPut,
    FromAgent,
    Heartbeat,
    Looked,
    OutputChunk,
    StreamData,
    StreamTaken,
    decode_from_server,
    encode,
)
from jarvis.core.attempt import Output, Usage
from jarvis.core.effects import Assign, Welcome
from jarvis.core.inputs import Ended, Hello, Known, Returned, Started
from jarvis.core.states import Cause

FRAMES = int(os.environ.get("JARVIS_FRAMES") or (100_000 if os.environ.get("JARVIS_SOAK") else 400))
DIGEST = "0" * 64
ODD: tuple[Any, ...] = (
    0, -1, 1, 1 << 31, (1 << 63) - 1, -(1 << 63), (1 << 64) - 1, 0.5, -1e300, math.inf, -math.inf, math.nan, "", "\0", "x" * 5000,
    "\u202e", "../..", b"", b"\0", b"x" * 5000, True, None, [], {}, [[]], {"": 0}, "running", "exit",
)  # fmt: skip
WAIT_S, HEAR_S = 0.5, 0.002
pytestmark = pytest.mark.timeout(300 + FRAMES / 20)


def messages(given: tuple[int, int, int]) -> list[FromAgent]:
    """One of each kind, about an assignment: (number, token, task)."""
    number, token, task = given
    usage, output = Usage(1.0, 0.5, 0.5, 1 << 20, 1, 1), Output(size=1, inline=b"x")
    return [
        Heartbeat(health={"cpu_ratio": 0.5, "load1": 1.0}, told=1, beat=1, unfit="hot"), Started(number, token, age=0.1),
        Ended(
            number, token, Cause.EXIT, exit_code=0, message="said", usage=usage, stdout=output, stderr=output, result=b"r",
            output=b"{}", age=0.1, drain="",
        ),
        Ended(number, token, Cause.SIGNAL, signal=9, result_digest=DIGEST, artifacts=DIGEST), Returned([number], "full"),
        OutputChunk(number, token, "stdout", 0, 1, b"x"), BlobGet(1, task, DIGEST), BlobPut(1, number, token, b"x"),
        Looked(1, {"/f": (1, 1)}, ["/f"], "mark"), StreamData(1, b"x", True, "", 0), StreamTaken(1, 1),
    ]  # fmt: skip


def hello(ordinal: int, given: tuple[int, int, int]) -> Hello:
    return Hello(
        version=PROTOCOL_VERSION, software="1", name="liar", node=None, boot_id="b", resources={"cpu": 4000, "memory": 1 << 30},
        labels={"zone": "a"}, known=[Known(given[0], given[1], "running")], ordinal=ordinal, booted_at=time.time(), oldest=1,
    )  # fmt: skip


def lied(chance: random.Random, value: Any) -> Any:
    """With one thing in it that is another."""
    if isinstance(value, dict | list) and value and chance.random() < 0.9:
        made = value.copy()
        at = chance.choice([*made] if isinstance(made, dict) else range(len(made)))
        made[at] = lied(chance, made[at])
        return made
    alike = [odd for odd in ODD if isinstance(odd, type(value))]
    return chance.choice(alike if alike and chance.random() < 0.9 else ODD)


def garbled(chance: random.Random, data: bytes) -> bytes:
    """Some bytes others, away, or more."""
    made = bytearray(data)
    for _ in range(chance.randint(1, 8)):
        at = chance.randrange(len(made) + 1)
        made[at : at + chance.randint(0, 3)] = chance.randbytes(chance.randint(0, 3))
    return bytes(made)


class Liar:
    """One node, session after session."""

    def __init__(self, made: Home, chance: random.Random) -> None:
        self._made, self._chance = made, chance
        self._given, self._welcomed = (1, 1, 1), False
        self.did: Counter[str] = Counter()

    async def lie(self, frames: int) -> None:
        token = (self._made.directory / "node.token").read_text().strip()
        url = self._made.server.url.replace("http", "ws", 1) + "/agent/v1/session"
        while self.did["frames"] < frames:
            async with connect(url, additional_headers={"Authorization": f"Bearer {token}"}) as link:
                try:
                    await self._session(link, frames)
                except ConnectionClosed:
                    self.did["ended"] += 1

    async def _session(self, link: ClientConnection, frames: int) -> None:
        chance, seq = self._chance, 1
        self.did["sessions"] += 1
        first: Any = hello(self.did["sessions"], self._given)
        if chance.random() < 0.2:
            first = self._mutated(first)
        await link.send(msgspec.msgpack.encode([1, 0, [first]]))
        self._welcomed = False
        while self.did["frames"] < frames:
            await self._hear(link)
            seq += 1
            said = [chance.choice(messages(self._given)) for _ in range(chance.randint(1, 3))]
            data = encode(AgentFrame(seq, 0, said))
            kind = chance.choices(("lies", "garbled", "true"), (6, 1, 3))[0]
            if kind == "lies":
                data = msgspec.msgpack.encode([seq, 0, [*map(self._mutated, said)]])
            elif kind == "garbled":
                data = garbled(chance, data)
            self.did[kind] += 1
            self.did["frames"] += 1
            await link.send(data)

    def _mutated(self, message: Any) -> Any:
        return lied(self._chance, msgspec.msgpack.decode(msgspec.msgpack.encode(message)))

    async def _hear(self, link: ClientConnection) -> None:
        """What came, if anything did."""
        heard = self._welcomed
        try:
            async with asyncio.timeout(HEAR_S if heard else WAIT_S):
                while True:
                    data = await link.recv()
                    assert isinstance(data, bytes)
                    for message in decode_from_server(data).messages:
                        self._note(message)
                    if self._welcomed and not heard:
                        return
        except TimeoutError:
            return

    def _note(self, message: Any) -> None:
        if isinstance(message, Welcome):
            self._welcomed = True
            self.did["welcomed"] += 1
        elif isinstance(message, Assign):
            one = message.assignments[-1]
            self._given = one.number, one.token, one.task
            self.did["assigned"] += 1


async def test_a_node_may_say_what_it_likes(tmp_path: Path) -> None:
    seed = random.randrange(1 << 32)
    with home() as made:
        await asyncio.to_thread(made.jarvis, "up", "--cpus", "1", "--node-name", "near")
        with made.client() as client:
            many = client.submit(
                command=["sleep", "1"], array="0-99999", retry={"max_attempts": 3}, resources={"cpu": 0.5}
            )
            liar = Liar(made, random.Random(seed))
            try:
                async with asyncio.timeout(60 + FRAMES / 30):
                    await liar.lie(FRAMES)
            except TimeoutError:
                pytest.fail(f"seed={seed}: the server does not go on: {made.logs()}")
            told = " ".join(f"{what}={count}" for what, count in sorted(liar.did.items()))
            print(f"\nF14 lies seed={seed} {told}")  # noqa: T201 - the figure is the point
            log = (made.directory / "server.log").read_text()
            assert "Traceback" not in log, f"seed={seed}: {log[-4000:]}"
            many.cancel()
            liars = [node["id"] for node in client.connection.get("/nodes")["items"] if node["name"] != "near"]
            for node in liars:
                client.connection.post(f"/nodes/{node}/cordon")
            task = client.submit(command=["true"])
            await asyncio.to_thread(wait_for, lambda: client.show(task.id)["state"] == "succeeded", f"seed={seed}")
            health = client.connection.root("/health")
            assert health["checks"]["scheduler_queue"]["status"] == "ok", f"seed={seed}: {health}"
