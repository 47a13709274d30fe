"""Entries between servers: only what one of them sealed is believed, and once."""

from typing import Any

import msgspec
import pytest

from jarvis.bus.envelope import WINDOW, Opener, Sealer, tag_of

KEY, CLUSTER = b"k" * 32, "c1"


def sealed(
    *, key: bytes = KEY, cluster: str = CLUSTER, sender: str = "a", life: int = 1, count: int = 1
) -> list[bytes]:
    sealer = Sealer(key, cluster, sender, life)
    return [sealer.seal((1, 2), [("Thing", {"n": n})]) for n in range(count)]


def test_what_was_sealed_comes_out_as_it_was() -> None:
    opener = Opener(KEY, CLUSTER)
    (entry,) = sealed()
    envelope = opener.open(entry)
    assert envelope is not None
    assert (envelope.sender, envelope.epoch) == ("a", (1, 2))
    assert [(kind, msgspec.msgpack.decode(raw)) for kind, raw in envelope.items] == [("Thing", {"n": 0})]


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        (b"", "forged"),
        (b"short", "forged"),
        (sealed(key=b"x" * 32)[0], "forged"),
        (sealed()[0][:-1], "forged"),
        (sealed()[0][:20] + b"\xff" + sealed()[0][21:], "forged"),
        (tag_of(KEY, b"\xc1") + b"\xc1", "unreadable"),
        (sealed(cluster="c2")[0], "other cluster"),
    ],
)
def test_what_is_not_of_this_cluster_is_dropped_and_counted(entry: bytes, reason: str) -> None:
    opener = Opener(KEY, CLUSTER)
    assert opener.open(entry) is None
    assert opener.dropped == {reason: 1}


def test_an_entry_is_taken_once_in_whatever_order() -> None:
    opener, entries = Opener(KEY, CLUSTER), sealed(count=50)
    taken: list[Any] = [opener.open(entry) for entry in [*reversed(entries), *entries]]
    assert sum(envelope is not None for envelope in taken) == 50
    assert opener.dropped == {"repeated": 50}


def test_what_is_older_than_the_window_is_not_taken_any_more() -> None:
    opener, entries = Opener(KEY, CLUSTER), sealed(count=3 * WINDOW)
    assert all(opener.open(entry) is not None for entry in entries[1:])
    assert opener.open(entries[0]) is None
    assert opener.open(entries[5]) is None


def test_a_life_of_a_sender_ends_those_before_it() -> None:
    opener = Opener(KEY, CLUSTER)
    old, new = sealed(life=1, count=3), sealed(life=2, count=3)
    assert opener.open(old[0]) is not None
    assert opener.open(new[0]) is not None
    assert opener.open(old[1]) is None
    assert opener.open(new[1]) is not None
    assert opener.open(sealed(sender="b", life=1)[0]) is not None, "another sender has lives of its own"
