"""The command line, read by hand: argparse would double the start-up time."""

from __future__ import annotations

import gc
import json
import os
import sys

from . import upgrade
from .supervisor import AlreadyRunning, Options, Supervisor
from .system import log, seal_inherited_fds

USAGE = "usage: supervisor --dir STATE_DIR [--agent JSON_ARGV] [--owner-fd N] [--cgroups auto|off]"


def main(arguments: list[str], program: str) -> int:
    """Run until told to stop; 0 after a clean stop, 2 on wrong use, 3 when another one owns the directory."""
    if "--check" in arguments:  # an upgrade asks whether this program can at least be loaded
        return 0
    try:
        options = _parse(arguments)
    except (ValueError, IndexError) as error:
        log(f"{error}\n{USAGE}")
        return 2
    options.command = [sys.executable, "-I", "-S", program]
    try:
        _run(options)
    except AlreadyRunning as error:
        log(str(error))
        return 3
    return 0


def _run(options: Options) -> None:
    _open_standard_fds()
    state = upgrade.take_over(options.resume) if options.resume >= 0 else None
    keep = set(upgrade.descriptors(state)) | {options.owner}
    seal_inherited_fds(keep)
    os.chdir("/")
    supervisor = Supervisor(options, state)
    gc.freeze()  # forked trampolines then share our memory for longer
    gc.set_threshold(20_000, 50, 50)  # only a defect makes cycles here
    supervisor.run()


def _parse(arguments: list[str]) -> Options:
    options = Options()
    pairs = iter(arguments)
    for name in pairs:
        value = next(pairs, None)
        if value is None:
            raise ValueError(f"{name} needs a value")
        _set(options, name, value)
    if not options.directory:
        raise ValueError("--dir is missing")
    return options


def _set(options: Options, name: str, value: str) -> None:
    if name == "--dir":
        options.directory = os.path.abspath(value)
    elif name == "--agent":
        options.agent = json.loads(value)
    elif name == "--owner-fd":
        options.owner = int(value)
        os.set_blocking(options.owner, False)
    elif name == "--cgroups" and value in ("auto", "off"):
        options.cgroups = value == "auto"
    elif name == "--resume":
        options.resume = int(value)
    else:
        raise ValueError(f"unknown: {name} {value}")


def _open_standard_fds() -> None:
    """Make sure that 0, 1 and 2 are taken, or a task's file could land there."""
    while (fd := os.open("/dev/null", os.O_RDWR)) <= 2:
        os.set_inheritable(fd, True)
    os.close(fd)
