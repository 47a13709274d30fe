"""Who asks and whether they may: tokens, the one authorisation function, and the guard before every route."""

import asyncio
import hashlib
import hmac
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import msgspec
from prometheus_client import Histogram
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from jarvis.api.problems import MEDIA_TYPE, Refusal, problem_of
from jarvis.api.services import Services
from jarvis.core.errors import JarvisError, NotAllowed, StoreUnavailable
from jarvis.core.permissions import ROLES, Access, Principal, Role, allowed
from jarvis.state.coordination import Token
from jarvis.state.store import Store
from jarvis.utils.clock import Clock

OPEN_PATHS = frozenset(f"{root}/{name}" for root in ("", "/api/v1") for name in ("alive", "ready", "health"))
HOOK = re.compile(r"(/api/v1)?/schedules/[^/]+/hook\Z")
"""Open to POST: its signature is the credential, which the route checks before anything else."""
HOOK_LIMIT = 64 * 1024
AUTHORITY_PATH = "/agent/v1/authority"
"""Open, too: whoever wants in must see whom to believe."""
LOOPBACK = frozenset({"127.0.0.1", "localhost", "[::1]"})
SUBPROTOCOL = "jarvis"
"""Browsers cannot set headers on sockets: they offer ``jarvis`` and ``bearer.TOKEN`` and get ``jarvis`` back."""
CLIENT_GONE = 499
"""How a request is counted whose client did not wait, as in nginx."""
MISS_S = 0.1
"""An unknown token may be new: it makes the tokens be read again, but no guessing may read them all the time."""
MEMBER = "member:"
"""What the label of a node that has joined begins with; its name follows."""
JOIN_TTL_S = 3600.0
"""A join token lives no longer."""
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_BATCH = re.compile(r"(/api/v1)?/(tasks/(batch|calls)|workflows(/validate)?)\Z")
_BLOBS = re.compile(r"(/api/v1)?/blobs\Z")
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}\Z")


def token_hash(token: str) -> str:
    """What is stored of a token; tokens are long and random, so one plain round is enough."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def member_key(member: str) -> str:
    """Under what a membership is stored among the tokens: no token has such a hash, so nobody can send one instead."""
    return MEMBER + member


@dataclass(frozen=True, slots=True)
class PeerCertificate:
    """What a verified certificate of a node says: its name and its membership."""

    name: str
    member: str


async def new_token(
    store: Store, *, user: str, role: str, projects: Sequence[str] = (), label: str = "", ttl_s: float | None = None
) -> tuple[str, Token]:
    """The token itself, which is told this once, and what is stored of it."""
    token = secrets.token_urlsafe(32)
    ends = None if ttl_s is None else await store.now() + ttl_s
    stored = Token(token_hash(token), user, role, tuple(projects), label, ends)
    await store.token_put(stored)
    return token, stored


def authorise(
    principal: Principal | None, access: Access, project: str | None = None, owner: str | None = None
) -> Principal:
    """The one door: raises :class:`NotAllowed` unless the rule of the core allows it."""
    if principal is None:
        raise Refusal(401, "unauthenticated", "this needs a token", "send 'Authorization: Bearer TOKEN'")
    if not allowed(principal, access, project, owner):
        raise NotAllowed(f"{principal.user} ({principal.role}) may not {access} here")
    return principal


class StoreAuthenticator:
    """Tokens of the store, read again every ``refresh_s``; ``fixed`` are of this process (hash → principal).

    A store that is away for a moment does not turn away whoever was known before.
    """

    def __init__(
        self, store: Store, clock: Clock, fixed: Mapping[str, Principal] | None = None, refresh_s: float = 2.0
    ) -> None:
        self._store, self._clock, self._refresh_s = store, clock, refresh_s
        self._fixed = dict(fixed or {})
        self._known: dict[str, Principal] = {}
        self._read_at = float("-inf")
        self._reading = asyncio.Lock()

    def admit(self, digest: str, principal: Principal) -> None:
        """From now on, whoever has the token of this hash."""
        self._fixed[digest] = principal

    async def principal(self, token: str) -> Principal | None:
        digest = token_hash(token)
        if (found := _lookup(self._fixed, digest)) is not None:
            return found
        found, age = _lookup(self._known, digest), self._clock.now() - self._read_at
        if age >= (self._refresh_s if found is not None else MISS_S):
            found = await self._read_again(digest)
        return found

    async def member(self, member: str, fresh: bool = True) -> Principal | None:
        """Who a node's certificate stands for. ``fresh``: as the store knows it now, so that who was removed is not let in."""
        digest = member_key(member)
        if fresh or self._clock.now() - self._read_at >= self._refresh_s:
            return await self._read_again(digest)
        return _lookup(self._known, digest)

    async def _read_again(self, digest: str) -> Principal | None:
        """One reading of the store serves all who came before it began."""
        asked_at = self._clock.now()
        async with self._reading:
            if self._read_at <= asked_at:
                begun_at = self._clock.now()
                try:
                    rows = await self._store.token_list()
                except StoreUnavailable:
                    if (found := _lookup(self._known, digest)) is None:
                        raise
                    return found
                self._read_at = begun_at
                self._known = {
                    t.hash: Principal(t.user, cast("Role", t.role), t.projects, t.label)
                    for t in rows
                    if t.role in ROLES
                }
        return _lookup(self._known, digest)


def _lookup(known: Mapping[str, Principal], digest: str) -> Principal | None:
    """The dict finds by hash, which tells nothing of a token; the comparison of what was found takes constant time."""
    found = None
    for stored in (digest,) if digest in known else ():
        if hmac.compare_digest(stored, digest):
            found = known[stored]
    return found


def _token_of(scope: Scope, headers: Headers) -> str:
    given = headers.get("authorization", "")
    if given[:7].lower() == "bearer ":
        return given[7:].strip()
    if scope["type"] == "websocket":
        for offered in scope.get("subprotocols", ()):
            if offered.startswith("bearer."):
                return str(offered[7:])
    return ""


class Guard:
    """Pure ASGI, before everything: host, origin, size, token and request id; measures how long each route takes."""

    def __init__(self, app: ASGIApp, services: Services) -> None:
        self.app, self.services = app, services
        hosts = {h.lower() for h in services.settings.allowed_hosts}
        self.hosts = LOOPBACK | hosts
        self.seconds = Histogram(
            "jarvis_api_request_seconds", "Time to answer", ["route", "method", "code"], registry=services.registry
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given = headers.get("x-request-id", "")
        request_id = given if _REQUEST_ID.match(given) else secrets.token_hex(8)
        try:
            self._check_host(headers)
            self._check_origin(scope, headers)
            limit = self._limit(scope["path"])
            _check_length(headers, limit)
            principal = await self._principal(scope, headers)
        except JarvisError as error:
            await _refuse(scope, receive, send, error, request_id)
            return
        scope.setdefault("state", {})
        scope["state"] |= {"principal": principal, "request_id": request_id}
        if scope["type"] == "websocket":
            await self.app(scope, receive, send)
        else:
            await self._http(scope, receive, send, limit, request_id)

    async def _http(self, scope: Scope, receive: Receive, send: Send, limit: int, request_id: str) -> None:
        started, status, taken = self.services.clock.now(), 0, 0

        async def counted() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > limit:
                raise _too_large(limit)
            return message

        async def marked(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [
                    *message.get("headers", ()),
                    (b"x-request-id", request_id.encode()),
                    (b"x-content-type-options", b"nosniff"),
                ]
            await send(message)

        try:
            await self.app(scope, counted, marked)
        except Refusal as error:
            if status:
                raise
            await _refuse(scope, receive, marked, error, request_id)
        except ClientDisconnect:  # nobody is there to be told, and nothing was wrong here
            status = CLIENT_GONE
        finally:
            route = getattr(scope.get("route"), "path", "unmatched")
            self.seconds.labels(route, _method(scope), str(status)).observe(self.services.clock.now() - started)

    def _check_host(self, headers: Headers) -> None:
        """A page that made its own name point here (DNS rebinding) sends that name."""
        host = headers.get("host", "").lower()
        if host not in self.hosts and re.sub(r":\d{1,5}\Z", "", host) not in self.hosts:
            raise Refusal(421, "unknown_host", f"this server is not known as {host!r}", "add it to api.allowed_hosts")

    def _check_origin(self, scope: Scope, headers: Headers) -> None:
        """Other sites may not change anything through a user's browser, nor open sockets."""
        origin = headers.get("origin")
        if origin is None or (scope["type"] == "http" and scope["method"] in _SAFE):
            return
        if re.sub(r"^https?://", "", origin.lower()) != headers.get("host", "").lower():
            raise Refusal(403, "other_origin", f"requests from {origin!r} are not taken")

    def _limit(self, path: str) -> int:
        settings = self.services.settings
        if _BATCH.match(path):
            return settings.batch_limit
        if HOOK.match(path):
            return HOOK_LIMIT
        return settings.blob_limit if _BLOBS.match(path) else settings.body_limit

    async def _principal(self, scope: Scope, headers: Headers) -> Principal | None:
        token, authenticator = _token_of(scope, headers), self.services.authenticator
        principal = await authenticator.principal(token) if token else None
        if not token and (certificate := scope.get("state", {}).get("certificate")):
            principal = await authenticator.member(certificate.member)
        if principal is None and not _is_open(scope):
            hint = "the token is not known" if token else "send 'Authorization: Bearer TOKEN'"
            raise Refusal(401, "unauthenticated", "this needs a valid token", hint)
        return principal


def _is_open(scope: Scope) -> bool:
    if scope["type"] != "http":
        return False
    return scope["path"] in OPEN_PATHS | {AUTHORITY_PATH} or (
        scope["method"] == "POST" and HOOK.match(scope["path"]) is not None
    )


def _method(scope: Scope) -> str:
    known = ("GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS")
    return scope["method"] if scope["method"] in known else "other"


def _too_large(limit: int) -> Refusal:
    return Refusal(413, "too_large", f"the body is larger than {limit} bytes", "put large things into /blobs")


def _check_length(headers: Headers, limit: int) -> None:
    given = headers.get("content-length", "0")
    if not given.isascii() or not given.isdigit():
        raise Refusal(400, "bad_length", "Content-Length is not a number")
    if len(given) > 18 or int(given) > limit:
        raise _too_large(limit)


async def _refuse(scope: Scope, receive: Receive, send: Send, error: JarvisError, request_id: str) -> None:
    """Answer before any route; a socket gets the same answer in place of its handshake."""
    body: dict[str, Any] = problem_of(error)
    headers = [(b"content-type", MEDIA_TYPE.encode()), (b"x-request-id", request_id.encode())]
    if body["status"] == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    if body["status"] == 413:
        headers.append((b"connection", b"close"))
    if body["status"] == 503:
        headers.append((b"retry-after", b"2"))
    kind = "http"
    if scope["type"] == "websocket":
        await receive()
        if "websocket.http.response" not in scope.get("extensions", {}):
            await send({"type": "websocket.close", "code": 1008})
            return
        kind = "websocket.http"
    await send({"type": f"{kind}.response.start", "status": body["status"], "headers": headers})
    await send({"type": f"{kind}.response.body", "body": msgspec.json.encode(body)})
