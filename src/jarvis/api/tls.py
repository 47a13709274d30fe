"""The listener beyond this machine: TLS with a certificate of the cluster's own authority, and nodes that show theirs."""

import contextlib
import os
import socket
import ssl
from asyncio import Transport
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import uvicorn

from jarvis.api.auth import PeerCertificate
from jarvis.api.whole_answers import WholeAnswers
from jarvis.utils import certificates
from jarvis.utils.certificates import Pair

LOOPBACK = ("localhost", "127.0.0.1", "::1")
ANY = ("", "0.0.0.0", "::")  # noqa: S104 - what people write for all addresses


class TlsHttp(WholeAnswers):
    """Tells each request, and each socket that grows out of one, which verified certificate came with its connection."""

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        shown = transport.get_extra_info("ssl_object").getpeercert()
        if shown:
            subject = {name: value for part in shown["subject"] for name, value in part}
            peer = PeerCertificate(subject.get("commonName", ""), subject.get("organizationalUnitName", ""))
            self.app_state = {**self.app_state, "certificate": peer}


class TlsServer(uvicorn.Server):
    """Beside the server of this machine, which hears the signals."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def names_of(host: str, advertised: Sequence[str]) -> list[str]:
    """Everything that a server which listens there may be called."""
    names = [*advertised, *([host] if host not in ANY else _own_names()), *LOOPBACK]
    return list(dict.fromkeys(name for name in names if name))


def _own_names() -> list[str]:
    names = [socket.getfqdn(), socket.gethostname()]
    with contextlib.suppress(OSError):
        names += [str(found[4][0]).partition("%")[0] for found in socket.getaddrinfo(socket.gethostname(), None)]
    for family, example in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):
        # RFC 5737 and 3849: nothing is sent, but the kernel says by which address it would be
        with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((example, 9))
            names.append(str(probe.getsockname()[0]))
    return [name for name in names if name.isascii()]


class Tls:
    """Keys and certificate of one server, made anew before they end. They go through files that its owner alone may read and that
    are not looked at again: whatever becomes of these, the certificate that is shown stays what it is."""

    def __init__(self, directory: Path, authority: Pair, names: Sequence[str], clock: Callable[[], float]) -> None:
        self._authority, self._names, self._clock = authority, list(names), clock
        directory.mkdir(mode=0o700, exist_ok=True)
        self._key, self._certificate, self._ca = directory / "key.pem", directory / "server.pem", directory / "ca.pem"
        self._config: uvicorn.Config | None = None
        self._late_at = self.end = 0.0
        """When another one is due, and when the one that is shown ends: seconds since 1970."""

    def config(self, app: Any, options: dict[str, Any]) -> uvicorn.Config:
        """For a server of the application; client certificates are asked for and not demanded, because people use tokens."""
        _write(self._ca, self._authority.certificate)
        life = self._issue()
        self._config = uvicorn.Config(
            app, **options | {"http": TlsHttp, "lifespan": "off"}, ssl_keyfile=self._key, ssl_certfile=self._certificate,
            ssl_ca_certs=str(self._ca), ssl_cert_reqs=ssl.CERT_OPTIONAL,
        )  # fmt: skip
        self._config.load()
        assert self._config.ssl is not None
        self._config.ssl.minimum_version = ssl.TLSVersion.TLSv1_2
        self._shown(*life)
        return self._config

    def renew_if_late(self) -> bool:
        """Whether new connections meet another certificate from now on; those that are open go on. Raises OSError where it cannot
        be written; the one that is there is shown until it ends."""
        if self._clock() < self._late_at:
            return False
        life = self._issue()
        assert self._config is not None
        assert self._config.ssl is not None
        self._config.ssl.load_cert_chain(self._certificate, self._key)
        self._shown(*life)
        return True

    def _issue(self) -> tuple[float, float]:
        """From when to when it is valid."""
        pair = certificates.server_pair(self._authority, self._names, self._clock())
        _write(self._key, pair.key)
        _write(self._certificate, pair.certificate)
        return certificates.validity(pair.certificate)

    def _shown(self, begin: float, end: float) -> None:
        self._late_at, self.end = begin + (end - begin) * 2 / 3, end

    def client(self) -> ssl.SSLContext:
        """Verifies the other servers of the cluster."""
        return ssl.create_default_context(cafile=str(self._ca))


def _write(path: Path, content: bytes) -> None:
    temporary = path.with_suffix(".new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    temporary.replace(path)
