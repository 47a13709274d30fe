"""The faults do what they say: a fault test whose fault does not act proves nothing."""

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from random import Random

import pytest
from tests.chaos.hosts import NAMESPACES, Host, hosts, needs_hosts, sweep
from tests.chaos.proxy import Proxy

ECHO = """
import socket, sys
s = socket.create_server((sys.argv[1], 7000))
while True:
    c, _ = s.accept()
    c.sendall(c.recv(100)); c.close()
"""
ASK = """
import socket, sys
c = socket.create_connection((sys.argv[1], 7000), timeout=float(sys.argv[2]))
c.sendall(b"hello"); print(c.recv(100).decode())
"""


def asks(asker: Host, target: Host, patience: float = 0.7) -> bool:
    command = asker.argv(sys.executable, "-c", ASK, target.address, str(patience))
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() == "hello"


@pytest.fixture
def three() -> Iterator[list[Host]]:
    """Three hosts; an echo server on the first."""
    needs_hosts()
    with hosts("a", "b", "c") as made:
        server = subprocess.Popen(made[0].argv(sys.executable, "-c", ECHO, made[0].address))
        try:
            while not asks(made[0], made[0]):
                assert server.poll() is None
            yield made
        finally:
            server.kill()
            server.wait()


@pytest.mark.root
@pytest.mark.timeout(120)
def test_hosts_reach_each_other_until_they_are_cut(three: list[Host]) -> None:
    a, b, c = three
    assert asks(b, a)
    assert asks(c, a)
    a.cut(other=b)
    assert not asks(b, a)
    assert asks(c, a), "only those two are cut"
    a.heal()
    for way in ("in", "out"):
        a.cut(way)
        assert not asks(b, a), f"one way is enough: {way}"
        assert asks(a, a), "a host reaches itself"
        a.heal()
    a.lose(1.0)
    assert not asks(b, a)
    a.heal()
    assert asks(b, a)


@pytest.mark.root
@pytest.mark.timeout(120)
def test_nothing_is_left_of_a_host() -> None:
    needs_hosts()
    with hosts("x") as (host,):
        left = subprocess.Popen(host.argv("sleep", "1000"))
        while not host.pids():
            assert left.poll() is None
    assert left.wait(10) == -9
    listed = subprocess.run(["ip", "netns"], capture_output=True, text=True, check=True).stdout
    assert host.namespace not in listed


@pytest.mark.root
@pytest.mark.timeout(120)
def test_hosts_of_a_run_that_was_cut_off_are_ended_by_the_next() -> None:
    needs_hosts()
    cut_off = "from tests.chaos.hosts import hosts\nwith hosts('x') as made:\n  print(made[0].namespace, flush=True)\n  input()"
    command = [sys.executable, "-c", cut_off]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        namespace = run.stdout.readline().strip()
        left = subprocess.Popen(Host(namespace, "").argv("sleep", "1000"))
        while not Host(namespace, "").pids():
            assert left.poll() is None
        sweep()
        assert Host(namespace, "").pids(), "it is somebody's who lives"
        run.kill()
    sweep()
    assert left.wait(10) == -9
    assert not (NAMESPACES / namespace).exists()
    assert not (NAMESPACES / namespace.replace("-x", "-switch")).exists()


@contextlib.asynccontextmanager
async def echo() -> AsyncIterator[Proxy]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(100_000):
                writer.write(data)
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    proxy = Proxy(server.sockets[0].getsockname()[:2], Random(1))
    await proxy.start()
    yield proxy
    await proxy.stop()
    server.close()


async def ask(proxy: Proxy, data: bytes = b"hello") -> float:
    """Seconds until it has come back."""
    begun = asyncio.get_running_loop().time()
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    try:
        writer.write(data)
        assert await reader.readexactly(len(data)) == data
    finally:
        writer.close()
    return asyncio.get_running_loop().time() - begun


async def test_a_proxy_passes_on_slows_narrows_and_sticks() -> None:
    async with echo() as proxy:
        await ask(proxy, b"x" * 300_000)
        proxy.delay_s = 0.1
        assert await ask(proxy) >= 0.1
        proxy.delay_s, proxy.bytes_per_s = 0.0, 100_000.0
        assert await ask(proxy, b"x" * 30_000) >= 0.3
        proxy.bytes_per_s, proxy.stuck = None, True
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(ask(proxy), 0.3)
        proxy.stuck = False
        await ask(proxy)


async def test_a_proxy_resets_at_a_random_byte() -> None:
    async with echo() as proxy:
        proxy.reset_after = 1000
        for _ in range(20):
            with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
                await ask(proxy, b"x" * 2000)
        assert proxy.resets == 20
