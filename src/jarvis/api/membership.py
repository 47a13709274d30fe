"""How nodes get in and out: a token lets one in once, its certificate then stands for a membership that the store keeps."""

import secrets
from collections.abc import Callable

import msgspec

from jarvis.api.auth import MEMBER, member_key, token_hash
from jarvis.core.errors import Conflict, InvalidValue
from jarvis.core.permissions import Principal
from jarvis.state.coordination import Token
from jarvis.state.store import Store
from jarvis.utils import certificates
from jarvis.utils.certificates import Pair

SECRET = "authority"  # noqa: S105 - the name that it is kept under


async def authority_of(store: Store, now: float) -> Pair:
    """The cluster's own, made by whichever server is the first to ask."""
    made = certificates.new_authority(now)
    kept = await store.secret_keep(SECRET, msgspec.msgpack.encode((made.key, made.certificate)))
    key, certificate = msgspec.msgpack.decode(kept, type=tuple[bytes, bytes])
    return Pair(key, certificate)


class Membership:
    """One per server that listens beyond its machine, at ``url``."""

    def __init__(self, store: Store, authority: Pair, url: str, clock: Callable[[], float]) -> None:
        self._store, self.authority, self.url, self._clock = store, authority, url, clock
        self.pin = certificates.pin(authority.certificate)

    async def join(self, token: str, name: str, request: bytes) -> bytes:
        """The certificate of a new node; the token is used up. Raises :class:`Conflict` for a name that is taken, or a token
        that somebody else was faster with."""
        if name in {t.label.removeprefix(MEMBER) for t in await self._members()}:
            hint = f"choose another --name, or remove the other one: jarvis node rm {name}"
            raise Conflict(f"a node named {name!r} has joined already", hint)
        member = secrets.token_hex(16)
        certificate = self._sign(request, name, member)
        if await self._store.token_take(token_hash(token)) is None:
            raise Conflict("this join token was used already", "make another: jarvis token create --join")
        await self._store.token_put(Token(member_key(member), "node", "node", (), MEMBER + name))
        return certificate

    def renew(self, principal: Principal, member: str, request: bytes) -> bytes:
        """Another certificate for the same membership."""
        return self._sign(request, principal.label.removeprefix(MEMBER), member)

    async def expel(self, name: str) -> bool:
        """End the memberships of that name; False when there was none."""
        found = [t for t in await self._members() if t.label == MEMBER + name]
        for token in found:
            await self._store.token_take(token.hash)
        return bool(found)

    async def _members(self) -> list[Token]:
        return [t for t in await self._store.token_list() if t.label.startswith(MEMBER)]

    def _sign(self, request: bytes, name: str, member: str) -> bytes:
        try:
            return certificates.node_certificate(self.authority, request, name, member, self._clock())
        except (ValueError, TypeError) as error:
            raise InvalidValue(
                "request", str(error)[:100], "a PEM certificate request with an elliptic-curve key"
            ) from None
