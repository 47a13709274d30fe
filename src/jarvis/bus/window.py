"""Flow control of one direction of a stream: a sender waits while the receiver has not taken what was sent before."""

import asyncio

LIMIT = 256 * 1024
MESSAGE_COST = 256
"""What a message counts for beside its bytes, so that many tiny ones are bounded too."""


def cost(data: bytes) -> int:
    """What a piece counts for in both ends' windows."""
    return len(data) + MESSAGE_COST


class SendWindow:
    """The sender's end: bytes that are under way."""

    def __init__(self) -> None:
        self._under_way = 0
        self._room = asyncio.Event()
        self._room.set()

    async def admit(self, data: bytes) -> None:
        """Wait until the piece may be sent, and count it."""
        await self._room.wait()
        self._change(cost(data))

    def taken(self, size: int) -> None:
        """The receiver says that so much is off its hands."""
        self._change(-size)

    def _change(self, size: int) -> None:
        self._under_way = max(self._under_way + size, 0)
        if self._under_way < LIMIT:
            self._room.set()
        else:
            self._room.clear()


class ReceiveWindow:
    """The receiver's end: what it took and has not told yet; told in few messages."""

    def __init__(self) -> None:
        self._untold = 0

    def took(self, data: bytes) -> int:
        """How much to tell the sender now; 0 while it is too little to be worth a message."""
        self._untold += cost(data)
        if self._untold < LIMIT // 8:
            return 0
        told, self._untold = self._untold, 0
        return told
