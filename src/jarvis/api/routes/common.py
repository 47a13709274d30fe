"""What all routes share: who asks, which task is meant, cursors and answers."""

import asyncio
import json
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from fastapi import Depends
from pydantic import BaseModel
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response

from jarvis.api.auth import authorise
from jarvis.api.schemas.out import encode
from jarvis.api.schemas.values import MAX_ID, duration, number
from jarvis.api.services import Services
from jarvis.core.command import Args, NewCommand, Verb
from jarvis.core.errors import CursorTooOld, InvalidValue, NotFound
from jarvis.core.ids import SOLO, ElementKey, parse_element
from jarvis.core.permissions import Access, Principal, allowed
from jarvis.core.states import TERMINAL, State
from jarvis.core.task import Element, Task

if TYPE_CHECKING:
    from jarvis.api.event_hub import EventHub
    from jarvis.api.gateway import Gateway

M = TypeVar("M", bound=BaseModel)


class Context:
    """One request's way to the services."""

    def __init__(self, connection: HTTPConnection) -> None:
        state = connection.app.state
        self.services: Services = state.services
        self.hub: EventHub = state.hub
        self.gateway: Gateway = state.gateway
        self.principal: Principal | None = connection.scope.get("state", {}).get("principal")

    def allow(self, access: Access, project: str | None = None, owner: str | None = None) -> Principal:
        return authorise(self.principal, access, project, owner)

    async def wish(
        self, ident: str, verb: Verb, principal: Principal, args: Args | None = None, *, task: int | None = None,
        index: int | None = None, workflow: int | None = None, schedule: int | None = None,
    ) -> Response:  # fmt: skip
        """Durable when answered; the leader acts on it. The last four as in :class:`~jarvis.core.command.NewCommand`."""
        command = NewCommand(
            verb=verb, user=principal.user, admin=principal.role == "admin", args=args or {}, task=task, index=index,
            workflow=workflow, schedule=schedule,
        )  # fmt: skip
        (stored,) = await self.services.state_manager.command([command])
        told = verb.removeprefix("workflow_").removeprefix("schedule_")
        return answer({"id": ident, "verb": told, "command": stored.id}, 202)

    async def task(self, ident: str, access: Access = "read") -> tuple[Task, ElementKey]:
        """The task that is meant. One that may not be read does not exist for the asker."""
        principal = authorise(self.principal, "see")
        key = read_key(ident)
        found = await self.services.store.task_get_many([key.task])
        if not found or not allowed(principal, "read", found[0].project):
            raise NotFound("task", ident)
        task = found[0]
        authorise(principal, access, task.project, task.user)
        if key.index != SOLO and (task.spec.array is None or task.spec.array.position_of(key.index) is None):
            raise NotFound("element", ident)
        return task, key

    async def element(self, task: Task, key: ElementKey) -> Element | None:
        """Its row, if it has one."""
        rows = await self.services.store.element_get_many([key])
        return rows[0] if rows else None

    async def one_element(self, ident: str, access: Access = "read") -> tuple[Task, ElementKey, Element | None]:
        """As :meth:`task`, for what only one element has (logs, a result)."""
        task, key = await self.task(ident, access)
        if key.index == SOLO and task.spec.array is not None:
            first = task.spec.array.index_at(0)
            raise InvalidValue("id", ident, f"one element of the array, like {task.id}_{first}")
        return task, key, await self.element(task, key)


async def _context(request: Request) -> Context:
    return Context(request)  # in a coroutine, because the framework would hand a plain function to a thread


Ctx = Annotated[Context, Depends(_context)]


def read_key(ident: str) -> ElementKey:
    """``42`` or ``42_7`` within what a database can hold."""
    if len(ident) > 40:
        raise InvalidValue("id", ident, "a task id like 42 or an element id like 42_7")
    key = parse_element(ident)
    if key.task > MAX_ID or key.index > MAX_ID:
        raise NotFound("task", ident)
    return key


def answer(body: object, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """JSON, encoded once by msgspec."""
    return Response(encode(body), status, headers, "application/json")


async def body_of(request: Request, model: type[M]) -> M:
    """The body read by a strict model; no body at all means all its defaults."""
    data = await request.body()
    return model.model_validate_json(data or b"{}")


def states_of(given: list[str]) -> frozenset[State]:
    """``?state=running,queued`` and repeated; ``active`` and ``ended`` stand for many."""
    out: set[State] = set()
    for word in ",".join(given).split(",") if given else ():
        if word in ("active", "ended"):
            out |= TERMINAL if word == "ended" else set(State) - TERMINAL
        elif word in set(State):
            out.add(State(word))
        else:
            raise InvalidValue("state", word, f"one of {', '.join(State)}, active, ended")
    return frozenset(out)


def limit_of(given: str, most: int = 1000) -> int:
    return number(given, "limit", most, 1)


async def event_cursor(services: Services, given: str | None) -> int:
    """``INC.SEQ`` → the sequence number; nothing means from now on."""
    incarnation = services.incarnation()
    if given is None:
        return await services.store.event_last_seq()
    life, dot, seq = given.partition(".")
    if not dot:
        raise InvalidValue("after", given, "a cursor INCARNATION.SEQ as events carry it")
    if number(life, "after") != incarnation:
        raise CursorTooOld(f"{incarnation}.{max(0, await services.store.event_oldest_seq() - 1)}")
    return number(seq, "after")


async def wait_ended(context: Context, ident: str, given: str) -> None:
    """Return when the task or element has ended, or after ``given`` (bounded): the caller reads the store again."""
    seconds = min(duration(given, "wait"), context.services.settings.max_wait_s)
    task, key = await context.task(ident)
    with context.hub.waiting_for_end(task.id) as last, suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            last.look()
            while left := await _alive(context, task, key):
                await last.wait(left)
                last.look()


async def _alive(context: Context, task: Task, key: ElementKey) -> int:
    """How many of its elements have not ended; of one element, whether it has not."""
    if key.index != SOLO:
        element = await context.element(task, key)
        if element is not None:
            return element.state not in TERMINAL
    found = await context.services.store.task_get_many([task.id])
    if not found or found[0].state in TERMINAL:
        return 0
    ended = sum(count for state, count in found[0].counts.items() if state in TERMINAL)
    return 1 if key.index != SOLO else max(task.size - ended, 1)


def idempotency(request: Request) -> str | None:
    """The header, if it can be a key."""
    key = request.headers.get("idempotency-key")
    if key is not None and not (0 < len(key) <= 200 and key.isascii() and key.isprintable()):
        raise InvalidValue("Idempotency-Key", key, "1 to 200 printable ASCII characters")
    return key


def sse(kind: str, ident: str, data: dict[str, Any]) -> bytes:
    """One server-sent event."""
    return f"id: {ident}\nevent: {kind}\ndata: {json.dumps(data)}\n\n".encode()
