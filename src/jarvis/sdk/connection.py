"""Where the server is and how it is asked: URL and token from arguments, the environment, or the owner's 0600 file."""

import json
import os
import ssl
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any

import httpx2 as httpx

from jarvis.sdk.errors import Unreachable, from_problem
from jarvis.sdk.posting import Posts, can_post
from jarvis.utils import server_file
from jarvis.utils.places import state_dir

TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class Server:
    """Where a server is, what it is asked with, and the certificate (PEM) of the authority that it is believed by, if any."""

    url: str
    token: str
    authority: str = ""

    def context(self) -> ssl.SSLContext | None:
        """For TLS; None where the machine's own authorities decide."""
        return ssl.create_default_context(cadata=self.authority) if self.authority else None


def login_file() -> Path:
    """Where ``jarvis login`` keeps the server of this user."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or "~/.config").expanduser() / "jarvis" / "login.json"


def logged_in() -> Server | None:
    """The server that this user has logged in to."""
    try:
        kept = json.loads(login_file().read_text(encoding="utf-8"))
        return Server(str(kept["url"]), str(kept["token"]), str(kept["authority"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def find_server(
    url: str | None = None, token: str | None = None, directory: str | os.PathLike[str] | None = None
) -> Server:  # fmt: skip
    """As given, else as the environment says, else the one of this machine, else where this user has logged in; raises
    :class:`Unreachable` when nothing says where a server is."""
    url, token = url or os.environ.get("JARVIS_URL"), token or os.environ.get("JARVIS_TOKEN")
    content = server_file.read(Path(directory) if directory is not None else state_dir())
    if content is not None and not server_file.lives(content):
        content = None
    kept = logged_in() if directory is None else None
    if url is None and content is not None:
        return Server(content.url, token or content.token)
    if url is None and kept is not None:
        return Server(kept.url, token or kept.token, kept.authority)
    if url is None:
        raise Unreachable(
            "no server of yours is running", "unreachable",
            "start one with 'jarvis up', use another machine's with 'jarvis login', or set JARVIS_URL",
        )  # fmt: skip
    if token is None and content is not None and content.url.rstrip("/") == url.rstrip("/"):
        token = content.token
    same = kept if kept is not None and kept.url.rstrip("/") == url.rstrip("/") else None
    return Server(url, token or (same.token if same else ""), _authority() or (same.authority if same else ""))


def _authority() -> str:
    """What JARVIS_CA names."""
    path = os.environ.get("JARVIS_CA")
    if not path:
        return ""
    try:
        return Path(path).read_text(encoding="ascii")
    except (OSError, ValueError) as error:
        raise Unreachable(f"JARVIS_CA names {path}, which cannot be read: {error}", "unreachable") from None


class Connection:
    """One server, asked synchronously; safe to use from several threads."""

    def __init__(
        self, url: str | None = None, token: str | None = None, directory: str | os.PathLike[str] | None = None
    ) -> None:  # fmt: skip
        self.server = find_server(url, token, directory)
        self.url, self.token = self.server.url, self.server.token
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        base, tls = f"{self.url.rstrip('/')}/api/v1", self.server.context()
        self._http = httpx.Client(
            base_url=base, headers=headers, timeout=TIMEOUT_S, verify=tls if tls is not None else True
        )
        self._posts = Posts(base, headers, tls) if can_post(base, tls) else None

    def close(self) -> None:
        self._http.close()
        if self._posts is not None:
            self._posts.close()

    def request(
        self,
        method: str,
        path: str,
        *,
        json_body: Any = None,
        content: bytes | Iterator[bytes] | None = None,
        params: Mapping[str, Any] | None = None,
        idempotent: bool = False,
        idempotency_key: str | None = None,
        timeout: float = TIMEOUT_S,
    ) -> httpx.Response:
        """One request. ``idempotent`` sends a key, so that a repeat after a lost answer makes nothing twice."""
        key = idempotency_key or (uuid.uuid4().hex if idempotent else None)
        headers = {"Idempotency-Key": key} if key else {}
        sent = {k: v for k, v in (params or {}).items() if v is not None}
        try:
            response = self._http.request(
                method, path, json=json_body, content=content, params=sent or None, headers=headers, timeout=timeout
            )
        except httpx.TransportError as error:
            raise self._no_answer(error) from None
        if response.status_code >= 400:
            raise from_problem(response.status_code, _body(response.content))
        return response

    def _no_answer(self, error: Exception) -> Unreachable:
        hint = "see 'jarvis doctor'; start a server with 'jarvis up'"
        return Unreachable(f"no answer from {self.url}: {error}", "unreachable", hint)

    def post_bytes(
        self, path: str, content: bytes, *, idempotent: bool = False, timeout: float = TIMEOUT_S,
        kind: str = "application/msgpack", key: str | None = None,
    ) -> bytes:  # fmt: skip
        """What is asked most, and may be repeated: bytes of a ``kind`` out, bytes back; ``idempotent`` and ``key`` as for
        :meth:`request`."""
        key = key or (uuid.uuid4().hex if idempotent else None)
        headers = {"Content-Type": kind, **({"Idempotency-Key": key} if key else {})}
        try:
            if self._posts is not None:
                status, answer = self._posts.post(path, content, headers, timeout)
            else:
                response = self._http.post(path, content=content, headers=headers, timeout=timeout)
                status, answer = response.status_code, response.content
        except (httpx.TransportError, OSError, HTTPException) as error:
            raise self._no_answer(error) from None
        if status >= 400:
            raise from_problem(status, _body(answer))
        return answer

    def root(self, path: str) -> Any:
        """What is not below ``/api/v1``."""
        return self.request("GET", f"{self.url.rstrip('/')}{path}").json()

    def get(self, path: str, timeout: float = TIMEOUT_S, **params: Any) -> Any:
        return self.request("GET", path, params=params, timeout=timeout).json()

    def post(self, path: str, body: Any = None, idempotent: bool = False) -> Any:
        if idempotent:
            data = b"" if body is None else as_json(body)
            answer = self.post_bytes(path, data, idempotent=True, kind="application/json")
            return json.loads(answer) if answer else None
        response = self.request("POST", path, json_body=body)
        return response.json() if response.content else None

    @contextmanager
    def stream(
        self, path: str, *, headers: Mapping[str, str] | None = None, **params: Any
    ) -> Iterator[Iterator[bytes]]:
        """Bytes of a long answer as they come."""
        sent = {k: v for k, v in params.items() if v is not None}
        timeout = httpx.Timeout(TIMEOUT_S, read=None)
        try:
            with self._http.stream("GET", path, params=sent, headers=headers, timeout=timeout) as response:
                if response.status_code >= 400:
                    response.read()
                    raise from_problem(response.status_code, _body(response.content))
                yield response.iter_bytes()
        except httpx.TransportError as error:
            raise Unreachable(f"the connection to {self.url} broke: {error}", "unreachable") from None


def as_json(body: Any) -> bytes:
    """Paths as text. Raises ValueError for numbers that JSON does not know."""
    return json.dumps(body, separators=(",", ":"), ensure_ascii=False, allow_nan=False, default=os.fspath).encode()


def _body(content: bytes) -> object:
    try:
        return json.loads(content)
    except (json.JSONDecodeError, UnicodeDecodeError):
        return {}
