"""Signed requests: what is taken for the secret's owner, and what is not."""

import pytest
from starlette.datastructures import Headers

from jarvis.api.problems import Refusal
from jarvis.api.webhooks import SIGNATURE, checked_event, delivery_of, signature, signature_of, signed_for
from jarvis.core.errors import InvalidValue
from jarvis.core.schedule import OnWebhook, Rule, Schedule


def hooked(secret: str, ident: int = 1) -> Schedule:
    return Schedule(id=ident, name="h", project="p", user="u", rule=Rule(on=OnWebhook(secret)), created_at=0.0)


def given(secret: str) -> str:
    return signature_of({SIGNATURE: signature(secret, b"{}")})


def test_the_signature_is_the_one_that_others_work_out() -> None:
    """The example of GitHub's documentation on validating deliveries."""
    sent = signature("It's a Secret to Everybody", b"Hello, World!")
    assert sent == "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"


def test_of_several_of_a_name_the_one_that_signed_is_meant() -> None:
    both = [hooked("first secret", 1), hooked("second secret", 2)]
    assert signed_for(both, b"{}", given("second secret")).id == 2
    assert signed_for(both, b"{}", given("first secret")).id == 1


@pytest.mark.parametrize(
    "given",
    [
        "", "sha256=", "sha1=" + "0" * 40, signature("other", b"{}"), signature("secret", b"{ }"),
        signature("secret", b"{}").upper(), signature("secret", b"{}")[7:], signature("secret", b"{}") + "0",
    ],
)  # fmt: skip
@pytest.mark.parametrize("there", [True, False])
def test_all_else_is_refused_in_the_same_words(given: str, there: bool) -> None:
    nothing = Schedule(id=2, name="h", project="p", user="u", rule=Rule(every=60.0), created_at=0.0)
    with pytest.raises(Refusal) as refused:
        signed_for([hooked("secret"), nothing] if there else [nothing], b"{}", signature_of({SIGNATURE: given}))
    assert (refused.value.status, refused.value.code) == (401, "bad_signature")
    assert str(refused.value) == "X-Hub-Signature-256 does not sign this body for a schedule of that name"


def test_each_delivery_says_which_it_is() -> None:
    assert delivery_of(Headers({"x-github-delivery": "72d3162e"})) == "72d3162e"
    assert delivery_of(Headers({"x-github-delivery": "a", "idempotency-key": "b"})) == "b"
    for bad in ({}, {"idempotency-key": ""}, {"idempotency-key": "x" * 201}, {"idempotency-key": "\xe9"}):
        with pytest.raises(InvalidValue):
            delivery_of(Headers(bad))


@pytest.mark.parametrize("body", [b"", b"[1]", b"5", b"{", b'{"a": 1\xff}', b'{"n": 123456789012345678901234567890}'])
def test_a_body_is_an_object_that_can_be_kept(body: bytes) -> None:
    with pytest.raises((Refusal, InvalidValue)):
        checked_event(body)
    assert checked_event(b'{"a": [1, null]}') == '{"a": [1, null]}'
