"""Directories of attempts on a node: made whole or not at all, read as their owner's and nobody else's."""

import asyncio
import hashlib
import os
import pickle
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import cloudpickle
import msgspec
import pytest
from tests.e2e.worker.harness import FakeServer, call, running, shell

from jarvis.bus.messages import BlobGet, BlobPut, FromAgent, ToAgent
from jarvis.core.effects import Stop
from jarvis.core.inputs import Ended
from jarvis.core.manifest import PIECE, File, Manifest, Packer, decode, encode
from jarvis.core.states import Cause

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # the node cannot import this module
OPTIONS = ("--cpus", "2", "--memory", "2G")


def pushed(server: FakeServer, **files: bytes) -> str:
    """A manifest in the server's bodies, with all that it lists."""
    listed = []
    for name, data in files.items():
        pieces = tuple(server.put(data[at : at + PIECE]) for at in range(0, len(data), PIECE))
        listed.append(File(name.replace("_", "/"), len(data), hashlib.sha256(data).hexdigest(), pieces))
    return server.put(encode(Manifest(tuple(listed))))


def left(server: FakeServer, end: Ended) -> tuple[dict[str, bytes], list[str]]:
    """What an attempt left, by path, put together again; and what was left out."""
    assert end.artifacts is not None, end
    manifest = decode(server.blobs[end.artifacts])
    out = {}
    for file in manifest.files:
        whole = b"".join(server.blobs[piece] for piece in file.pieces)
        out[file.path] = whole if file.within is None else whole[file.within : file.within + file.size]
        assert hashlib.sha256(out[file.path]).hexdigest() == file.digest
    return out, list(manifest.left_out)


async def test_many_at_once_share_what_they_fetch(tmp_path: Path) -> None:
    async with running(tmp_path, *OPTIONS, "--allow-root", "--file-cache", "4M") as (server, node):
        big, small = os.urandom(3 * PIECE + 5), os.urandom(PIECE + 5)
        digest = pushed(server, a_big=big, small=small, empty=b"")
        await server.assign(*(
            shell(n, f"echo {n} > new; cat a/big new", cwd=None, push=(digest,), artifacts=("**",)) for n in range(1, 9)
        ))  # fmt: skip
        for number in range(1, 9):
            end = await server.end_of(number)
            assert server.text(end) == big + f"{number}\n".encode()
            assert left(server, end)[0] == {"a/big": big, "small": small, "empty": b"", "new": f"{number}\n".encode()}
        kept = {path.name for path in (node.state / "files").iterdir()}
        assert kept == {hashlib.sha256(small).hexdigest(), hashlib.sha256(b"").hexdigest()}, (
            "too large a file is not kept"
        )
        assert not list((node.state / "staging").iterdir())


async def test_small_files_come_and_go_in_packs(tmp_path: Path) -> None:
    async with running(tmp_path, *OPTIONS, "--allow-root", "--file-cache", "100K") as (server, node):
        contents = {f"d/{n:03}": b"%d\n" % n * 100 for n in range(300)}
        packer = Packer()
        found = [packer.add(File(p, len(d), hashlib.sha256(d).hexdigest(), ()), d) for p, d in contents.items()]
        made = [pack for pack in (*found, packer.finish()) if pack is not None]
        for pack in made:
            server.put(pack.data)
        listed = Manifest(tuple(file for pack in made for file in pack.files))
        digest, before = server.put(encode(listed)), len(server.blobs)
        script = "mv d e; cp e/001 x; chmod +x x; : > empty"
        for number in (1, 2):
            await server.assign(shell(number, script, cwd=None, push=(digest,), artifacts=("**",)))
            end = await server.end_of(number)
            there = {path.replace("d/", "e/"): data for path, data in contents.items()}
            assert left(server, end) == (there | {"x": contents["d/001"], "empty": b""}, [])
            assert end.artifacts is not None
            assert [f.path for f in decode(server.blobs[end.artifacts]).files if f.executable] == ["x"]
        assert len(server.blobs) - before < 30, "packs, too"
        kept = [path.stat().st_size for path in (node.state / "files").iterdir()]
        assert 0 < sum(kept) <= 100_000
        wrong = msgspec.structs.replace(listed.files[0], digest="0" * 64)
        bad = server.put(encode(Manifest((wrong, *listed.files[1:]))))
        await server.assign(shell(3, "true", cwd=None, push=(bad,)))
        assert "do not make up" in (await server.end_of(3)).message


async def test_the_cache_stays_within_its_size(tmp_path: Path) -> None:
    async with running(tmp_path, *OPTIONS, "--allow-root", "--file-cache", "3Mi") as (server, node):
        for number in range(1, 8):
            digest = pushed(server, x=os.urandom(PIECE))
            await server.assign(shell(number, "true", cwd=None, push=(digest,)))
            assert (await server.end_of(number)).cause is Cause.EXIT
        assert len(list((node.state / "files").iterdir())) == 3


async def test_what_cannot_be_had_starts_nothing(tmp_path: Path) -> None:
    async with running(tmp_path, *OPTIONS, "--allow-root") as (server, node):
        lost = os.urandom(6 * PIECE)
        digest = pushed(server, x=b"1", y=lost)
        for at in range(0, len(lost), PIECE):
            del server.blobs[hashlib.sha256(lost[at : at + PIECE]).hexdigest()]
        await server.assign(
            shell(1, "true", cwd=None, push=(digest,)), shell(2, "true", cwd=None, push=(server.put(b"{}x"),)),
            shell(3, "true", cwd=None, push=(server.put(b'{"files":[["../../x",0,"' + b"0" * 64 + b'",[],false]]}'),)),
        )  # fmt: skip
        for number, word in ((1, "no blob"), (2, "list of files"), (3, "'..'")):
            end = await server.end_of(number)
            assert (end.cause, end.exit_code) == (Cause.START_FAILED, 125) and word in end.message
        assert not list((node.state / "staging").iterdir())


async def test_an_agent_that_dies_on_the_way_collects_again(tmp_path: Path) -> None:
    async with running(tmp_path, *OPTIONS, "--allow-root") as (server, node):
        server.record = False
        await server.assign(shell(1, "head -c 3000000 /dev/zero > x; echo over", cwd=None, artifacts=("x",)))
        first = await server.end_of(1)
        await node.kill_agent()
        await server.until(lambda: len(server.ends[1]) > 1, "its end is said again")
        assert server.ends[1][-1].artifacts == first.artifacts
        assert left(server, server.ends[1][-1])[0] == {"x": bytes(3000000)}
        server.record = True


@pytest.mark.parametrize("kind", [BlobGet, BlobPut])
async def test_a_server_that_goes_away_on_the_way_is_waited_for(tmp_path: Path, kind: type) -> None:
    async with running(tmp_path, *OPTIONS, "--allow-root") as (server, _):
        data, asked, cut, take = os.urandom(4 * PIECE), 0, asyncio.Event(), server._take_body

        def until_cut(message: FromAgent, answers: list[ToAgent]) -> None:
            nonlocal asked
            asked += isinstance(message, kind)
            if asked > 3:
                cut.set()
            else:
                take(message, answers)

        server._take_body = until_cut  # type: ignore[method-assign]
        await server.assign(shell(1, "mv x y", cwd=None, push=(pushed(server, x=data),), artifacts=("*",)))
        await cut.wait()
        await server.down()
        server._take_body = take  # type: ignore[method-assign]
        await server.up()
        assert left(server, await server.end_of(1)) == ({"y": data}, [])


async def test_ends_that_nobody_waits_for_keep_nothing(tmp_path: Path) -> None:
    async with running(tmp_path, *OPTIONS, "--allow-root") as (server, node):
        work = "echo 1 > x; echo ready; exec sleep 60"
        await server.assign(
            shell(1, work, cwd=None, artifacts=("x",)),
            shell(2, work, cwd=None, artifacts=("x",), time_limit=0.5, grace=0.1),
            shell(3, "echo 1 > x; kill -9 $$", cwd=None, artifacts=("x",)),
        )
        out = node.state / "output/1/task.1.out"
        await server.until(lambda: out.exists() and out.read_bytes(), "it runs")
        await server.send(Stop(number=1, cause=Cause.CANCELLED, grace_s=0.1))
        assert (await server.end_of(1)).artifacts is None
        for number, cause in ((2, Cause.TIMEOUT), (3, Cause.SIGNAL)):
            end = await server.end_of(number)
            assert end.cause is cause and left(server, end)[0] == {"x": b"1\n"}
        assert (await server.end_of(3)).signal == signal.SIGKILL


# ---------------------------------------------------------------- as root, for others


@pytest.fixture
def folder() -> Iterator[Path]:
    """Where every user may go."""
    with tempfile.TemporaryDirectory() as made:
        Path(made).chmod(0o755)
        yield Path(made)


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs uid 0")
async def test_the_directory_is_its_owners(folder: Path) -> None:
    async with running(folder, *OPTIONS) as (server, _):
        digest = pushed(server, d_x=b"1", y=b"2")
        script = "stat -c '%U %a %n' . d d/x y; echo 3 >> d/x; rm y; pwd; touch new"
        await server.assign(shell(1, script, cwd=None, user="nobody", push=(digest,), artifacts=("**",)))
        end = await server.end_of(1)
        lines = server.text(end).decode().splitlines()
        assert lines[:4] == ["nobody 700 .", "nobody 755 d", "nobody 644 d/x", "nobody 644 y"]
        assert left(server, end) == ({"d/x": b"13\n", "new": b""}, [])


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs uid 0")
async def test_root_reads_nothing_of_others_for_the_owner(folder: Path) -> None:
    secret = folder / "secret"
    secret.mkdir()
    (secret / "x").write_text("SECRET")
    (secret / "x").chmod(0o600)
    async with running(folder, *OPTIONS) as (server, node):
        script = f"""
            ln -s {secret}/x link; ln -s {secret} dir; mkdir own; echo 1 > own/y; ln {secret}/x hard 2>/dev/null
            echo ready; while [ ! -e hard ]; do sleep 0.05; done
        """
        await server.assign(shell(1, script, cwd=None, user="nobody", artifacts=("**",)))
        work = node.state / "output/1/task.1.d/work"
        out = node.state / "output/1/task.1.out"
        await server.until(lambda: out.exists() and b"ready" in out.read_bytes(), "it is ready")
        if not (work / "hard").exists():  # most kernels forbid it to others; here root plays one that does not
            os.link(secret / "x", work / "hard")
        end = await server.end_of(1)
        files, told = left(server, end)
        assert files == {"own/y": b"1\n"}
        assert any("'hard': it belongs to another user" in text for text in told)
        assert any("'link': links are not followed" in text for text in told)
        assert not any(b"SECRET" in data for data in server.blobs.values())


def doubles(name: str, gate: str = "") -> str:
    """Reads what it was sent and leaves something; if a gate is given it waits there, and is killed behind it."""
    Path("out").mkdir()
    Path("out", name).write_text(Path("in").read_text() * 2)
    while gate and not Path(gate).exists():
        time.sleep(0.005)
    if gate:
        os._exit(9)
    return str(Path.cwd())


async def test_a_function_has_a_directory_of_its_own_for_each_call(tmp_path: Path) -> None:
    async with running(tmp_path, *OPTIONS, "--allow-root") as (server, node):
        files = {"push": (pushed(server, **{"in": b"hello "}),), "artifacts": ("out/*",), "cwd": None}
        gate = tmp_path / "gate"
        await server.assign(call(server, 4, os.getpid))
        await server.end_of(4)  # its process waits for others, but not for these
        await server.assign(
            call(server, 1, doubles, "one", **files), call(server, 2, doubles, "two", **files),
            call(server, 3, doubles, "three", str(gate), **files),
        )  # fmt: skip
        folders = set()
        for number, name in ((1, "one"), (2, "two")):
            end = await server.end_of(number)
            assert end.result is not None, end
            folders.add(pickle.loads(end.result))
            assert left(server, end) == ({f"out/{name}": b"hello hello "}, [])
        assert len(folders) == 2
        assert (await server.end_of(4)).artifacts is None
        await server.until(lambda: bool(list(node.state.glob("functions/*/work/out/three"))), "it is in the middle")
        (node.state / "functions" / "begun" / "work").mkdir(parents=True)  # and no further
        await node.kill_agent()
        gate.touch()
        end = await server.end_of(3)
        assert (end.cause, end.exit_code) == (Cause.EXIT, 9)
        assert left(server, end) == ({"out/three": b"hello hello "}, []), "what a failure left tells why"
        await server.until(lambda: not list(node.state.glob("functions/*/work")), "all directories go")
        lost = {**files, "push": ("0" * 64,)}
        await server.assign(call(server, 5, doubles, "five", **lost))
        end = await server.end_of(5)
        assert (end.cause, end.exit_code) == (Cause.START_FAILED, 125) and "could not be fetched" in end.message
        assert not list(node.state.glob("functions/*/work"))
