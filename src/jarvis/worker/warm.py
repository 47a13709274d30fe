"""Warm processes as the agent sees them, and how one is launched and reached."""

import asyncio
import contextlib
import os
import shutil
import socket
import struct
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

import jarvis
from jarvis.core.gpus import Share
from jarvis.core.resources import Resources
from jarvis.core.states import Cause
from jarvis.worker.account import Account
from jarvis.worker.function_protocol import Frames, Place
from jarvis.worker.machine import Work
from jarvis.worker.supervisor_client import SupervisorClient

SERVICE_NUMBERS = 1 << 52
"""Warm processes are numbered from here on, far above any assignment."""
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
DEPTH = 64
TELL_S = 0.005
"""How long it is kept back that a call began: what ends by then says so with its end, in one message instead of two."""
CONNECT_S = 30.0
PENDING_LIMIT = 64 << 20
BOOT = """
import sys
root = sys.argv.pop(1)
sys.path.insert(0, root)
import jarvis
sys.path.remove(root)
sys.path.append(root)
from jarvis.worker.function_worker import main
main()
"""
"""Runs the same Jarvis as the agent, and otherwise finds modules as the task's own Python would: the place of ours comes last."""


class WarmTag(msgspec.Struct):
    """What the supervisor keeps with a warm process, so that an agent that starts anew can adopt it."""

    name: str
    project: str
    user: str
    environment: str
    resources: Resources
    shares: tuple[Share, ...] = ()
    fence: bool = False
    artifacts: tuple[str, ...] = ()


@dataclass(slots=True, eq=False)
class Warm:
    """A warm process: ``work`` runs in it, ``queue`` is what it was handed ahead, in order."""

    number: int
    name: str
    folder: str
    shares: tuple[Share, ...] = ()
    tag: WarmTag | None = None
    like: Work | None = None
    work: Work | None = None
    queue: dict[int, Work] = field(default_factory=dict)
    codes: set[str] = field(default_factory=set)
    given: int = 0
    pace: float = 0.0
    """Seconds that its calls take lately; 0 while that is not known."""
    heard: float = 0.0
    unrecorded: set[int] = field(default_factory=set)
    idle_since: float = 0.0
    timer: asyncio.TimerHandle | None = None
    killing: tuple[int, Cause] | None = None
    connected: bool = False
    over: bool = False
    adopting: bool = False
    replayed: int = 0
    """So many of the next results are said again, from before this agent."""
    stated: asyncio.Event = field(default_factory=asyncio.Event)
    frames: Frames = field(default_factory=Frames)
    _transport: asyncio.WriteTransport | None = None
    _pending: list[bytes] = field(default_factory=list)
    _telling: asyncio.TimerHandle | None = None

    @property
    def log(self) -> str:
        return f"{self.folder}/log"

    def write(self, data: bytes) -> None:
        """Gathers for a turn of the loop; what is written before the process listens waits for it."""
        self._pending.append(data)
        if self._transport is not None and len(self._pending) == 1:
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        if self._transport is not None and self._pending:
            self._transport.write(b"".join(self._pending))
            self._pending.clear()

    def opened(self, transport: asyncio.WriteTransport) -> None:
        self._transport, self.connected = transport, True
        self._flush()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()
            self._transport = None
        self._pending.clear()

    def tell_soon(self, started: Callable[[int, float], None]) -> None:
        """Which call runs, and for how long, if one still does."""
        if self._telling is None:
            self._telling = asyncio.get_running_loop().call_later(TELL_S, self._tell, started)

    def _tell(self, started: Callable[[int, float], None]) -> None:
        self._telling = None
        if self.work is not None:
            started(self.work.number, time.monotonic() - self.heard)

    def stop_timer(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


class _Wire(asyncio.Protocol):
    def __init__(self, received: Callable[[bytes], None]) -> None:
        self.data_received = received  # type: ignore[assignment,method-assign]  # one call less for each piece of data


class Launcher:
    """Starts warm processes, each with a folder of its own for its socket, its spool and its log."""

    def __init__(self, supervisor: SupervisorClient, directory: Path, node: str, api_url: str) -> None:
        self._supervisor, self._directory, self.node, self._api_url = supervisor, directory, node, api_url
        directory.mkdir(mode=0o711, exist_ok=True)
        self._handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        self._next = SERVICE_NUMBERS + int(time.time() * 1000)
        self._root = str(Path(jarvis.__file__).parents[1])

    def folder(self, name: str) -> Path:
        return self._directory / name

    def sweep(self, tags: Sequence[str]) -> None:
        """Remove folders that no process of these tags has: an agent before this one ended between making and starting."""
        known = set()
        for tag in tags:
            with contextlib.suppress(msgspec.MsgspecError):
                known.add(msgspec.json.decode(tag, type=WarmTag).name)
        for folder in self._directory.iterdir():
            if folder.name not in known:
                remove_folder(str(folder))

    def reserve(self, account: Account) -> str:
        """A folder for a process that will be started; its name."""
        self._next += 1
        name = f"{self._next - SERVICE_NUMBERS:x}"
        folder = self.folder(name)
        folder.mkdir(mode=0o700)
        (folder / "scratch" / "tmp").mkdir(mode=0o700, parents=True)
        (folder / "scratch" / "outputs").mkdir(mode=0o700)
        if account.switch is not None:
            for path in (folder, *folder.rglob("*")):
                os.chown(path, account.switch["uid"], account.switch["gid"])
        return name

    def launch(self, work: Work, account: Account, reserved: str | None = None) -> Warm:
        name = reserved or self.reserve(account)
        warm = Warm(SERVICE_NUMBERS + int(name, 16), name, str(self.folder(name)), work.shares)
        self._supervisor.send(self._order(warm, work, account))
        return warm

    def _order(self, warm: Warm, work: Work, account: Account) -> dict[str, Any]:
        a, spec = work.assignment, work.spec
        assert spec.function is not None
        place = Place(warm.folder, self.node, account.home, account.name, account.shell, self._api_url, work.shares)
        fence = spec.on_lost == "fence"
        tag = WarmTag(
            warm.name, a.project, a.user, spec.function.environment, spec.resources, work.shares, fence, spec.artifacts
        )
        env = {"PATH": "/usr/local/bin:/usr/bin:/bin", **spec.env}
        env |= {"HOME": account.home, "USER": account.name, "SHELL": account.shell}
        env["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, work.gpus))
        return {
            "op": "start", "number": warm.number, "tag": msgspec.json.encode(tag).decode(), "service": True, "env": env,
            "argv": [sys.executable, "-c", BOOT, self._root, msgspec.json.encode(place).decode()],
            "cwd": spec.cwd if spec.cwd and os.path.isdir(spec.cwd) else "/", "output_as_user": False,
            "stdout": warm.log, "append": True, "memory_bytes": spec.resources.get("memory") or None,
            "user": account.switch, "no_new_privs": account.switch is not None, "grace_s": 0.0, "fence": fence,
        }  # fmt: skip

    async def dial(self, warm: Warm, received: Callable[[bytes], None], wanted: Callable[[], bool]) -> None:
        """Connect as soon as the process listens; raises TimeoutError when it does not."""
        path, wait = f"/proc/self/fd/{self._handle}/{warm.name}/sock", 0.005
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(CONNECT_S):
            while wanted():
                try:
                    transport, _ = await loop.create_unix_connection(lambda: _Wire(received), path)
                except OSError:
                    await asyncio.sleep(wait)
                    wait = min(wait * 1.5, 0.1)
                    continue
                if self._belongs(transport, warm):
                    warm.opened(transport)
                else:
                    transport.close()
                return

    def _belongs(self, transport: asyncio.Transport, warm: Warm) -> bool:
        """Whether who listens is the owner of the folder: a link there could lead to somebody else's socket."""
        peer = transport.get_extra_info("socket")
        credentials = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        return bool(struct.unpack("3i", credentials)[1] == os.stat(warm.folder).st_uid)


def remove_folder(folder: str) -> None:
    shutil.rmtree(folder, ignore_errors=True)
