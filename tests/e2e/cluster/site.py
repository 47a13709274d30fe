"""A site of hosts with sshd, and bundles for them that are made in no time."""

import json
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

from tests.chaos.hosts import Host
from tests.e2e.cluster.harness import Home

ROOT = Path(__file__).parents[3]
SSHD = shutil.which("sshd") or "/usr/sbin/sshd"


INSTALL = f"""#!/bin/sh
set -e
version="$(cat "$(dirname "$0")/version")" prefix="$2"
{sys.executable} -m venv --without-pip "$prefix/versions/$version"
cd "$prefix/versions/$version"/lib/python*/site-packages
printf '%s\\n' {ROOT}/src {sysconfig.get_paths()["purelib"]} >here.pth
ln -sfn "versions/$version" "$prefix/current"
"""
"""In the place of the one that installs wheels, which takes its time: an environment that finds what is installed here."""


def light_bundle(folder: Path, version: str) -> Path:
    inner = folder / version / "jarvis-bundle"
    inner.mkdir(parents=True)
    (inner / "version").write_text(version + "\n")
    (inner / "install").write_text(INSTALL)
    (inner / "install").chmod(0o755)
    path = folder / f"{version}.tar.gz"
    subprocess.run(["tar", "-C", str(inner.parent), "-czf", str(path), "jarvis-bundle"], check=True)
    return path


class Site:
    """A server, hosts with sshd, and the file that names them."""

    def __init__(self, server: Home, folder: Path, machines: dict[str, Host]) -> None:
        self.server, self.folder, self.machines = server, folder, machines
        self.config, self.file = folder / "ssh_config", folder / "hosts"
        self.key()
        self.names(*machines)

    def key(self) -> None:
        for name in ("host_key", "key"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.folder / name], check=True)
        (self.folder / "authorized").write_text((self.folder / "key.pub").read_text())
        self.config.write_text(
            f"IdentityFile {self.folder}/key\nUserKnownHostsFile /dev/null\nStrictHostKeyChecking no\nLogLevel ERROR\n"
        )

    def names(self, *names: str, more: str = "") -> None:
        """Write the file."""
        lines = [
            f"root@{self.machines[name].address} name={name} label=zone={name} "
            f"prefix={self.folder}/{name}/program state={self.state(name)}"
            for name in names
        ]
        self.file.write_text("# the site\n" + "\n".join(lines) + f"\n{more}\n")

    def state(self, name: str) -> Path:
        return self.folder / name / "state"

    def sshd_argv(self, name: str) -> list[str]:
        settings = [
            "-o", f"HostKey={self.folder}/host_key", "-o", f"AuthorizedKeysFile={self.folder}/authorized",
            "-o", "StrictModes=no", "-o", "UsePAM=no", "-o", "PidFile=none",
        ]  # fmt: skip
        return [SSHD, "-D", "-E", f"{self.folder}/{name}.log", "-f", "/dev/null", *settings]

    def sshd(self, name: str) -> "subprocess.Popen[bytes]":
        Path("/run/sshd").mkdir(exist_ok=True)
        return subprocess.Popen(self.machines[name].argv(*self.sshd_argv(name)))

    def node(self, verb: str, *args: str, code: int = 0) -> "subprocess.CompletedProcess[str]":
        options = ("--hosts", str(self.file), "--ssh-config", str(self.config))
        return self.server.jarvis("node", verb, *options, *args, code=code)

    def listed(self) -> dict[str, dict[str, Any]]:
        return {node["name"]: node for node in json.loads(self.server.jarvis("node", "ls", "-o", "json").stdout)}

    def pid(self, name: str) -> int:
        return int((self.state(name) / "node" / "supervisor.pid").read_text())
