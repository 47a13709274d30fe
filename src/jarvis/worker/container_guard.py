"""Stop a container, whoever else is dead or frozen: ``python container_guard.py SOCKET CONTAINER GRACE_S``.

Started by the supervisor when a fence closes. A program of its own, standard library only, so that it needs nothing of the
agent. Exit code 0: the container does not run any more.
"""

import http.client
import socket
import sys

ANSWER_S = 30.0
STOPPED = (204, 304, 404)
"""It obeyed or was killed; it had ended; there is none."""


class UnixConnection(http.client.HTTPConnection):
    """HTTP over the engine's socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=ANSWER_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def stop(path: str, container: str, grace_s: float) -> bool:
    """Ask the engine: a soft signal, and after the grace a kill."""
    connection = UnixConnection(path)
    try:
        connection.request("POST", f"/containers/{container}/stop?t={int(grace_s)}")
        return connection.getresponse().status in STOPPED
    finally:
        connection.close()


if __name__ == "__main__":
    try:
        sys.exit(not stop(sys.argv[1], sys.argv[2], float(sys.argv[3])))
    except (OSError, http.client.HTTPException) as error:
        sys.exit(f"the container engine does not answer at {sys.argv[1]}: {error}")
