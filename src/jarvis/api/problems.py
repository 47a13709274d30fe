"""Errors as RFC 9457 problem+json: what was wrong, a stable code, and what to do next."""

from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

import msgspec
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from jarvis.core.errors import (
    Conflict,
    CursorTooOld,
    InvalidValue,
    JarvisError,
    NeverFits,
    NoLicense,
    NoNodeHasAll,
    NotAllowed,
    NotFound,
    OverQuota,
    StaleEpoch,
    StoreUnavailable,
    TooFewNodes,
)

MEDIA_TYPE = "application/problem+json"
_STATUS: tuple[tuple[type[JarvisError], int], ...] = (
    (InvalidValue, 422),
    (NeverFits, 422),
    (NoNodeHasAll, 422),
    (TooFewNodes, 422),
    (NoLicense, 422),
    (OverQuota, 429),
    (NotFound, 404),
    (NotAllowed, 403),
    (CursorTooOld, 410),
    (Conflict, 409),
    (StoreUnavailable, 503),
    (StaleEpoch, 503),
)


class Refusal(JarvisError):
    """A request refused for what it is rather than for what it means (size, host, origin, token)."""

    def __init__(self, status: int, code: str, detail: str, hint: str = "") -> None:
        super().__init__(detail)
        self.status, self.code, self.hint = status, code, hint


def printable(text: str) -> str:
    """Text that every encoder takes and no terminal obeys: input is repeated in messages."""
    return "".join(c if c.isprintable() or c == "\n" else f"\\u{ord(c):04x}" for c in text)


def problem(
    status: int, code: str, detail: str, hint: str = "", errors: Sequence[dict[str, Any]] = ()
) -> dict[str, Any]:
    """The body of a problem."""
    body: dict[str, Any] = {"type": f"urn:jarvis:problem:{code}", "title": HTTPStatus(status).phrase}
    body |= {"status": status, "code": code, "detail": printable(detail)}
    if hint:
        body["hint"] = printable(hint)
    if errors:
        body["errors"] = [{k: printable(v) if isinstance(v, str) else v for k, v in e.items()} for e in errors]
    return body


def problem_of(error: JarvisError) -> dict[str, Any]:
    """The problem that an error of the core is."""
    status = error.status if isinstance(error, Refusal) else next((s for t, s in _STATUS if isinstance(error, t)), 500)
    errors: list[dict[str, Any]] = list(getattr(error, "errors", ()))
    if isinstance(error, InvalidValue | NoLicense):
        errors = [{"path": error.field, "message": str(error)}]
    elif isinstance(error, NeverFits):
        errors = [{"path": f"resources.{error.dimension}", "message": str(error)}]
    elif isinstance(error, NoNodeHasAll):
        errors = [{"path": "resources", "message": str(error)}]
    elif isinstance(error, TooFewNodes):
        errors = [{"path": "nodes", "message": str(error)}]
    return problem(status, error.code, str(error), error.hint, errors)


def from_validation(found: Sequence[Any]) -> dict[str, Any]:
    """Pydantic's findings with the path of each field, at most 20 of them."""
    errors = [{"path": ".".join(str(p) for p in e["loc"] if p != "body"), "message": str(e["msg"])} for e in found[:20]]
    unreadable = any(e["type"] == "json_invalid" for e in found)
    first = errors[0] if errors else {"path": "", "message": "the request is not valid"}
    detail = f"{first['path']}: {first['message']}" if first["path"] else first["message"]
    if unreadable:
        return problem(400, "bad_json", detail, "send valid UTF-8 JSON", errors)
    return problem(422, "invalid_value", detail, "see errors, and /openapi.json for the fields", errors)


def respond(body: dict[str, Any], headers: dict[str, str] | None = None) -> Response:
    """A problem as a response; 503 says when to come back."""
    headers = dict(headers or {})
    if body["status"] == 503:
        headers.setdefault("Retry-After", "2")
    if body["status"] == 401:
        headers.setdefault("WWW-Authenticate", "Bearer")
    return Response(msgspec.json.encode(body), body["status"], headers, MEDIA_TYPE)


def install(app: FastAPI) -> None:
    """All ways an error leaves a route end here."""

    async def on_jarvis(request: Request, error: Exception) -> Response:
        assert isinstance(error, JarvisError)
        return respond(problem_of(error))

    async def on_validation(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError | ValidationError)
        return respond(from_validation(error.errors()))

    async def on_http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        code = HTTPStatus(error.status_code).name.lower()
        return respond(problem(error.status_code, code, str(error.detail)), dict(error.headers or {}))

    async def on_bug(request: Request, error: Exception) -> Response:
        return respond(problem(500, "internal", "the server made a mistake; its log has the details"))

    app.add_exception_handler(JarvisError, on_jarvis)
    app.add_exception_handler(RequestValidationError, on_validation)
    app.add_exception_handler(ValidationError, on_validation)
    app.add_exception_handler(HTTPException, on_http)
    app.add_exception_handler(Exception, on_bug)
