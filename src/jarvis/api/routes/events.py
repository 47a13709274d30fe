"""Events: in pages, as server-sent events and over a socket, all with the same cursor."""

from collections import OrderedDict
from collections.abc import AsyncIterator, Sequence

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.websockets import WebSocket, WebSocketDisconnect

from jarvis.api.problems import problem_of
from jarvis.api.routes.common import Context, Ctx, answer, event_cursor, limit_of, sse
from jarvis.api.routes.streams import SocketCtx, accept, both, refuse
from jarvis.api.schemas.out import encode, event_out
from jarvis.api.schemas.values import duration
from jarvis.core.errors import JarvisError
from jarvis.core.event import Event
from jarvis.core.permissions import Principal

router = APIRouter(tags=["events"])
IDLE_S = 15.0
KNOWN = 10_000


class Visible:
    """Which events a principal may see: those of nodes, and those of tasks of its projects."""

    def __init__(self, context: Context, principal: Principal) -> None:
        self._store, self._projects = context.services.store, principal.projects_seen
        self._known: OrderedDict[int, str] = OrderedDict()

    async def of(self, events: Sequence[Event]) -> list[Event]:
        if self._projects is None:
            return list(events)
        missing = sorted({e.task for e in events if e.task and e.task not in self._known})
        if missing:
            self._known |= {t.id: t.project for t in await self._store.task_get_many(missing)}
            others = [ident for ident in missing if ident not in self._known]
            self._known |= {w.id: w.project for w in await self._store.workflow_get_many(others)} if others else {}
        seen = [e for e in events if not e.task or self._known.get(e.task) in self._projects]
        while len(self._known) > KNOWN:
            self._known.popitem(last=False)
        return seen


@router.get("/events")
async def list_events(context: Ctx, after: str = "", limit: str = "1000", wait: str | None = None) -> Response:
    """A page above a cursor; ``wait=30s`` waits for the first when there is none yet."""
    principal = context.allow("see")
    services, most = context.services, limit_of(limit)
    start = await event_cursor(services, after) if after else max(0, await services.store.event_oldest_seq() - 1)
    found = await services.store.event_list(start, most)
    if not found and wait is not None:
        seconds = min(duration(wait, "wait"), services.settings.max_wait_s)
        async for batch in context.hub.follow(start, max(seconds, 0.001)):
            found = batch[:most]
            break
    shown = await Visible(context, principal).of(found)
    incarnation = services.incarnation()
    following = found[-1].seq if found else start
    return answer({"items": [event_out(e, incarnation) for e in shown], "next": f"{incarnation}.{following}"})


@router.get("/events/stream")
async def stream_events(request: Request, context: Ctx, after: str | None = None) -> Response:
    """Server-sent events from a cursor (or ``Last-Event-ID``), else from now on."""
    principal = context.allow("see")
    start = await event_cursor(context.services, request.headers.get("last-event-id") or after)
    await context.services.store.event_list(start, 1)
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(_sse(context, principal, start), media_type="text/event-stream", headers=headers)


async def _sse(context: Context, principal: Principal, start: int) -> AsyncIterator[bytes]:
    visible, incarnation = Visible(context, principal), context.services.incarnation()
    yield b": open\n\n"
    try:
        async for batch in context.hub.follow(start, IDLE_S):
            shown = await visible.of(batch)
            bodies = [event_out(e, incarnation) for e in shown]
            yield b"".join([sse(b["kind"], b["cursor"], b) for b in bodies]) or b": still here\n\n"
    except JarvisError as error:
        yield sse("problem", "", problem_of(error))


@router.websocket("/events/ws")
async def events_socket(socket: WebSocket, context: SocketCtx) -> None:
    """The same over a socket: one text frame for each batch, a JSON list; empty lists mark that nothing happened."""
    try:
        principal = context.allow("see")
        start = await event_cursor(context.services, socket.query_params.get("after"))
        await context.services.store.event_list(start, 1)
    except JarvisError as error:
        await refuse(socket, error)
        return
    await accept(socket)
    await both(socket, _send_events(socket, context, principal, start), _until_gone(socket))


async def _send_events(socket: WebSocket, context: Context, principal: Principal, start: int) -> None:
    visible, incarnation = Visible(context, principal), context.services.incarnation()
    try:
        async for batch in context.hub.follow(start, IDLE_S):
            shown = await visible.of(batch)
            await socket.send_text(encode([event_out(e, incarnation) for e in shown]).decode())
    except JarvisError as error:
        await socket.send_text(encode(problem_of(error)).decode())
        await socket.close(1013)


async def _until_gone(socket: WebSocket) -> None:
    try:
        while (await socket.receive())["type"] != "websocket.disconnect":
            pass
    except WebSocketDisconnect:
        return
