"""Programs of the administrator: a check of the node's health, and what runs before and after each attempt."""

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from jarvis.core.inputs import Ended
from jarvis.worker.machine import Work
from jarvis.worker.task_executor import Spawn

log = logging.getLogger("jarvis.hooks")
OUTPUT_MOST = 64 * 1024
TOLD_MOST = 200


@dataclass(frozen=True, slots=True)
class Hooks:
    """Commands for ``sh -c``, run as the agent's user; empty: there is none. Seconds."""

    health_check: str = ""
    health_interval_s: float = 60.0
    prolog: str = ""
    epilog: str = ""
    timeout_s: float = 30.0

    @property
    def around_attempts(self) -> bool:
        return bool(self.prolog or self.epilog)


async def run_hook(name: str, command: str, timeout_s: float, env: Mapping[str, str]) -> str:
    """Empty when it exits with 0; otherwise what it was and what it said last, in a line of printable text."""
    process = await asyncio.create_subprocess_exec(
        "/bin/sh", "-c", command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT, start_new_session=True, cwd="/", env={**os.environ, **env},
    )  # fmt: skip
    output = bytearray()
    try:
        async with asyncio.timeout(timeout_s):
            await _read(process, output)
            await process.wait()
    except TimeoutError:
        return told(name, f"took longer than {timeout_s:g} s", bytes(output))
    finally:
        with contextlib.suppress(ProcessLookupError, PermissionError):  # what it left behind ends with it
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
    code = process.returncode or 0
    if code == 0:
        return ""
    return told(name, f"was killed by signal {-code}" if code < 0 else f"exited with {code}", bytes(output))


async def _read(process: asyncio.subprocess.Process, output: bytearray) -> None:
    assert process.stdout is not None
    while data := await process.stdout.read(4096):
        output += data
        del output[:-OUTPUT_MOST]


def told(name: str, how: str, output: bytes) -> str:
    """A reason for people and tables: one line, no control characters, not too long."""
    words = " ".join(output.decode(errors="replace").split())
    said = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in words)
    text = f"{name} {how}: {said}" if said else f"{name} {how}"
    return text if len(text) <= TOLD_MOST else text[: TOLD_MOST - 1] + "…"


class HookRunner:
    """Runs them for the agent. ``unfit`` is what the last check said; ``changed`` is called when it says something else."""

    def __init__(self, hooks: Hooks, node: str, spawn: Spawn, changed: Callable[[], None]) -> None:
        self.hooks, self._node, self._spawn, self._changed = hooks, node, spawn, changed
        self.unfit = ""
        self._before: set[int] = set()

    async def keep_checking(self) -> None:
        """Until cancelled: how the node is."""
        if not self.hooks.health_check:
            await asyncio.get_running_loop().create_future()
        while True:
            said = await self._run("health check", self.hooks.health_check, {"JARVIS_NODE": self._node})
            if said != self.unfit:
                self.unfit = said
                self._changed()
            await asyncio.sleep(self.hooks.health_interval_s)

    def before(self, work: Work, begin: Callable[[], None], fail: Callable[[str], None]) -> None:
        """``begin`` after the prolog, or ``fail`` with what is wrong."""
        if self.hooks.prolog:
            self._before.add(work.number)
            self._spawn(self._prolog(work, begin, fail), work)
        else:
            begin()

    def is_before(self, number: int) -> bool:
        """Whether its prolog runs: a stop takes effect after it."""
        return number in self._before

    async def _prolog(self, work: Work, begin: Callable[[], None], fail: Callable[[str], None]) -> None:
        said = await self._run("prolog", self.hooks.prolog, self._env(work))
        self._before.discard(work.number)
        if said:
            fail(said)
        else:
            begin()

    def after(self, work: Work | None, end: Ended, tell: Callable[[], None]) -> None:
        """``tell`` after the epilog, which may add to the end that the node must be looked at."""
        if self.hooks.epilog and work is not None:
            self._spawn(self._epilog(work, end, tell))
        else:
            tell()

    async def _epilog(self, work: Work, end: Ended, tell: Callable[[], None]) -> None:
        code = "" if end.exit_code is None else str(end.exit_code)
        env = self._env(work) | {"JARVIS_CAUSE": str(end.cause), "JARVIS_EXIT_CODE": code}
        end.drain = await self._run("epilog", self.hooks.epilog, env)
        tell()

    async def _run(self, name: str, command: str, env: dict[str, str]) -> str:
        try:
            return await run_hook(name, command, self.hooks.timeout_s, env)
        except OSError as error:  # no more processes or descriptors
            return told(name, f"could not be started: {error.strerror}", b"")
        except Exception as error:
            log.exception("the %s met a defect", name)
            return told(name, f"met a defect: {type(error).__name__}: {error}", b"")

    def _env(self, work: Work) -> dict[str, str]:
        a = work.assignment
        return {
            "JARVIS_NODE": self._node, "JARVIS_TASK_ID": str(a.task), "JARVIS_ATTEMPT": str(a.attempt),
            "JARVIS_USER": a.user, "JARVIS_PROJECT": a.project, "JARVIS_NAME": work.spec.name,
        }  # fmt: skip
