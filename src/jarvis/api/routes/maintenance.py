"""Maintenance and reservations: nodes that are set aside for a time, for nobody or for one owner."""

from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from jarvis.api.routes.common import Context, Ctx, answer, body_of
from jarvis.api.schemas.quotas import BookingIn
from jarvis.api.schemas.task_in import schema_of
from jarvis.api.schemas.values import MAX_ID, duration, instant, rfc3339, text, word
from jarvis.core.booking import Booking
from jarvis.core.command import Args, NewCommand, Verb
from jarvis.core.errors import InvalidValue, NotFound
from jarvis.scheduler.bookings import booking_args

router = APIRouter(tags=["nodes"])
LONGEST_S = 10 * 366 * 86400.0


def booking_out(booking: Booking, now: float) -> dict[str, Any]:
    return {
        "id": booking.id, "kind": booking.kind, "state": "active" if booking.begin <= now else "planned",
        "nodes": list(booking.nodes), "begin": rfc3339(booking.begin), "end": rfc3339(booking.end), "reason": booking.reason,
        "project": booking.project, "user": booking.user, "by": booking.by,
    }  # fmt: skip


@router.get("/maintenance")
async def list_bookings(context: Ctx) -> Response:
    """Maintenance and reservations that have not ended."""
    context.allow("see")
    now = context.services.clock.now()
    found = await context.services.store.booking_list()
    return answer({"items": [booking_out(b, now) for b in sorted(found, key=lambda b: (b.begin, b.id))], "next": None})


@router.post("/maintenance", status_code=202, openapi_extra=schema_of(BookingIn))
async def add_booking(request: Request, context: Ctx) -> Response:
    """Nothing starts on the nodes that is expected to run into the time; with ``project`` or ``user``, only that owner's tasks do.
    What runs goes on."""
    principal = context.allow("operate")
    booking = _checked(await body_of(request, BookingIn), context.services.clock.now(), principal.user)
    await _check_nodes(context, booking)
    command = await _wish(context, "booking_add", booking.project, booking_args(booking))
    whole = booking_out(booking, context.services.clock.now())
    return answer(whole | {"id": command, "command": command}, 202)


@router.delete("/maintenance/{ident}", status_code=202)
async def remove_booking(context: Ctx, ident: str) -> Response:
    """Ends it, or takes back what was planned."""
    context.allow("operate")
    for booking in await context.services.store.booking_list():
        if ident == str(booking.id):
            command = await _wish(context, "booking_remove", booking.project, {"booking": booking.id})
            return answer(booking_out(booking, context.services.clock.now()) | {"command": command}, 202)
    raise NotFound("maintenance or reservation", ident[: len(str(MAX_ID))])


async def _wish(context: Context, verb: Verb, project: str, args: Args) -> int:
    principal = context.allow("operate")
    command = NewCommand(verb=verb, user=principal.user, admin=True, project=project, args=args)
    return (await context.services.state_manager.command([command]))[0].id


def _checked(body: BookingIn, now: float, by: str) -> Booking:
    """Raises :class:`InvalidValue` with the field."""
    if (body.duration is None) is (body.end is None):
        raise InvalidValue("duration", body.duration, "either a duration or an end")
    begin = now if body.begin is None else instant(body.begin, "begin", now)
    field = "end" if body.duration is None else "duration"
    end = instant(body.end, "end", now) if body.end is not None else begin + duration(body.duration, "duration")
    if end <= max(begin, now) or end - begin > LONGEST_S:
        raise InvalidValue(field, getattr(body, field), "an end to come, behind its begin and at most ten years later")
    nodes = tuple(dict.fromkeys(word(name, f"nodes.{i}", 253) for i, name in enumerate(body.nodes)))
    return Booking(
        id=0, nodes=nodes, begin=begin, end=end, reason=text(body.reason, "reason"), by=by,
        project=word(body.project, "project", 100) if body.project is not None else "",
        user=word(body.user, "user", 100) if body.user is not None else "",
    )  # fmt: skip


async def _check_nodes(context: Context, booking: Booking) -> None:
    known = {node.name for node in await context.services.store.node_list()}
    for i, name in enumerate(booking.nodes):
        if name not in known:
            raise InvalidValue(f"nodes.{i}", name, f"a node; there are {', '.join(sorted(known)[:20]) or 'none'}")
