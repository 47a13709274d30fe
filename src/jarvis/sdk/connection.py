"""Where the server is and how it is asked: URL and token from arguments, the environment, or the owner's 0600 file."""

import json
import os
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2 as httpx

from jarvis.sdk.errors import Unreachable, from_problem
from jarvis.utils import server_file

TIMEOUT_S = 30.0


def state_dir() -> Path:
    """The state directory of this user's server, as the environment says."""
    env = os.environ
    if env.get("JARVIS_HOME"):
        return Path(env["JARVIS_HOME"])
    return Path(env.get("XDG_STATE_HOME") or "~/.local/state").expanduser() / "jarvis"


def find_server(url: str | None = None, token: str | None = None, directory: Path | None = None) -> tuple[str, str]:
    """(URL, token); raises :class:`Unreachable` when nothing says where a server is."""
    url, token = url or os.environ.get("JARVIS_URL"), token or os.environ.get("JARVIS_TOKEN")
    content = server_file.read(directory or state_dir())
    if content is not None and not server_file.lives(content):
        content = None
    if url is None and content is not None:
        return content.url, token or content.token
    if url is None:
        raise Unreachable(
            "no server of yours is running", "unreachable", "start one with 'jarvis up', or set JARVIS_URL"
        )
    if token is None and content is not None and content.url.rstrip("/") == url.rstrip("/"):
        token = content.token
    return url, token or ""


class Connection:
    """One server, asked synchronously; safe to use from several threads."""

    def __init__(self, url: str | None = None, token: str | None = None, directory: Path | None = None) -> None:
        self.url, self.token = find_server(url, token, directory)
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        self._http = httpx.Client(base_url=f"{self.url.rstrip('/')}/api/v1", headers=headers, timeout=TIMEOUT_S)

    def close(self) -> None:
        self._http.close()

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
                method, path, json=json_body, content=content, params=sent, headers=headers, timeout=timeout
            )
        except httpx.TransportError as error:
            raise Unreachable(
                f"no answer from {self.url}: {error}",
                "unreachable",
                "see 'jarvis doctor'; start a server with 'jarvis up'",
            ) from None
        if response.status_code >= 400:
            raise from_problem(response.status_code, _body(response))
        return response

    def get(self, path: str, timeout: float = TIMEOUT_S, **params: Any) -> Any:
        return self.request("GET", path, params=params, timeout=timeout).json()

    def post(self, path: str, body: Any = None, idempotent: bool = False) -> Any:
        response = self.request("POST", path, json_body=body, idempotent=idempotent)
        return response.json() if response.content else None

    @contextmanager
    def stream(self, path: str, **params: Any) -> Iterator[Iterator[bytes]]:
        """Bytes of a long answer as they come."""
        sent = {k: v for k, v in params.items() if v is not None}
        timeout = httpx.Timeout(TIMEOUT_S, read=None)
        try:
            with self._http.stream("GET", path, params=sent, timeout=timeout) as response:
                if response.status_code >= 400:
                    response.read()
                    raise from_problem(response.status_code, _body(response))
                yield response.iter_bytes()
        except httpx.TransportError as error:
            raise Unreachable(f"the connection to {self.url} broke: {error}", "unreachable") from None


def _body(response: httpx.Response) -> object:
    try:
        return response.json()
    except (json.JSONDecodeError, UnicodeDecodeError):
        return {}
