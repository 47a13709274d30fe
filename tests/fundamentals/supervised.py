"""Calls of the supervisor's own functions for each process of one lane: ``python supervised.py DIRECTORY``.

In a process of its own, because a supervisor takes every child there is for its own.
"""

import os
import socket
import sys
from pathlib import Path
from types import FrameType

from jarvis.worker.supervisor import supervisor as module
from jarvis.worker.supervisor.protocol import FrameReader
from jarvis.worker.supervisor.server import Connection
from jarvis.worker.supervisor.supervisor import Options, Supervisor
from jarvis.worker.supervisor_client import frames

PROCESSES = 200
OWN = str(Path(module.__file__).parent)


def main(directory: str) -> None:
    options = Options()
    options.directory, options.cgroups = directory, False
    supervisor = Supervisor(options)
    supervisor.loop.listen_to_signals([])
    ours, theirs = socket.socketpair()
    supervisor.server.adopt_agent(Connection(theirs))
    ours.setblocking(False)
    ours.sendall(b"".join(frames([order(n, directory) for n in range(PROCESSES)])))
    ended, calls, reader = 0, [0], FrameReader()

    def called(frame: FrameType, event: str, _: object) -> None:
        calls[0] += event == "call" and frame.f_code.co_filename.startswith(OWN)

    while ended < PROCESSES:
        sys.setprofile(called)
        supervisor.loop.turn()
        sys.setprofile(None)
        try:
            reader.feed(ours.recv(1 << 20))
        except BlockingIOError:
            continue
        ended += sum(message["op"] == "ended" and message["exit_code"] == 0 for message in reader)
    sys.stdout.write(f"{calls[0] / PROCESSES:.1f}\n")


def order(number: int, directory: str) -> dict[str, object]:
    env = {"PATH": os.environ["PATH"], "JARVIS_ARRAY_INDEX": str(number)}
    out = f"{directory}/{number % 4}.out"
    message = {"op": "start", "number": number, "tag": "t", "argv": ["true"], "cwd": "/", "env": env, "stdout": out}
    return {**message, "slot": 0, "grace_s": 10.0, "output_as_user": False, "output_limit": None}


if __name__ == "__main__":
    main(sys.argv[1])
