"""Hosts that are reached by the system's ssh: what a file says of them, and what is done there."""

import shlex
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import click

SCRIPT = (Path(__file__).parent / "on_host.sh").read_text(encoding="utf-8")
CONNECT_S = 10
ANSWER_S = 600.0
UNITS = {
    "jarvis-node": """[Unit]
Description=Jarvis node
Wants=jarvis-supervisor.service
Before=jarvis-supervisor.service

[Service]
Type=oneshot
RemainAfterExit=yes
# On a restart the supervisor, which runs, becomes the program that is installed now, in place, and starts the agent anew. Were it
# in this unit, version 2 of control groups would let nothing be started beside its tasks. One that refuses goes on as it was.
ExecStart=-{prefix}/current/bin/python -m jarvis.worker.renew --if-it-runs {state}/node
ExecReload={prefix}/current/bin/python -m jarvis.worker.renew {state}/node

[Install]
WantedBy=multi-user.target
""",
    "jarvis-supervisor": """[Unit]
Description=Supervisor of a Jarvis node, with its tasks
After=network-online.target
Wants=network-online.target
# A stop of the node comes here, a restart does not (systemd 249; before, this is stopped by its own name).
StopPropagatedFrom=jarvis-node.service

[Service]
Type=exec
Environment=JARVIS_HOME={state}
ExecStart={prefix}/current/bin/python -m jarvis.cli join --foreground
# Tasks get control groups below this one, and their supervisor ends them itself, in order.
Delegate=yes
KillMode=process
TimeoutStopSec=60
Restart=always
RestartSec=1
LimitNOFILE=524288
TasksMax=infinity
""",
}
"""Of systemd: the one that people restart, and the one that holds the tasks."""


class HostError(Exception):
    """What went wrong on a host, in a line."""


@dataclass(frozen=True, slots=True)
class HostLine:
    """A line of the file: ``[USER@]HOST[:PORT] [name=NAME] [label=K=V] [taint=T] [prefix=DIR] [state=DIR]``."""

    target: str
    port: str = ""
    name: str = ""
    prefix: str = ""
    state: str = ""
    labels: tuple[str, ...] = ()
    taints: tuple[str, ...] = ()

    @property
    def node(self) -> str:
        return self.name or self.target.rpartition("@")[2]


def read_hosts(path: Path) -> list[HostLine]:
    """Every host of the file; a mistake names its line."""
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        words = line.partition("#")[0].split()
        if words:
            found.append(_line(words, f"{path}:{number}"))
    if not found:
        raise click.UsageError(f"{path} names no host")
    names = [one.node for one in found]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise click.UsageError(f"{path}: {', '.join(twice)} is there twice; give each host its own name=")
    return found


def _line(words: list[str], where: str) -> HostLine:
    target, port = words[0], ""
    if target.startswith("-"):
        raise click.UsageError(f"{where}: {target!r} is no host")
    if (
        target.endswith("]") or target.count(":") == 1 or "]:" in target
    ):  # [::1]:22, host:22; a bare address has many colons
        target, _, port = target.rpartition(":") if not target.endswith("]") else (target, "", "")
    if port and not port.isdigit():
        raise click.UsageError(f"{where}: {port!r} is no port")
    single: dict[str, str] = {}
    many: dict[str, list[str]] = {"label": [], "taint": []}
    for word in words[1:]:
        key, equals, value = word.partition("=")
        if not equals or key not in ("name", "prefix", "state", *many):
            raise click.UsageError(f"{where}: {word!r} is none of name=, label=, taint=, prefix=, state=")
        if key in many:
            many[key].append(value)
        else:
            single[key] = value
    plain = target.replace("[", "").replace("]", "")
    return HostLine(plain, port, **single, labels=tuple(many["label"]), taints=tuple(many["taint"]))


@dataclass(slots=True)
class Host:
    """One of them, over ssh. ``found`` is what its probe said."""

    line: HostLine
    ssh: list[str]
    found: dict[str, str] = field(default_factory=dict)

    def act(self, action: str, **variables: str) -> str:
        """Run a part of the script there; raises :class:`HostError` with the last that it said."""
        known = {"PREFIX": self.line.prefix, "STATE": self.line.state, "PURGE": "no", **variables}
        head = "".join(f"{key}={shlex.quote(value)}\n" for key, value in {"ACTION": action, **known}.items())
        return self._run("sh -s", head + SCRIPT)

    def probe(self) -> dict[str, str]:
        said = self.act("probe")
        self.found = dict(line.split("=", 1) for line in said.splitlines() if "=" in line)
        return self.found

    def send(self, bundle: Path) -> None:
        """Copy the bundle there."""
        self.act("receive")
        with bundle.open("rb") as file:
            self._run(f"cat >{shlex.quote(self.found['prefix'])}/incoming/bundle.tar.gz", file=file)

    def _run(self, command: str, text: str | None = None, file: IO[bytes] | None = None) -> str:
        port = ["-p", self.line.port] if self.line.port else []
        argv = [*self.ssh, *port, "--", self.line.target, command]
        try:
            if file is not None:
                done = subprocess.run(argv, stdin=file, capture_output=True, timeout=ANSWER_S, check=False)
            else:
                done = subprocess.run(
                    argv, input=(text or "").encode(), capture_output=True, timeout=ANSWER_S, check=False
                )
        except FileNotFoundError:
            raise HostError("the program ssh is not installed here") from None
        except subprocess.TimeoutExpired:
            raise HostError(f"it takes longer than {ANSWER_S:.0f} s") from None
        if done.returncode:
            said = [line for line in done.stderr.decode(errors="replace").splitlines() if line.strip()]
            raise HostError(said[-1].strip() if said else f"ssh ended with {done.returncode}")
        return str(done.stdout.decode(errors="replace"))


def ssh_command(config: Path | None) -> list[str]:
    """No question is ever asked: a host without a key of ours is an error."""
    command = ["ssh", "-o", "BatchMode=yes", "-o", f"ConnectTimeout={CONNECT_S}"]
    return [*command, "-F", str(config)] if config is not None else command
