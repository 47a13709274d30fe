"""The routes that are asked most go straight to their functions: the layers of the framework around a route cost as much as
the function itself. Same functions, same guard before them, same problems; their documents come from the ordinary routes.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from jarvis.api.problems import from_validation, problem_of, respond
from jarvis.api.routes.common import Context
from jarvis.core.errors import JarvisError

Endpoint = Callable[[Request, Context], Awaitable[Response]]
ROOTS = ("", "/api/v1")


@dataclass(frozen=True, slots=True)
class Route:
    """What metrics ask of a route."""

    path: str
    endpoint: Endpoint


class Direct:
    """ASGI middleware inside the guard. ``posts``: paths below the roots that are reached by POST."""

    def __init__(self, app: ASGIApp, posts: Mapping[str, Endpoint]) -> None:
        self.app = app
        self._routes = {root + path: Route(root + path, endpoint) for path, endpoint in posts.items() for root in ROOTS}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        route = self._routes.get(scope["path"]) if scope["type"] == "http" and scope["method"] == "POST" else None
        if route is None:
            await self.app(scope, receive, send)
            return
        scope["route"] = route
        request = Request(scope, receive, send)
        try:
            response = await route.endpoint(request, Context(request))
        except JarvisError as error:
            response = respond(problem_of(error))
        except ValidationError as error:
            response = respond(from_validation(error.errors()))
        await response(scope, receive, send)
