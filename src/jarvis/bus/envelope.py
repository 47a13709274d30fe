"""What servers send each other: entries that only servers of the same cluster can make, each taken once.

An entry is a tag (keyed BLAKE2b, RFC 7693) followed by a msgpack array. Whoever can write into the queues of the bus but does
not know the key can make nobody believe anything; who repeats an old entry is noticed by its counter.
"""

import hashlib
import hmac
from typing import Any

import msgspec

TAG = 16
WINDOW = 4096
"""How far entries of one sender may be out of order, as when two transports carry them."""


class Envelope(msgspec.Struct, gc=False, array_like=True):
    """``start`` rises with each life of the sender, ``counter`` with each entry; ``epoch`` of the leader who said it, or 0s."""

    cluster: str
    sender: str
    start: int
    counter: int
    epoch: tuple[int, int]
    items: list[tuple[str, msgspec.Raw]]


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Envelope)


class Sealer:
    """Makes entries of one server's life."""

    def __init__(self, key: bytes, cluster: str, sender: str, start: int) -> None:
        self._key, self._cluster, self._sender, self._start = key, cluster, sender, start
        self._counter = 0

    def seal(self, epoch: tuple[int, int], items: list[tuple[str, Any]]) -> bytes:
        self._counter += 1
        body = _encoder.encode((self._cluster, self._sender, self._start, self._counter, epoch, items))
        return tag_of(self._key, body) + body


class Opener:
    """Tells what to believe. ``dropped`` counts the rest by reason."""

    def __init__(self, key: bytes, cluster: str) -> None:
        self._key, self._cluster = key, cluster
        self._senders: dict[str, tuple[int, int, set[int]]] = {}
        """Sender → start, highest counter, counters seen within the window below it."""
        self.dropped: dict[str, int] = {}

    def open(self, entry: bytes) -> Envelope | None:
        """None for what is forged, of another cluster, or was taken before."""
        tag, body = entry[:TAG], entry[TAG:]
        if not hmac.compare_digest(tag, tag_of(self._key, body)):
            self.drop("forged")
            return None
        try:
            envelope = _decoder.decode(body)
        except msgspec.MsgspecError:
            self.drop("unreadable")
            return None
        if envelope.cluster != self._cluster:
            self.drop("other cluster")
        elif not self._is_new(envelope):
            self.drop("repeated")
        else:
            return envelope
        return None

    def _is_new(self, envelope: Envelope) -> bool:
        start, highest, seen = self._senders.get(envelope.sender, (-1, 0, set()))
        if envelope.start < start:
            return False
        if envelope.start > start:
            start, highest, seen = envelope.start, 0, set[int]()
        counter = envelope.counter
        if counter <= highest - WINDOW or counter in seen:
            return False
        highest = max(highest, counter)
        seen.add(counter)
        if len(seen) > 2 * WINDOW:
            seen = {c for c in seen if c > highest - WINDOW}
        self._senders[envelope.sender] = (start, highest, seen)
        return True

    def drop(self, reason: str) -> None:
        self.dropped[reason] = self.dropped.get(reason, 0) + 1


def tag_of(key: bytes, body: bytes) -> bytes:
    return hashlib.blake2b(body, key=key[:64], digest_size=TAG).digest()
