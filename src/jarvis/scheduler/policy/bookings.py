"""PURE: maintenance and reservations: nothing starts on a node that is expected to run into a time for which the node is booked.

A task is expected to end by its limit; without one, after ``default_seconds`` of the order. What runs into the time all the same
(its limit was longer, or it had none) goes on.
"""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

from jarvis.core.booking import Booking
from jarvis.scheduler.filters import Reason

MARGIN_S = 60.0
"""What waits in a node's backlog is to be over so long before."""
Booked = dict[int, list[Booking]]
"""Node → its bookings that have not ended, the first one first."""


def booked(bookings: Mapping[int, Booking], names: Mapping[str, int], now: float) -> Booked:
    found: Booked = {}
    for booking in sorted(bookings.values(), key=lambda b: (b.begin, b.id)):
        for name in booking.nodes if booking.end > now else ():
            if name in names:
                found.setdefault(names[name], []).append(booking)
    return found


def in_the_way(
    bookings: Iterable[Booking], owner: tuple[str, str], begin: float, end: float
) -> Booking | None:  # fmt: skip
    """The first one that somebody's task would run into from ``begin`` until ``end``."""
    for booking in bookings:
        if booking.begin < end and booking.end > begin and not booking.admits(*owner):
            return booking
    return None


def reason_of(booking: Booking, begin: float, seconds: float) -> Reason:
    """Why a task that takes so long does not begin there now."""
    because = f" ({booking.reason})" if booking.reason else ""
    until = f"until {_said(booking.end)}{because}"
    if booking.kind == "maintenance":
        what = f"under maintenance {until}" if booking.begin <= begin else f"to be under maintenance {until}"
    else:
        whose = f"user {booking.user}" if booking.user else f"project {booking.project}"
        what = f"reserved for {whose} {until}"
    if booking.begin <= begin:
        return Reason("ReqNodeNotAvail", f"is {what}")
    return Reason(
        "ReqNodeNotAvail",
        f"is {what}, from {_said(booking.begin)} on: in {booking.begin - begin:.0f} s, and it may take {seconds:.0f} s",
    )


def _said(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
