"""Signed requests of other programs: the signature is their credential, and the id of the delivery makes each count once."""

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable, Mapping

import msgspec

from jarvis.api.problems import Refusal
from jarvis.core.errors import InvalidValue
from jarvis.core.schedule import OnWebhook, Schedule
from jarvis.dag.schedules import can_be_kept

SIGNATURE, DELIVERIES = "X-Hub-Signature-256", ("Idempotency-Key", "X-GitHub-Delivery")
_SIGNATURE = re.compile(r"sha256=([0-9a-f]{64})\Z")
_NOBODY = secrets.token_bytes(32)
"""Stands for the secret where there is no such schedule, so that the answer tells nothing of that, nor how long it takes."""


def signature(secret: str, body: bytes) -> str:
    """As it is sent: HMAC (RFC 2104) with SHA-256 over the body as it stands."""
    return "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def signature_of(headers: Mapping[str, str]) -> str:
    """What may be one; what cannot costs no look into the store."""
    match = _SIGNATURE.match(headers.get(SIGNATURE, ""))
    if match is None:
        raise _not_signed()
    return match[1]


def signed_for(found: Iterable[Schedule], body: bytes, given: str) -> Schedule:
    """The schedule whose secret signed the body; raises a refusal that is the same whatever is wrong."""
    keys: list[tuple[Schedule | None, bytes]] = [
        (schedule, schedule.rule.on.secret.encode()) for schedule in found if isinstance(schedule.rule.on, OnWebhook)
    ]
    meant = None
    for schedule, secret in keys or [(None, _NOBODY)]:
        wanted = hmac.new(secret, body, hashlib.sha256).hexdigest()
        if hmac.compare_digest(wanted, given):
            meant = schedule
    if meant is None:
        raise _not_signed()
    return meant


def _not_signed() -> Refusal:
    return Refusal(
        401, "bad_signature", f"{SIGNATURE} does not sign this body for a schedule of that name",
        "send sha256= and the hexadecimal HMAC-SHA256 of the body under the schedule's secret",
    )  # fmt: skip


def delivery_of(headers: Mapping[str, str]) -> str:
    """The id under which this counts once, however often it is sent."""
    for name in DELIVERIES:
        value = headers.get(name)
        if value is not None:
            if not (0 < len(value) <= 200 and value.isascii() and value.isprintable()):
                raise InvalidValue(name, value, "1 to 200 printable ASCII characters")
            return value
    raise InvalidValue(DELIVERIES[0], None, f"an id of the delivery, here or in {DELIVERIES[1]}")


def checked_event(body: bytes) -> str:
    """The body, if it is a JSON object that can be kept."""
    try:
        event = msgspec.json.decode(body)
        text = body.decode()
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Refusal(400, "bad_json", f"the body is not JSON: {error}", "send a JSON object in UTF-8") from None
    if not isinstance(event, dict) or not can_be_kept(event):
        raise InvalidValue("body", type(event).__name__, "a JSON object without numbers beyond 64 bits")
    return text
