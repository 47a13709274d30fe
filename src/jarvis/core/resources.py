"""Resources as vectors of whole numbers: ``cpu`` and ``gpu`` in thousandths, ``memory`` in bytes, custom names in thousandths.

Whole numbers because 0.1 + 0.2 must fit into 0.3, for ever, on every node.
"""

import re
from collections.abc import Mapping

from jarvis.core.errors import InvalidValue

Resources = dict[str, int]
"""Amount by name; a name that is absent is zero."""

BYTE_NAMES = frozenset({"memory", "gpu_memory", "disk"})
_MAX_AMOUNT = 1 << 53
_NAME = re.compile(r"[a-z][a-z0-9_.-]{0,62}\Z")
_BYTES = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgtp]?)(i?)b?\Z", re.IGNORECASE)
_THOUSANDTHS = re.compile(r"(\d+)m\Z")
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}
_UNITS = (("Ti", 1 << 40), ("Gi", 1 << 30), ("Mi", 1 << 20), ("Ki", 1 << 10))


def parse_bytes(value: object, field: str = "memory") -> int:
    """Bytes from ``536870912``, ``"512Mi"``, ``"4G"``. As in Kubernetes ``Mi`` is 2**20 and ``M`` is 10**6."""
    if isinstance(value, int) and not isinstance(value, bool):
        return _bounded(value, field, value)
    match = _BYTES.match(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise InvalidValue(field, value, "a number of bytes or a size like 512Mi or 4G")
    number, unit, binary = match.groups()
    base = 1024 if binary else 1000
    if binary and not unit:
        raise InvalidValue(field, value, "a number of bytes or a size like 512Mi or 4G")
    return _bounded(round(float(number) * base ** _POWERS[unit.lower()]), field, value)


def parse_byte_list(text: str, field: str = "gpu_memory") -> tuple[int, ...]:
    """Sizes with commas between, like ``24Gi,8Gi``."""
    return tuple(parse_bytes(int(part) if part.strip().isdigit() else part, field) for part in text.split(","))


def parse_thousandths(value: object, field: str = "cpu") -> int:
    """Thousandths from ``2``, ``0.5``, ``"1000m"`` or ``"2"``; finer than a thousandth is refused."""
    if isinstance(value, str):
        if match := _THOUSANDTHS.match(value.strip()):
            return _bounded(int(match.group(1)), field, value)
        try:
            value = float(value)
        except ValueError:
            raise InvalidValue(field, value, "a number like 2 or 0.5, or thousandths like 500m") from None
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= _MAX_AMOUNT:
        raise InvalidValue(field, value, "a number like 2 or 0.5, or thousandths like 500m")
    amount = round(value * 1000)
    if abs(amount - value * 1000) > 1e-6:
        raise InvalidValue(field, value, "a multiple of one thousandth")
    return _bounded(amount, field, value)


def _bounded(amount: int, field: str, given: object) -> int:
    if not 0 <= amount <= _MAX_AMOUNT:
        raise InvalidValue(field, given, "between 0 and 2**53")
    return amount


def parse_resources(given: Mapping[str, object], within: str = "resources") -> Resources:
    """A vector from what users write, for example ``{"cpu": "1000m", "memory": "512Mi", "gpu": 1, "licence": 2}``."""
    out: Resources = {}
    for name, value in given.items():
        if not _NAME.match(name):
            raise InvalidValue(within, name, "a name of lower-case letters, digits, '_', '.', '-' (at most 63)")
        field = f"{within}.{name}"
        amount = parse_bytes(value, field) if name in BYTE_NAMES else parse_thousandths(value, field)
        if amount:
            out[name] = amount
    return out


def format_amount(name: str, amount: int) -> str:
    """An amount as people write it: ``512Mi``, ``1.5``."""
    if name not in BYTE_NAMES:
        return f"{amount / 1000:g}"
    for unit, size in _UNITS:
        if amount >= size:
            return f"{amount / size:.4g}{unit}"
    return str(amount)


def written(name: str, amount: int) -> int:
    """The largest amount, at most this one, that is read again as it is written: what people are told to ask for, they type."""
    if name not in BYTE_NAMES:
        return amount
    size = max((size for _, size in _UNITS if size <= amount), default=1)
    scale: int = 10 ** max(4 - len(str(amount // size)), 0)
    return round(amount * scale // size / scale * size)


def add(left: Resources, right: Resources) -> Resources:
    out = dict(left)
    for name, amount in right.items():
        out[name] = out.get(name, 0) + amount
    return out


def subtract(left: Resources, right: Resources) -> Resources:
    """``left - right``; may go below zero, which the invariants then name."""
    out = dict(left)
    for name, amount in right.items():
        out[name] = out.get(name, 0) - amount
    return out


def fits(need: Resources, free: Resources) -> bool:
    for name, amount in need.items():  # noqa: SIM110 - a generator costs three times as much, and this is asked most of all
        if free.get(name, 0) < amount:
            return False
    return True


def shortages(need: Resources, free: Resources) -> Resources:
    """What is missing by name; empty when ``need`` fits into ``free``."""
    return {name: amount - free.get(name, 0) for name, amount in need.items() if free.get(name, 0) < amount}


def times(need: Resources, count: int) -> Resources:
    return {name: amount * count for name, amount in need.items()}
