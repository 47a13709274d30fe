"""Short processes are handed ahead to the supervisor: in order, each once, whatever happens to what waits in a lane."""

from functools import partial
from pathlib import Path

from tests.e2e.worker.harness import FakeServer, running, shell

from jarvis.core.effects import Recall, Stop
from jarvis.core.states import Cause

ONE = ("--cpus", "1", "--memory", "2G", "--allow-root")
TWO = ("--cpus", "2", "--memory", "2G", "--allow-root")
WHOLE = {"cpu": 1000}


def reached(server: FakeServer, count: int) -> bool:
    return len(server.ends) > count


async def ends(server: FakeServer, first: int, last: int) -> None:
    for number in range(first, last + 1):
        end = await server.end_of(number)
        assert (end.cause, end.exit_code) == (Cause.EXIT, 0), number


async def test_they_run_in_order_and_each_once(tmp_path: Path) -> None:
    file = tmp_path / "order"
    async with running(tmp_path, *ONE) as (server, _):
        await server.assign(*[shell(n, f"echo {n} >> {file}", resources=WHOLE) for n in range(1, 201)])
        await ends(server, 1, 200)
        assert file.read_text().split() == [str(n) for n in range(1, 201)]


async def test_what_waits_in_a_lane_survives_the_agent(tmp_path: Path) -> None:
    file = tmp_path / "order"
    async with running(tmp_path, *ONE) as (server, node):
        await server.assign(*[shell(n, f"echo {n} >> {file}; sleep 0.01", resources=WHOLE) for n in range(1, 201)])
        for after in (20, 60):
            await server.until(partial(reached, server, after), "some have ended")
            await node.kill_agent()
            known = {known.number for known in server.hellos[-1].known}
            missing = [n for n in range(1, 201) if n not in server.ends and n not in known]
            await server.assign(*[shell(n, f"echo {n} >> {file}; sleep 0.01", resources=WHOLE) for n in missing])
        await ends(server, 1, 200)
        assert sorted(map(int, file.read_text().split())) == list(range(1, 201))


async def test_what_waits_behind_a_long_one_starts_elsewhere(tmp_path: Path) -> None:
    go = tmp_path / "go"
    async with running(tmp_path, *TWO) as (server, _):
        await server.assign(*[shell(n, "true", resources=WHOLE) for n in range(1, 41)])
        await ends(server, 1, 40)
        long = shell(41, f"while [ ! -e {go} ]; do sleep 0.05; done", resources=WHOLE)
        await server.assign(long, *[shell(n, "true", resources=WHOLE) for n in range(42, 102)])
        await ends(server, 42, 101)
        assert 41 not in server.ends
        go.touch()
        await ends(server, 41, 41)


async def test_what_waits_in_a_lane_is_stopped_and_recalled(tmp_path: Path) -> None:
    go, file = tmp_path / "go", tmp_path / "ran"
    async with running(tmp_path, *ONE) as (server, _):
        await server.assign(*[shell(n, "true", resources=WHOLE) for n in range(1, 21)])
        await ends(server, 1, 20)
        long = shell(21, f"while [ ! -e {go} ]; do sleep 0.05; done", resources=WHOLE)
        await server.assign(long, *[shell(n, f"echo {n} >> {file}", resources=WHOLE) for n in range(22, 32)])
        await server.send(Stop(number=23, cause=Cause.CANCELLED), Recall(numbers=[24, 25]))
        assert (await server.end_of(23)).cause is Cause.CANCELLED
        await server.until(lambda: {n for r in server.returned for n in r.numbers} == {24, 25}, "they come back")
        go.touch()
        await ends(server, 26, 31)
        assert file.read_text().split() == ["22", *map(str, range(26, 32))]


async def test_what_cannot_start_does_not_stop_its_lane(tmp_path: Path) -> None:
    async with running(tmp_path, *ONE) as (server, _):
        await server.assign(*[shell(n, "true", resources=WHOLE) for n in range(1, 21)])
        await ends(server, 1, 20)
        nowhere = [shell(n, "true", resources=WHOLE, cwd="/no/where") for n in range(21, 61)]
        await server.assign(*nowhere, shell(61, "true", resources=WHOLE))
        await ends(server, 61, 61)
        for number in range(21, 61):
            end = await server.end_of(number)
            assert (end.cause, end.exit_code) == (Cause.START_FAILED, 125)
