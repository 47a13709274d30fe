"""What a node that has joined keeps: its key and certificate, the cluster's authority, and where the servers are."""

import asyncio
import json
import logging
import os
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from websockets.asyncio.client import connect

from jarvis.bus.messages import MAX_FRAME
from jarvis.worker.session import Socket

log = logging.getLogger("jarvis.credentials")

PAIR, AUTHORITY, SERVERS, OPTIONS = "node.pem", "authority.pem", "servers.json", "worker.json"
LOOK_S = 60.0
ANSWER_S = 20.0


class Credentials:
    """In a directory that the node's owner alone may read. Key and certificate share a file, so that they change as one."""

    def __init__(self, directory: Path, clock: Callable[[], float] = time.time) -> None:
        self.directory, self._clock = directory, clock

    def save(self, *, key: bytes, certificate: bytes, authority: bytes, servers: list[str], name: str) -> None:
        """All of it, after a node was let in."""
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._write(AUTHORITY, authority)
        self._write(SERVERS, json.dumps({"name": name, "urls": servers}).encode())
        self._write(PAIR, key + certificate)

    @property
    def exist(self) -> bool:
        return (self.directory / PAIR).exists()

    @property
    def name(self) -> str:
        """Under which the node was let in."""
        return str(self._servers()["name"])

    @property
    def urls(self) -> list[str]:
        return [str(url) for url in self._servers()["urls"]]

    def _servers(self) -> dict[str, Any]:
        return dict(json.loads((self.directory / SERVERS).read_text(encoding="utf-8")))

    def remember(self, options: dict[str, Any]) -> None:
        """What was said when it joined goes on to hold at the next start."""
        self._write(OPTIONS, json.dumps(options).encode())

    def remembered(self) -> dict[str, Any]:
        """Empty when nothing was said."""
        path = self.directory / OPTIONS
        return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}

    def _write(self, name: str, content: bytes) -> None:
        temporary = self.directory / f".{name}"
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, self.directory / name)

    def context(self) -> ssl.SSLContext:
        """Believes servers of this cluster alone, and shows who this node is."""
        made = ssl.create_default_context(cafile=str(self.directory / AUTHORITY))
        made.load_cert_chain(self.directory / PAIR)
        return made

    async def dial(self, url: str, _token: str) -> Socket:
        """A WebSocket to a server; through a proxy where the environment names one."""
        return await connect(url, ssl=self.context(), compression=None, max_size=MAX_FRAME, ping_interval=None)

    # ------------------------------------------------------------ keeping them fresh

    async def keep_fresh(self) -> None:
        """Until cancelled: hear where the servers are, and ask for another certificate at two thirds of the life of this one."""
        while True:
            try:
                await asyncio.to_thread(self.renew if self.is_late() else self.hear_of_servers)
            except (OSError, ValueError, KeyError) as error:
                log.warning("no server told where the others are, nor gave a new certificate: %s", error)
            await asyncio.sleep(LOOK_S)

    def is_late(self) -> bool:
        """Whether two thirds of the certificate's life are over."""
        from jarvis.utils.certificates import validity  # its library comes with an extra

        begin, end = validity((self.directory / PAIR).read_bytes())
        return self._clock() >= begin + (end - begin) * 2 / 3

    def renew(self) -> None:
        """Another key, and a certificate for it."""
        from jarvis.utils.certificates import node_request

        key, request = node_request(self.name)
        answer = self._ask("/agent/v1/certificate", {"request": request.decode()})
        self._heard(answer["servers"])
        self._write(PAIR, key + answer["certificate"].encode())
        log.info("the node's certificate is a new one")

    def hear_of_servers(self) -> None:
        self._heard(self._ask("/agent/v1/servers")["servers"])

    def _heard(self, urls: list[str]) -> None:
        if urls and sorted(urls) != sorted(self.urls):
            self._write(SERVERS, json.dumps({"name": self.name, "urls": urls}).encode())

    def _ask(self, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """Whichever server answers; raises OSError when none does."""
        data = None if body is None else json.dumps(body).encode()
        error: OSError = OSError("no server is known")
        for url in self.urls:
            request = urllib.request.Request(url.rstrip("/") + path, data, {"Content-Type": "application/json"})  # noqa: S310
            try:
                with urllib.request.urlopen(request, timeout=ANSWER_S, context=self.context()) as answer:  # noqa: S310
                    return dict(json.loads(answer.read()))
            except OSError as failed:
                error = failed
        raise error
