"""Answers leave in one piece: uvicorn sends the head of an answer by itself, which wakes the client twice, and the first time it
takes the processor from the server that would send the rest.

This looks into uvicorn. Where a version of it has not what is looked at, answers leave as that version sends them.
"""

from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

NEEDED = ("transport", "response_started", "expected_content_length", "scope")
"""Of uvicorn's answer under way."""


class WholeAnswers(HttpToolsProtocol):
    """HTTP, with the head of an answer in one piece with the first of its body where the length was told before."""

    def on_headers_complete(self) -> None:
        before = getattr(self, "cycle", None)
        super().on_headers_complete()
        cycle: Any = getattr(self, "cycle", None)
        if cycle is not before and all(hasattr(cycle, name) for name in NEEDED):
            cycle.transport = _Whole(cycle)


class _Whole:
    """What one answer is written to."""

    def __init__(self, cycle: RequestResponseCycle) -> None:
        self._cycle, self._transport, self._held, self._begun = cycle, cycle.transport, b"", False

    def write(self, data: bytes) -> None:
        """A stream's head says that it has begun, and leaves at once; so does one that nothing follows."""
        cycle, held = self._cycle, self._held
        begins = cycle.response_started and not self._begun  # else it is an interim answer, or the body
        self._begun |= begins
        if begins and cycle.expected_content_length and cycle.scope["method"] != "HEAD":
            self._held = data
        else:
            self._held = b""
            self._transport.write(held + data)

    def __getattr__(self, name: str) -> Any:
        """What uvicorn uses else of a transport, and may write by: after what is held."""
        held, self._held = self._held, b""
        if held:
            self._transport.write(held)
        return getattr(self._transport, name)

    def close(self) -> None:
        self._transport.close()

    def is_closing(self) -> bool:
        return self._transport.is_closing()
