"""As whom tasks run where the worker is root."""

import os
import pwd
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.e2e.worker.harness import call, running, shell

from jarvis.core.effects import Gang
from jarvis.core.states import Cause

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs uid 0")]
OPTIONS = ("--cpus", "2", "--memory", "2G")


@pytest.fixture
def folder() -> Iterator[Path]:
    """Where every user may go; the folders of other tests belong to root alone."""
    made = Path(tempfile.mkdtemp())
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


async def test_a_task_runs_as_its_owner(folder: Path) -> None:
    nobody = pwd.getpwnam("nobody")
    async with running(folder, *OPTIONS) as (server, _):
        await server.assign(
            shell(1, "id -u; id -G; echo $HOME $USER; touch $JARVIS_TMPDIR/x $JARVIS_OUTPUT; umask", user="nobody"),
            shell(2, "true", user="root"),
            shell(3, "true", user="no-such-user"),
            shell(4, f"cat {folder}/token", user="nobody"),
        )
        (folder / "token").chmod(0o600)
        lines = server.text(await server.end_of(1)).decode().splitlines()
        assert lines[0] == str(nobody.pw_uid)
        assert set(map(int, lines[1].split())) == set(os.getgrouplist("nobody", nobody.pw_gid))
        assert lines[2] == f"{nobody.pw_dir} nobody"
        for number, text in ((2, "does not run tasks as root"), (3, "'no-such-user' has no account")):
            end = await server.end_of(number)
            assert (end.cause, end.exit_code) == (Cause.START_FAILED, 125) and text in end.message


async def test_a_rank_of_an_owner_may_read_its_hostfile(folder: Path) -> None:
    command = "cat $JARVIS_HOSTFILE; echo $RANK $MASTER_ADDR:$MASTER_PORT; cat"
    gang = Gang(1, ("10.0.0.1", "10.0.0.2"), 20009)
    rank = shell(1, command, user="nobody", nodes=2, stdin="-", gang=gang)
    async with running(folder, *OPTIONS) as (server, _):
        await server.assign(rank)
        said = server.text(await server.end_of(1)).decode()
    assert said == "10.0.0.1\n10.0.0.2\n1 10.0.0.1:20009\n", "and nobody types into it"


def everybody_may_run(program: Path) -> bool:
    return all(part.stat().st_mode & 0o001 for part in (program, *program.parents))


@pytest.mark.skipif(
    not everybody_may_run(Path(sys.executable).resolve()), reason="the interpreter here is closed to other users"
)
async def test_a_function_runs_as_its_owner(folder: Path) -> None:
    async with running(folder, *OPTIONS) as (server, _):
        await server.assign(call(server, 1, os.getresuid, user="nobody"))
        end = await server.end_of(1)
        uid = pwd.getpwnam("nobody").pw_uid
        assert end.result is not None and str(uid).encode() is not None
        import pickle

        assert pickle.loads(end.result) == (uid, uid, uid)


async def test_a_path_that_became_a_link_is_not_read_for_its_owner(folder: Path) -> None:
    async with running(folder, *OPTIONS) as (server, _):
        place = folder / "place"
        place.mkdir(mode=0o777)
        place.chmod(0o777)
        secret = folder / "secret"
        secret.mkdir(mode=0o700)
        (secret / "out").write_text("SECRET\n")
        trick = f"mv {place}/sub {place}/old; ln -s {secret} {place}/sub; echo 1234567"
        (place / "sub").mkdir()
        (place / "sub").chmod(0o777)
        await server.assign(shell(1, trick, user="nobody", stdout=f"{place}/sub/out"))
        end = await server.end_of(1)
        assert b"SECRET" not in server.text(end)
