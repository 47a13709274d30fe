"""Orders that follow each other are given together, and mean the same."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jarvis.worker.supervisor.protocol import FRAME_LIMIT, FrameReader, each_start, pack
from jarvis.worker.supervisor_client import STARTS_MOST, STARTS_VERSION, SupervisorClient, frames

text = st.text(max_size=3)
environments = st.dictionaries(st.sampled_from("ABC"), text, max_size=3)
starts = st.fixed_dictionaries(
    {"op": st.just("start"), "number": st.integers(0, 9), "env": environments},
    optional={"stdout": text, "slot": st.none() | st.integers(0, 1), "argv": st.lists(text, max_size=2)},
)
others = st.fixed_dictionaries(
    {"op": st.sampled_from(["ack", "recall"]), "numbers": st.lists(st.integers(0, 9), max_size=2)}
)


def received(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return list(FrameReader(b"".join(frames(messages))))


def singly(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [one for m in messages for one in (each_start(m) if m["op"] == "starts" else [m])]


@given(st.lists(starts | others, min_size=1, max_size=8))
def test_the_same_is_said_in_the_same_order(messages: list[dict[str, Any]]) -> None:
    assert singly(received(messages)) == messages


def order(number: int, **more: Any) -> dict[str, Any]:
    return {"op": "start", "number": number, "argv": ["it"], "env": {"HOME": "/", "INDEX": str(number)}, **more}


def test_what_orders_have_in_common_is_said_once() -> None:
    first, *rest = received([order(n) for n in range(STARTS_MOST + 2)])
    assert first["common"] == order(0)
    assert first["each"][:2] == [{}, {"number": 1, "env": {"INDEX": "1"}}]
    assert [len(message["each"]) for message in (first, *rest)] == [STARTS_MOST, 2]


def test_one_alone_is_a_start() -> None:
    assert received([order(1), {"op": "ack", "numbers": [0]}, order(2)]) == [
        order(1), {"op": "ack", "numbers": [0]}, order(2),
    ]  # fmt: skip


def test_what_is_too_long_together_goes_singly() -> None:
    long = [order(n, argv=[str(n) * (FRAME_LIMIT // 3)]) for n in range(4)]
    assert received(long) == long


def test_bytes_that_are_no_text_come_through() -> None:
    odd = [order(n, argv=["it", f"{n}\udcff"]) for n in range(2)]
    assert singly(received(odd)) == odd


@pytest.mark.parametrize(("version", "ops"), [(STARTS_VERSION - 1, ["start", "start"]), (STARTS_VERSION, ["starts"])])
async def test_a_supervisor_of_before_is_told_singly(tmp_path: Path, version: int, ops: list[str]) -> None:
    heard = FrameReader()
    said = asyncio.Queue[str]()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            heard.feed(data)
            for message in heard:
                said.put_nowait(message["op"])
                if message["op"] == "hello":
                    writer.write(pack({"op": "welcome", "version": version, "attempts": [], "more": False}))
        writer.close()

    async with await asyncio.start_unix_server(serve, tmp_path / "supervisor.sock"):
        client = SupervisorClient(tmp_path / "supervisor.sock")
        await client.connect()
        client.send(order(1))
        client.send(order(2))
        async with asyncio.timeout(10):
            assert [await said.get() for _ in range(1 + len(ops))] == ["hello", *ops]
        client._writer.close()
        await client._writer.wait_closed()
