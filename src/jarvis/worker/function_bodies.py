"""Code and arguments of calls: code is kept for the calls after, large arguments are fetched each time."""

from collections import OrderedDict

from jarvis.core.task import FunctionCall
from jarvis.worker.task_executor import FetchBlob

CODE_MOST = 64 << 20


class FunctionBodies:
    """Pickled functions by digest, the newest up to ``CODE_MOST`` bytes."""

    def __init__(self, fetch: FetchBlob) -> None:
        self._fetch = fetch
        self._code: OrderedDict[str, bytes] = OrderedDict()

    def has(self, call: FunctionCall) -> bool:
        """Whether the call can start without fetching anything."""
        return call.code in self._code and call.args is not None

    def code(self, digest: str) -> bytes:
        return self._code[digest]

    async def fetch(self, task: int, call: FunctionCall) -> bytes | None:
        """Make the code ready; the arguments if they are not in the call itself. Raises OSError and TimeoutError."""
        if call.code not in self._code:
            self._code[call.code] = await self._fetch(task, call.code)
            while len(self._code) > 1 and sum(map(len, self._code.values())) > CODE_MOST:
                self._code.popitem(last=False)
        return None if call.args is not None else await self._fetch(task, call.args_digest or "")
