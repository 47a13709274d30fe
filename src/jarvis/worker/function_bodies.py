"""Code, arguments and inputs of calls: code is kept for the calls after, what is large of the others is fetched each time."""

from collections import OrderedDict
from dataclasses import dataclass, field

from jarvis.core.task import FunctionCall
from jarvis.worker.function_protocol import BODY, Body, frame
from jarvis.worker.task_executor import FetchBlob

CODE_MOST = 64 << 20
INPUTS_MOST = 64 << 20
"""Bytes of stored results that one call is given."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """What a call needs beside its code: its arguments if they are not in it, the stored results of steps by digest."""

    args: bytes | None = None
    inputs: dict[str, bytes] = field(default_factory=dict)

    def frames(self) -> bytes:
        """The inputs as the warm process is told them, before the call."""
        return (
            b"".join([frame(BODY, Body(digest, data)) for digest, data in self.inputs.items()]) if self.inputs else b""
        )


NOTHING = Fetched()
"""What most calls need."""


class FunctionBodies:
    """Pickled functions by digest, the newest up to ``CODE_MOST`` bytes."""

    def __init__(self, fetch: FetchBlob) -> None:
        self._fetch = fetch
        self._code: OrderedDict[str, bytes] = OrderedDict()

    def has(self, call: FunctionCall) -> bool:
        """Whether the call can start without fetching anything."""
        return call.code in self._code and call.args is not None and not (call.inputs and _digests(call))

    def code(self, digest: str) -> bytes:
        return self._code[digest]

    async def fetch(self, task: int, call: FunctionCall) -> Fetched:
        """Make the code ready, and give the rest. Raises OSError and TimeoutError."""
        if call.code not in self._code:
            self._code[call.code] = await self._fetch(task, call.code)
            while len(self._code) > 1 and sum(map(len, self._code.values())) > CODE_MOST:
                self._code.popitem(last=False)
        args = None if call.args is not None else await self._fetch(task, call.args_digest or "")
        inputs: dict[str, bytes] = {}
        for digest in _digests(call):
            inputs[digest] = await self._fetch(task, digest)
            if sum(map(len, inputs.values())) > INPUTS_MOST:
                raise OSError(f"the results of earlier steps take more than {INPUTS_MOST} bytes: write them to files")
        return Fetched(args, inputs)


def _digests(call: FunctionCall) -> dict[str, None]:
    """Of the stored results that it is given, each once."""
    return {digest: None for given in call.inputs.values() for digest in given.digests if digest}
