"""Facts of nodes as bytes: what a stored report holds."""

import msgspec
import pytest

from jarvis.core.inputs import Fact, Returned, Started, decode_facts, encode_facts


def test_facts_come_back_as_they_were() -> None:
    facts: list[Fact] = [Started(number=3, token=7, age=5.0), Returned(numbers=[4, 5])]
    assert decode_facts(encode_facts(facts)) == facts


@pytest.mark.parametrize("body", [b"", b"\xc1", b"\x91\x81\xa4type\xa7unheard"])
def test_what_holds_no_facts_is_refused(body: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        decode_facts(body)
