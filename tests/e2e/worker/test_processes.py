"""Commands on a node: what runs, what is said of it, and what the task finds."""

import os
import pwd
from pathlib import Path

import pytest
from tests.e2e.worker.harness import assignment, running, shell

from jarvis.bus.messages import StreamOpen
from jarvis.core.effects import Assignment, Recall, Recorded, Signal, Stop
from jarvis.core.states import Cause, State
from jarvis.core.task import ArraySpec, TaskSpec
from jarvis.worker.logs import file_size

OPTIONS = ("--cpus", "2", "--memory", "2G", "--allow-root")


async def test_a_command_runs_and_its_end_is_told(tmp_path: Path) -> None:
    go = tmp_path / "go"
    async with running(tmp_path, *OPTIONS) as (server, _):
        await server.assign(shell(1, f"while [ ! -e {go} ]; do sleep 0.01; done; echo out; echo err >&2; exit 3"))
        await server.until(lambda: server.started, "its start is told")  # what ends at once tells its end alone
        go.touch()
        end = await server.end_of(1)
        assert (end.cause, end.exit_code, server.text(end)) == (Cause.EXIT, 3, b"out\nerr\n")
        assert end.usage is not None and end.usage.wall_s > 0
        assert [(s.number, s.state) for s in server.started] == [(1, State.RUNNING)]
        assert server.tokens == ["Bearer secret"]
        assert server.hellos[0].resources["cpu"] == 2000
        assert server.hellos[0].labels["os"] == "linux"


@pytest.mark.parametrize(
    ("spec", "code", "text"),
    [
        (TaskSpec(name="t", command=("true",), cwd="/no/where"), 125, "node n1: "),
        (TaskSpec(name="t", command=("/etc/passwd",), cwd="/"), 126, "Permission denied"),
        (TaskSpec(name="t", command=("no-such-program",), cwd="/"), 127, "not found"),
    ],
)
async def test_what_cannot_start_says_why(tmp_path: Path, spec: TaskSpec, code: int, text: str) -> None:
    async with running(tmp_path, *OPTIONS) as (server, _):
        await server.assign(assignment(1, spec))
        end = await server.end_of(1)
        assert (end.cause, end.exit_code) == (Cause.START_FAILED, code)
        assert text in end.message
        if code == 125:
            assert "/no/where" in end.message


async def test_the_environment_is_exactly_what_is_promised(tmp_path: Path) -> None:
    async with running(tmp_path, *OPTIONS) as (server, _):
        entries = server.put(b"first\nsecond\nthird\n")
        array = ArraySpec(((3, 7, 2),), entries=entries)
        made = shell(
            9, "env -0", task=42, index=5, position=1, attempt=2, array=array, queue="q", cwd="/tmp", restart="oom",
            env={"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"}, resources={"cpu": 1500, "memory": 64 << 20},
        )  # fmt: skip
        await server.assign(made)
        end = await server.end_of(9)
        found = dict(line.split("=", 1) for line in server.text(end).decode().split("\0") if line)
        scratch = found["JARVIS_TMPDIR"].removesuffix("/tmp")
        me = pwd.getpwuid(os.getuid())
        found.pop("JARVIS_SUPERVISED", None)  # the supervisor's mark, by which it finds strays
        for name in ("PWD", "SHLVL", "OLDPWD", "_"):  # made by the shell itself
            found.pop(name, None)
        assert found == {
            "PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "HOME": me.pw_dir, "USER": me.pw_name, "SHELL": me.pw_shell,
            "JARVIS_TASK_ID": "42", "JARVIS_ATTEMPT": "2", "JARVIS_FENCING_TOKEN": str((5 << 20) + 1),
            "JARVIS_NAME": "t9", "JARVIS_USER": "root", "JARVIS_PROJECT": "p", "JARVIS_QUEUE": "q", "JARVIS_NODE": "n1",
            "JARVIS_CPUS": "2", "JARVIS_MEM_MB": "64", "JARVIS_GPUS": "0", "JARVIS_SUBMIT_DIR": "/tmp",
            "JARVIS_TMPDIR": f"{scratch}/tmp", "JARVIS_OUTPUT": f"{scratch}/output.json",
            "JARVIS_OUTPUT_DIR": f"{scratch}/outputs", "JARVIS_API_URL": f"http://127.0.0.1:{server.port}",
            "JARVIS_RESTART_REASON": "oom", "OMP_NUM_THREADS": "2", "CUDA_VISIBLE_DEVICES": "",
            "JARVIS_ARRAY_ID": "42", "JARVIS_ARRAY_INDEX": "5", "JARVIS_ARRAY_COUNT": "3", "JARVIS_ARRAY_MIN": "3",
            "JARVIS_ARRAY_MAX": "7", "JARVIS_ARRAY_STEP": "2", "JARVIS_ENTRY": "second",
        }  # fmt: skip


async def test_gpus_are_handed_out_by_index(tmp_path: Path) -> None:
    async with running(tmp_path, *OPTIONS, "--gpus", "2") as (server, _):
        gate = tmp_path / "gate"
        wait = f"echo $CUDA_VISIBLE_DEVICES; while ! [ -e {gate} ]; do sleep 0.02; done"
        for number, amount in ((1, 500), (2, 1000), (3, 500)):
            await server.assign(shell(number, wait, resources={"gpu": amount}))
        await server.until(lambda: len(server.started) == 3, "all three run at once")
        gate.touch()
        shown = [server.text(await server.end_of(number)) for number in (1, 2, 3)]
        assert shown == [b"0\n", b"1\n", b"0\n"]


async def test_a_script_comes_by_digest_and_is_kept_read_only(tmp_path: Path) -> None:
    async with running(tmp_path, *OPTIONS) as (server, node):
        script = server.put(b'#!/bin/sh\necho "script $1"\n')
        await server.assign(assignment(1, TaskSpec(name="s", script=script, command=("a b",), cwd="/")))
        assert server.text(await server.end_of(1)) == b"script a b\n"
        assert (node.state / "scripts" / script).stat().st_mode & 0o777 == 0o555
        await server.assign(assignment(2, TaskSpec(name="s", script="0" * 64, cwd="/")))
        end = await server.end_of(2)
        assert end.cause is Cause.START_FAILED and "could not be fetched" in end.message


async def test_output_goes_where_the_user_says(tmp_path: Path) -> None:
    async with running(tmp_path, *OPTIONS) as (server, node):
        made = shell(
            7, "echo out; echo err >&2", task=4, index=2, cwd=str(tmp_path), array=ArraySpec(((0, 3, 1),)),
            stdout="o-%A-%a-%j-%x-%N.txt", stderr="e-%a.txt",
        )  # fmt: skip
        await server.assign(made)
        end = await server.end_of(7)
        assert (tmp_path / "o-4-2-4_2-t7-n1.txt").read_text() == "out\n"
        assert (server.text(end), server.text(end, "stderr")) == (b"out\n", b"err\n")
        assert end.stdout is not None and end.stdout.path == str(tmp_path / "o-4-2-4_2-t7-n1.txt")
        await server.assign(shell(8, "true"))
        await server.end_of(8)  # in the place of the one before, as its end was recorded
        assert len(list((node.state / "places").glob("*.d"))) == 1
        assert (tmp_path / "o-4-2-4_2-t7-n1.txt").exists()


async def test_large_output_arrives_whole(tmp_path: Path) -> None:
    async with running(tmp_path, *OPTIONS) as (server, node):
        data = os.urandom(700_000)
        source = tmp_path / "source"
        source.write_bytes(data)
        await server.assign(shell(1, f"cat {source}"), shell(2, f"head -c 4096 {source}"), shell(3, "true"))
        end = await server.end_of(1)
        assert end.stdout is not None and end.stdout.size == len(data) and len(end.stdout.chunks) == 3
        assert server.text(end) == data
        small, none = await server.end_of(2), await server.end_of(3)
        assert small.stdout is not None and small.stdout.inline == data[:4096]
        assert none.stdout is not None and (none.stdout.size, none.stdout.inline) == (0, None)
        places = node.state / "places"
        await server.until(
            lambda: not any(map(file_size, map(str, places.glob("*.out")))), "default outputs are removed"
        )


async def test_a_repeated_assignment_runs_once(tmp_path: Path) -> None:
    async with running(tmp_path, *OPTIONS) as (server, _):
        lines = tmp_path / "lines"
        made = shell(1, f"echo x >> {lines}")
        await server.assign(made, made)
        await server.assign(made)
        await server.end_of(1)
        await server.assign(made)
        await server.assign(shell(2, "true"))
        await server.end_of(2)
        assert lines.read_text() == "x\n"
        assert len(server.ends[1]) == 1


async def test_recall_before_the_start(tmp_path: Path) -> None:
    async with running(tmp_path, *OPTIONS) as (server, _):
        lines, gate = tmp_path / "lines", tmp_path / "gate"
        await server.assign(
            shell(1, f"while ! [ -e {gate} ]; do sleep 0.02; done", resources={"cpu": 2000}),
            shell(2, f"echo x >> {lines}", resources={"cpu": 1000}),
        )
        await server.until(lambda: server.started, "the first runs")
        await server.send(Recall(numbers=[1, 2]))
        await server.until(lambda: server.returned, "the second is given back")
        assert server.returned[0].numbers == [2]
        gate.touch()
        assert (await server.end_of(1)).exit_code == 0
        assert not lines.exists()


async def test_what_never_fits_is_given_back(tmp_path: Path) -> None:
    async with running(tmp_path, *OPTIONS) as (server, _):
        await server.assign(shell(1, "true", resources={"cpu": 99_000}))
        await server.until(lambda: server.returned, "it is given back")
        assert server.returned[0].numbers == [1] and "cpu" in server.returned[0].reason


async def test_stop_and_signal(tmp_path: Path) -> None:
    async with running(tmp_path, *OPTIONS) as (server, _):
        await server.assign(
            shell(1, "sleep 1000"),
            shell(2, "trap 'echo got; exit 7' USR1; echo ready; while :; do sleep 0.02; done"),
            shell(3, "sleep 1000", time_limit=0.2, grace=0.1),
        )
        await server.until(lambda: len(server.started) == 3, "all run")
        await server.send(Stop(number=1, cause=Cause.PREEMPTED, grace_s=1.0))
        assert (await server.end_of(1)).cause is Cause.PREEMPTED
        assert (await server.end_of(3)).cause is Cause.TIMEOUT
        await server.until(
            lambda: any(path.read_text() == "ready\n" for path in Path(tmp_path, "node/places").glob("*.out")),
            "the trap is set",
        )
        await server.send(Signal(number=2, signum=10))
        end = await server.end_of(2)
        assert end.exit_code == 7 and server.text(end).endswith(b"got\n")  # the whole group gets it, sleep too


async def test_too_much_memory_is_oom(tmp_path: Path) -> None:
    async with running(tmp_path, *OPTIONS) as (server, _):
        await server.assign(
            shell(1, "head -c 300M /dev/zero | tail | sleep 5", resources={"cpu": 100, "memory": 40 << 20})
        )
        assert (await server.end_of(1)).cause is Cause.OOM


async def test_a_killed_agent_loses_nothing_and_starts_nothing_twice(tmp_path: Path) -> None:
    async with running(tmp_path, *OPTIONS) as (server, node):
        lines, gate = tmp_path / "lines", tmp_path / "gate"
        wait = f"while ! [ -e {gate} ]; do sleep 0.02; done; echo end {{0}}"
        await server.assign(
            *[shell(n, f"echo start {n} >> {lines}; {wait.format(n)}", resources={"cpu": 1000}) for n in (1, 2)],
            shell(3, f"echo start 3 >> {lines}", resources={"cpu": 1000}),
        )
        await server.until(lambda: lines.exists() and len(lines.read_text().splitlines()) == 2, "two run")
        await node.kill_agent()
        known = {k.number: k.state for k in server.hellos[-1].known}
        assert known == {1: "running", 2: "running"}
        gate.touch()
        for number in (1, 2):
            assert server.text(await server.end_of(number)) == f"end {number}\n".encode()
        assert sorted(lines.read_text().splitlines()) == ["start 1", "start 2"]


async def test_ends_survive_while_the_server_is_away(tmp_path: Path) -> None:
    async with running(tmp_path, *OPTIONS) as (server, node):
        gate = tmp_path / "gate"
        await server.assign(
            *[shell(n, f"while ! [ -e {gate} ]; do sleep 0.02; done; echo {n}; touch {gate}.{n}") for n in (1, 2)]
        )
        await server.until(lambda: len(server.started) == 2, "both run")
        await server.down()
        gate.touch()
        await server.until(lambda: all((tmp_path / f"gate.{n}").exists() for n in (1, 2)), "both end unheard")
        server.record = False
        await server.up()
        assert server.text(await server.end_of(1)) == b"1\n"
        assert server.text(await server.end_of(2)) == b"2\n"
        await node.kill_agent()
        await server.until(lambda: all(len(server.ends[n]) >= 2 for n in (1, 2)), "unrecorded ends are said again")
        assert {k.number: k.state for k in server.hellos[-1].known} == {1: "ended", 2: "ended"}
        await server.send(Recorded(numbers=[1, 2], floor=3))
        await server.assign(shell(3, "true"))
        await server.end_of(3)  # which was sent after the record, so the record has arrived
        before = len(server.hellos)
        await node.kill_agent()
        assert len(server.hellos) > before and {k.number for k in server.hellos[-1].known} == {3}


async def test_what_a_killed_agent_had_made_for_a_start_is_there_when_its_successor_starts_it(tmp_path: Path) -> None:
    async with running(tmp_path, *OPTIONS) as (server, node):
        for task in (3, 9):
            (node.state / "output" / str(task) / "task.1.d" / "tmp").mkdir(parents=True)
            (node.state / "output" / str(task) / "task.1.out").touch()
        await node.kill_agent()
        await server.assign(shell(3, "sleep 2.5; cd $TMPDIR && echo ran"))
        end = await server.end_of(3)
        assert (end.exit_code, server.text(end)) == (0, b"ran\n")
        await server.until(lambda: not (node.state / "output" / "9").exists(), "what nobody asked for again goes")


async def test_what_one_task_left_no_other_finds(tmp_path: Path) -> None:
    async with running(tmp_path, *OPTIONS) as (server, node):
        places, found = node.state / "places", []
        for number, more in (
            (1, "touch $JARVIS_TMPDIR/left"),
            (2, "true"),
            (3, "true"),
            (4, "mkdir $JARVIS_OUTPUT_DIR/left"),
        ):
            await server.assign(
                shell(number, f"find $JARVIS_TMPDIR/.. -mindepth 1 | wc -l; echo $JARVIS_TMPDIR; {more}")
            )
            count, place = server.text(await server.end_of(number)).decode().split()
            assert count == "2", "two folders, and nothing in them"
            found.append(place)
        assert len(set(found[:2])) == 2
        assert len(set(found[1:])) == 1, "the same place is given again"
        await server.until(lambda: not places.exists() or not list(places.iterdir()), "what was left is gone")


async def test_a_place_is_given_to_one_at_a_time_whatever_its_agent_forgot(tmp_path: Path) -> None:
    async with running(tmp_path, "--cpus", "4", "--memory", "2G", "--allow-root") as (server, node):
        gate = tmp_path / "gate"

        def waiting(number: int) -> Assignment:
            wait = f"echo $JARVIS_TMPDIR; touch {gate}.{number}; while ! [ -e {gate} ]; do sleep 0.02; done; echo over"
            return shell(number, wait)

        await server.assign(shell(1, "true"), shell(2, "true"))
        for number in (1, 2):
            await server.end_of(number)
        await server.assign(waiting(3))
        await server.until(Path(f"{gate}.3").exists, "it runs")
        await node.kill_agent()
        await server.assign(waiting(4), waiting(5))
        await server.until(lambda: all(Path(f"{gate}.{n}").exists() for n in (4, 5)), "all run")
        gate.touch()
        said = [server.text(await server.end_of(number)).decode().split() for number in (3, 4, 5)]
        assert len({place for place, _ in said}) == 3
        assert [over for _, over in said] == ["over"] * 3


async def test_the_place_of_what_somebody_looks_at_is_not_given_again(tmp_path: Path) -> None:
    async with running(tmp_path, *OPTIONS) as (server, _):
        gate = tmp_path / "gate"
        await server.assign(shell(1, f"echo $JARVIS_TMPDIR; while ! [ -e {gate} ]; do sleep 0.02; done"))
        await server.until(lambda: server.started, "it runs")
        await server.send(StreamOpen(stream=1, kind="tail", number=1, follow=True))
        await server.until(lambda: server.streams.get(1), "somebody reads")
        gate.touch()
        first = server.text(await server.end_of(1))
        await server.assign(shell(2, "echo $JARVIS_TMPDIR"))
        assert server.text(await server.end_of(2)) != first


async def test_an_older_leader_is_refused(tmp_path: Path) -> None:
    async with running(tmp_path, *OPTIONS) as (server, _):
        server.welcome.epoch = 0
        await server.down()
        await server.up()
        hellos = len(server.hellos)
        await server.until(lambda: len(server.hellos) >= hellos + 2, "it leaves the old leader again and again")
        assert (server.hellos[-1].incarnation, server.hellos[-1].epoch) == (5, 1)
        server.welcome.epoch = 2
        server.beats.clear()
        await server.until(lambda: len(server.beats) > 2, "the newer one is accepted")
