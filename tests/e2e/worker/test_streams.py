"""Tails, standard input, terminals and exec through the session."""

from pathlib import Path

from tests.e2e.worker.harness import call, running, shell

from jarvis.bus.messages import StreamData, StreamOpen

OPTIONS = ("--cpus", "2", "--memory", "2G", "--allow-root")


async def test_a_tail_follows_to_the_very_end(tmp_path: Path) -> None:
    async with running(tmp_path, *OPTIONS) as (server, _):
        gate = tmp_path / "gate"
        await server.assign(shell(1, f"echo one; while ! [ -e {gate} ]; do sleep 0.02; done; echo two"))
        await server.until(lambda: server.started, "it runs")
        await server.send(
            StreamOpen(stream=1, number=1, kind="tail", follow=True), StreamOpen(stream=2, number=99, kind="tail")
        )
        await server.until(lambda: server.streams.get(1) == b"one\n", "the first line")
        gate.touch()
        await server.until(lambda: 1 in server.closed, "the tail ends")
        assert server.streams[1] == b"one\ntwo\n"
        assert server.closed[2] == ""


async def test_the_tail_of_a_call(tmp_path: Path) -> None:
    def says(text: str, gate: str) -> None:
        import sys
        import time

        sys.stdout.write(text + "\n")
        sys.stdout.flush()
        while not Path(gate).exists():
            time.sleep(0.01)

    async with running(tmp_path, *OPTIONS) as (server, _):
        gate = tmp_path / "gate"
        one = {"cpu": 2000}
        await server.assign(call(server, 1, says, "before", "/", resources=one))
        await server.end_of(1)
        await server.assign(call(server, 2, says, "now", str(gate), resources=one))
        await server.until(lambda: any(s.number == 2 for s in server.started), "it runs")
        await server.send(StreamOpen(stream=1, number=2, kind="tail", follow=True))
        await server.until(lambda: server.streams.get(1) == b"now\n", "its own output and no other's")
        gate.touch()
        await server.until(lambda: 1 in server.closed, "the tail ends")


async def test_standard_input(tmp_path: Path) -> None:
    async with running(tmp_path, *OPTIONS) as (server, _):
        await server.assign(shell(1, "cat; echo done", stdin="-"))
        await server.until(lambda: server.started, "it runs")
        await server.send(StreamOpen(stream=1, number=1, kind="stdin"))
        await server.send(StreamData(stream=1, data=b"hello\n"), StreamData(stream=1, data=b"there\n", end=True))
        assert server.text(await server.end_of(1)) == b"hello\nthere\ndone\n"


async def test_exec_beside_a_task(tmp_path: Path) -> None:
    async with running(tmp_path, *OPTIONS) as (server, _):
        await server.assign(shell(1, "sleep 1000", env={"PATH": "/usr/bin:/bin", "MINE": "7"}, cwd="/usr"))
        await server.until(lambda: server.started, "it runs")
        await server.send(
            StreamOpen(stream=1, number=1, kind="exec", argv=("/bin/sh", "-c", "echo $MINE $JARVIS_TASK_ID; pwd")),
            StreamOpen(stream=2, number=1, kind="exec", argv=("no-such-program",)),
        )
        await server.until(lambda: {1, 2} <= set(server.closed), "both end")
        assert server.streams[1] == b"7 1\n/usr\n"
        assert "not found" in server.closed[2]


async def test_a_terminal(tmp_path: Path) -> None:
    async with running(tmp_path, *OPTIONS) as (server, _):
        await server.assign(shell(1, "read line; echo got $line; test -t 1 && echo tty", pty=True))
        await server.until(lambda: server.started, "it runs")
        await server.send(StreamOpen(stream=1, number=1, kind="pty"), StreamData(stream=1, data=b"words\n"))
        await server.until(lambda: b"tty" in server.streams.get(1, b""), "the terminal answers")
        assert b"got words" in server.streams[1]
        assert b"tty" in server.text(await server.end_of(1))
