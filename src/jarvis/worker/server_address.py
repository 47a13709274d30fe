"""Where a node's server is: one of several URLs, or what the server of this machine says about itself."""

import random
from pathlib import Path

from jarvis.utils import server_file
from jarvis.worker.credentials import Credentials


class ServerAddress:
    """URL and token, read anew for each session: a server that started again may have others."""

    def __init__(self, urls: list[str], token_file: Path, own: Path | None) -> None:
        """``own``: the directory whose ``server.json`` comes before all URLs."""
        self._urls, self._token_file, self._own = urls, token_file, own
        self._tries = 0
        self._used: server_file.ServerFile | None = None

    def next(self) -> tuple[str, str]:
        """For the next session; several URLs take turns. Raises OSError without a token or a server."""
        token = self._token_file.read_text(encoding="ascii").strip()
        self._used = self._read()
        if self._used is not None and not server_file.lives(self._used):
            raise OSError(f"the server of this machine (pid {self._used.pid}) does not run")
        url = self._used.url if self._used else self._urls[self._tries % len(self._urls)]
        self._tries += 1
        return f"{url.rstrip('/').replace('http', 'ws', 1)}/agent/v1/session", token

    def moved(self) -> bool:
        """Whether the server of this machine is another one than at the last try: it need not be waited for."""
        return self._read() != self._used

    def _read(self) -> server_file.ServerFile | None:
        return server_file.read(self._own) if self._own is not None else None


class JoinedAddress:
    """Of a cluster that this node has joined: its servers in an order of chance, each once before any a second time."""

    def __init__(self, credentials: Credentials) -> None:
        self._credentials = credentials
        self._left: list[str] = []

    def next(self) -> tuple[str, str]:
        """Raises OSError where the list of servers cannot be read."""
        if not self._left:
            try:
                self._left = self._credentials.urls
            except (ValueError, KeyError) as error:
                raise OSError(f"the list of servers cannot be read: {error}") from None
            random.shuffle(self._left)
        if not self._left:
            raise OSError("no server is known")
        return f"{self._left.pop().rstrip('/').replace('http', 'ws', 1)}/agent/v1/session", ""

    def moved(self) -> bool:
        """Nobody tells."""
        return False
