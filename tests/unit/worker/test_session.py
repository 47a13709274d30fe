"""The agent's end of a session: when it comes again, and what it makes of frames that do not follow each other."""

import asyncio
from collections.abc import Callable

import pytest

from jarvis.bus.messages import Heartbeat, ServerFrame, ToAgent, encode
from jarvis.core.effects import Recorded, Refused, Welcome
from jarvis.core.inputs import Hello
from jarvis.core.node import DEFAULT_WINDOWS
from jarvis.worker.session import Session

WELCOME = Welcome(node=1, incarnation=1, epoch=1, heartbeat_s=2.0, fence_s=75.0)
AGAIN = Refused(reason="another leader has taken over", retry_s=0.25)


class Script:
    """A socket on which the server says some frames, and nothing more."""

    def __init__(self, *frames: ServerFrame) -> None:
        self._frames = [encode(frame) for frame in frames]

    async def send(self, data: bytes) -> None:
        """Nobody reads it."""

    async def recv(self) -> bytes:
        if not self._frames:
            raise ConnectionResetError("the script is over")
        return self._frames.pop(0)

    async def close(self) -> None:
        """Nothing is held."""


class Handler:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.got: list[ToAgent] = []

    def hello(self) -> Hello:
        return Hello(version=1, software="1", name="n", node=None, boot_id="b", resources={}, labels={})

    def welcomed(self, welcome: Welcome) -> None:
        """It may begin."""

    def refused(self, refused: Refused) -> bool:
        return False

    def received(self, messages: list[ToAgent]) -> None:
        self.got += messages

    def disconnected(self) -> None:
        """Nothing is open."""


class Anywhere:
    def next(self) -> tuple[str, str]:
        return "", ""

    def moved(self) -> bool:
        return False


async def waits(script: Callable[[], Script], sessions: int, handler: Handler) -> list[float]:
    """How long it would wait at most after each of the sessions."""
    most: list[float] = []
    over = asyncio.Event()

    def jitter(_: float, longest: float) -> float:
        most.append(longest)
        if len(most) == sessions:
            over.set()
        return 0.0

    async def dial(url: str, token: str) -> Script:
        await asyncio.sleep(0)  # nothing else here gives others a turn
        return script()

    running = asyncio.create_task(Session(handler, Anywhere(), dial, jitter).run())
    await over.wait()
    running.cancel()
    await asyncio.wait([running])
    return most[:sessions]


@pytest.mark.parametrize("welcomed", [True, False])
async def test_it_comes_again_when_the_server_said(welcomed: bool) -> None:
    """However short its sessions were: a new leader ends each of them soon after it began."""

    def script() -> Script:
        first = [ServerFrame(1, 0, [WELCOME])] if welcomed else []
        return Script(*first, ServerFrame(len(first) + 1, 0, [AGAIN]))

    assert await waits(script, 6, Handler()) == [0.25] * 6


async def test_a_server_that_just_goes_is_given_longer_and_longer() -> None:
    assert await waits(lambda: Script(ServerFrame(1, 0, [WELCOME])), 7, Handler()) == [
        0.05, 0.1, 0.2, 0.4, 0.8, 0.8, 0.8,
    ]  # fmt: skip


async def test_after_a_long_outage_it_tries_more_than_once_before_its_node_is_lost() -> None:
    def script() -> Script:
        raise ConnectionRefusedError

    longest = (await waits(script, 20, Handler()))[-1]
    assert 3 * longest < DEFAULT_WINDOWS.lost_s


async def test_a_frame_that_comes_again_is_passed_over_and_a_missing_one_ends_the_session() -> None:
    handler = Handler()
    one, two, four = (ServerFrame(n, 0, [Recorded(numbers=[n])]) for n in (2, 3, 5))
    await waits(lambda: Script(ServerFrame(1, 0, [WELCOME]), one, one, two, one, four, two), 1, handler)
    assert handler.got[:2] == [Recorded(numbers=[2]), Recorded(numbers=[3])]
    assert Recorded(numbers=[5]) not in handler.got


class Talker(Handler):
    """Has much to say at once, and more with each word of the server."""

    session: Session

    def welcomed(self, welcome: Welcome) -> None:
        self.say(5)

    def received(self, messages: list[ToAgent]) -> None:
        super().received(messages)
        self.say(2)

    def say(self, count: int) -> None:
        for _ in range(count):
            self.session.say(Heartbeat())


async def test_what_an_agent_begins_with_does_not_end_the_session_however_much_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("jarvis.worker.session.OUTBOX_LIMIT", 3)
    script = Script(ServerFrame(1, 0, [WELCOME]), *(ServerFrame(n, 0, [Recorded(numbers=[n])]) for n in range(2, 6)))
    handler, over = Talker(), asyncio.Event()

    async def dial(url: str, token: str) -> Script:
        return script

    def jitter(_: float, longest: float) -> float:
        over.set()
        return longest

    handler.session = Session(handler, Anywhere(), dial, jitter)
    running = asyncio.create_task(handler.session.run())
    await over.wait()
    running.cancel()
    await asyncio.wait([running])
    assert [word.numbers for word in handler.got] == [[2], [3]], "what comes on top of it does"  # type: ignore[union-attr]
