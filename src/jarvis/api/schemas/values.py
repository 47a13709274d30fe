"""Small readers of what people write: durations, instants, names, cursors. Each says what it would have taken."""

import math
import re
from datetime import UTC, datetime

from jarvis.core.errors import InvalidValue

MAX_ID = (1 << 63) - 1
MAX_SECONDS = 100.0 * 365 * 86400
MAX_INSTANT = 253_402_300_799.0  # the end of the year 9999
_DURATION = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s)?\Z")
_CLOCK = re.compile(r"(?:(\d+)-)?(\d+):(\d{1,2}):(\d{1,2})\Z")
_NUMBER = re.compile(r"\d{1,15}(?:\.\d{1,9})?\Z")
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_NOT_STORED = re.compile("[\x00\ud800-\udfff]")


def duration(value: object, field: str) -> float:
    """Seconds from ``90``, ``"90"``, ``"1h30m"``, ``"2d"`` or Slurm's ``1-02:03:04``."""
    expected = "a duration: seconds, or a text like 1h30m"
    seconds = -1.0
    if isinstance(value, int | float) and not isinstance(value, bool):
        seconds = float(value) if abs(value) <= MAX_SECONDS else -1.0
    elif isinstance(value, str) and value and len(value) <= 40:
        if _NUMBER.match(value):
            seconds = float(value)
        elif match := _DURATION.match(value) or _CLOCK.match(value):
            days, hours, minutes, rest = (float(g or 0) for g in match.groups())
            seconds = days * 86400 + hours * 3600 + minutes * 60 + rest
    if not 0 <= seconds <= MAX_SECONDS:
        raise InvalidValue(field, value, expected)
    return seconds


def instant(value: object, field: str, now: float) -> float:
    """Seconds since 1970 from RFC 3339, from epoch seconds, or from ``+10m`` counted from ``now``."""
    expected = "an instant: now, RFC 3339 with its offset, seconds since 1970, or +10m"
    at = math.nan
    if isinstance(value, int | float) and not isinstance(value, bool):
        at = float(value) if abs(value) <= MAX_INSTANT else math.nan
    elif value == "now":
        at = now
    elif isinstance(value, str) and value.startswith("+"):
        at = now + duration(value[1:], field)
    elif isinstance(value, str) and _NUMBER.match(value):
        at = float(value)
    elif isinstance(value, str) and len(value) <= 40:
        try:
            read = datetime.fromisoformat(value)
            at = read.timestamp() if read.tzinfo is not None else math.nan
        except (ValueError, OverflowError):
            at = math.nan
    if not 0 <= at <= MAX_INSTANT:
        raise InvalidValue(field, value, expected)
    return at


def rfc3339(at: float | None) -> str | None:
    """An instant as JSON shows it: UTC with milliseconds."""
    if at is None:
        return None
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def word(value: str, field: str, longest: int = 200) -> str:
    """A name: shown on terminals and in tables, so no control or direction-changing characters."""
    if not value or len(value) > longest or _UNSAFE.search(value):
        raise InvalidValue(field, value, f"1 to {longest} characters without control characters")
    return value


def text(value: str, field: str) -> str:
    """Text that reaches exec or the database: no NUL and no half of a surrogate pair."""
    if _NOT_STORED.search(value):
        raise InvalidValue(field, value, "text without NUL characters")
    return value


def digest(value: str, field: str) -> str:
    """Name of a blob."""
    if len(value) != 64 or not all(c in "0123456789abcdef" for c in value):
        raise InvalidValue(field, value, "a digest that PUT /blobs gave")
    return value


def number(value: str, field: str, most: int = MAX_ID, least: int = 0) -> int:
    """A whole number within bounds, as a query or path gives it."""
    if not value.isascii() or not value.isdigit() or len(value) > 19 or not least <= int(value) <= most:
        raise InvalidValue(field, value, f"a whole number from {least} to {most}")
    return int(value)
