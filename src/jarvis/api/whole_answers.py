"""Answers leave in one piece: uvicorn sends the head of an answer by itself, which wakes the client twice, and the first time it
takes the processor from the server that would send the rest.
"""

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle


class WholeAnswers(HttpToolsProtocol):
    """HTTP, with the head of an answer in one piece with the first of its body where the length was told before."""

    def on_headers_complete(self) -> None:
        before = self.cycle
        super().on_headers_complete()
        if self.cycle is not before:
            self.cycle.transport = _Whole(self.cycle)  # type: ignore[assignment]  # it uses no more of one


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

    def close(self) -> None:
        self._transport.close()

    def is_closing(self) -> bool:
        return self._transport.is_closing()
