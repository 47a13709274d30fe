"""Results of many function tasks at once, as the SDK waits for them: msgpack, because results are bytes."""

import asyncio
import uuid
from typing import TYPE_CHECKING, Any

import msgspec
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from jarvis.api.event_hub import Place
from jarvis.api.problems import Refusal
from jarvis.api.routes.common import Context, Ctx
from jarvis.api.schemas.values import word
from jarvis.core.errors import InvalidValue
from jarvis.core.permissions import Principal, allowed

if TYPE_CHECKING:
    from collections.abc import Sequence

router = APIRouter(tags=["tasks"])
MOST = 10_000
LONGEST_S = 30.0
PACK = "application/msgpack"


class Wanted(msgspec.Struct, forbid_unknown_fields=True):
    """Tasks without an array whose ends are awaited; ``wait`` in seconds for the first of them.

    A request with the name of a ``reader`` ends the one that still waits under it, so that a client can add to what it
    waits for.
    """

    ids: list[int]
    wait: float = 0.0
    reader: str = ""


@router.post("/tasks/results", include_in_schema=False)
async def results(request: Request, context: Ctx) -> Response:
    """Those of ``ids`` that have ended: ``[id, state, cause, message, result, result_digest]`` each. ``took`` tells that a
    request waited under the same name."""
    try:
        wanted = msgspec.msgpack.decode(await request.body(), type=Wanted)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Refusal(400, "bad_msgpack", str(error)) from None
    if len(wanted.ids) > MOST or min(wanted.ids, default=1) < 1 or max(wanted.ids, default=1) >= 1 << 62:
        raise InvalidValue("ids", len(wanted.ids), f"at most {MOST} task ids")
    principal = context.allow("see")
    name = word(wanted.reader, "reader", 100) if wanted.reader else uuid.uuid4().hex
    with context.hub.reading(principal.user, name, frozenset(wanted.ids)) as place:
        found = await _ended(context, wanted, principal, place)
    return Response(msgspec.msgpack.encode({"results": found, "took": place.took}), media_type=PACK)


async def _ended(context: Context, wanted: Wanted, principal: Principal, place: Place) -> list[list[Any]]:
    """First the store is asked for all that may have ended, then for those that have ended meanwhile."""
    deadline = asyncio.get_running_loop().time() + min(max(wanted.wait, 0.0), LONGEST_S)
    look_for: Sequence[int] = context.hub.may_have_ended(wanted.ids)
    while True:
        found = await context.services.store.outcome_list(look_for) if look_for else []
        context.hub.looked(place, look_for, {o.task for o in found})
        ended = [o for o in found if allowed(principal, "read", o.project)]
        left = deadline - asyncio.get_running_loop().time()
        if ended or left <= 0 or place.replaced:
            return [[o.task, str(o.state), o.cause, o.message, o.result, o.result_digest] for o in ended]
        try:
            async with asyncio.timeout(left):
                await place.changed.wait()
        except TimeoutError:
            pass
        place.changed.clear()
        look_for = wanted.ids if place.ended is None else sorted(place.ended)
        place.ended = set()
