"""The node of this machine: its supervisor is started, found again and ended from here."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

from jarvis.config.settings import Settings

SUPERVISOR = Path(__file__).parent / "worker" / "supervisor" / "__main__.py"
CREDENTIALS = "credentials"
"""Where a node that has joined keeps them, below the state directory."""
END_S = 15.0


class OwnNode:
    """Its supervisor lives on when the server ends, unless it has an owner: then it ends with that one."""

    def __init__(self, settings: Settings, owned: bool, folder: str = "node") -> None:
        self._settings, self._owned, self._folder = settings, owned, folder
        self._supervisor: subprocess.Popen[bytes] | None = None
        self._owner_pipe: int | None = None

    def start(self, url: str = "") -> None:
        """A supervisor that lives already goes on, with the agent that it has. Without a URL the node is one that has joined."""
        directory, command = self._prepare(url)
        pass_fds: tuple[int, ...] = ()
        if self._owned:
            read_end, self._owner_pipe = os.pipe()
            command += ["--owner-fd", str(read_end)]
            pass_fds = (read_end,)
        with open(directory / "supervisor.log", "ab", opener=lambda path, how: os.open(path, how, 0o600)) as out:
            self._supervisor = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True, pass_fds=pass_fds
            )
        for descriptor in pass_fds:
            os.close(descriptor)

    def become(self) -> NoReturn:
        """This process becomes the supervisor of a node that has joined: for a service manager, which keeps its log."""
        _, command = self._prepare("")
        os.execv(command[0], command)

    def _prepare(self, url: str) -> tuple[Path, list[str]]:
        """The node's directory, and how its supervisor is started."""
        state_dir = self._settings.state_dir
        directory = state_dir / self._folder
        directory.mkdir(mode=0o711, exist_ok=True)
        os.chmod(state_dir, 0o711 if os.geteuid() == 0 else 0o700)
        agent = json.dumps(agent_command(self._settings, directory, url))
        return directory, [sys.executable, "-I", "-S", str(SUPERVISOR), "--dir", str(directory), "--agent", agent]

    def let_go(self) -> None:
        """It ends if it has an owner: this was the owner's end of the pipe."""
        if self._owner_pipe is not None:
            os.close(self._owner_pipe)
            self._owner_pipe = None

    def wait(self) -> None:
        """Until a node that has an owner is gone, for a while."""
        if self._supervisor is not None and self._owned:
            try:
                self._supervisor.wait(END_S)
            except subprocess.TimeoutExpired:
                return


def own_nodes(settings: Settings, owned: bool, count: int) -> list[OwnNode]:
    """As many nodes on this machine. Several are called node-1, node-2 and so on, in directories of those names; each offers
    what one alone would, but the GPUs are the first one's."""
    if count == 1:
        return [OwnNode(settings, owned)]
    nodes = []
    for number in range(1, count + 1):
        mine: dict[str, Any] = {"name": f"node-{number}"} | ({"gpus": 0.0} if number > 1 else {})
        worker = settings.worker.model_copy(update=mine)
        nodes.append(OwnNode(settings.model_copy(update={"worker": worker}), owned, f"node-{number}"))
    return nodes


def agent_command(settings: Settings, directory: Path, url: str) -> list[str]:
    """How the supervisor starts the agent."""
    worker, state_dir, mounts = settings.worker, settings.state_dir, settings.containers.mounts
    command = [sys.executable, "-m", "jarvis.worker.agent", "--dir", str(directory)]
    if url:
        command += ["--url", url, "--token-file", str(state_dir / "node.token"), "--server-file", str(state_dir)]
    else:
        command += ["--credentials", str(state_dir / CREDENTIALS)]
    for option, value in (
        ("--name", worker.name or None), ("--cpus", worker.cpus), ("--memory", worker.memory), ("--gpus", worker.gpus),
        ("--gpu-memory", ",".join(map(str, worker.gpu_memory)) or None),
    ):  # fmt: skip
        if value is not None:
            command += [option, str(value)]
    for name, text in worker.labels.items():
        command += ["--label", f"{name}={text}"]
    for taint in worker.taints:
        command += ["--taint", taint]
    if worker.proxy:
        command += [f"--proxy={worker.proxy}"]
    for option, command_line in (
        ("health-check", worker.health_check), ("prolog", worker.prolog), ("epilog", worker.epilog),
    ):  # fmt: skip
        if command_line:
            command += [f"--{option}={command_line}"]
    command += [f"--health-interval={worker.health_interval_s}", f"--hook-timeout={worker.hook_timeout_s}"]
    command += [f"--file-cache={worker.file_cache}", *(f"--watch={directory}" for directory in worker.watch)]
    if mounts is not None:
        command += [f"--container-mounts={os.pathsep.join(mounts)}"]
    return command + (["--allow-root"] if worker.allow_root else [])


def supervisor_of(state_dir: Path) -> int | None:
    """The pid of the supervisor that lives there."""
    try:
        pid = int((state_dir / "node" / "supervisor.pid").read_text(encoding="ascii").split()[0])
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except (OSError, ValueError, IndexError):
        return None
    return pid if os.fsencode(str(state_dir / "node")) in command else None


def stop_node(state_dir: Path, timeout_s: float = 30.0) -> bool:
    """End the node's supervisor with all that runs under it; False when there is none."""
    pid = supervisor_of(state_dir)
    if pid is None:
        return False
    os.kill(pid, signal.SIGTERM)
    return _gone(pid, timeout_s)


def _gone(pid: int, timeout_s: float) -> bool:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        try:
            stat = Path(f"/proc/{pid}/stat").read_text()
        except OSError:
            return True
        if stat[stat.rindex(")") + 2] in "ZX":
            return True
        time.sleep(0.02)
    return False
