"""Very many agents in one process: the real session, protocol and machine, a socket and an id for each; tasks are timers.

``python -m tests.chaos.swarm STATE_DIR[:STATE_DIR…] COUNT`` joins the servers of those state directories until its input ends, and
prints a line of figures a second: connected, begun, ended, doubled. With ``--ledger FILE`` each attempt is written down when it
begins and when it ends, so that whoever kills the process knows what it had done.
"""

import argparse
import asyncio
import json
import os
import random
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from jarvis.bus.messages import PROTOCOL_VERSION, Heartbeat, ToAgent
from jarvis.core.attempt import Usage
from jarvis.core.effects import Assign, Assignment, Recall, Recorded, Refused, Stop, Welcome
from jarvis.core.inputs import Ended, Hello
from jarvis.core.resources import Resources
from jarvis.core.states import Cause
from jarvis.worker.machine import Forget, Instruction, Kill, Machine, Say, Start
from jarvis.worker.server_address import ServerAddress
from jarvis.worker.session import Session

TOTAL: Resources = {"cpu": 2000, "memory": 4 << 30}
AT_ONCE = 50
"""Connections that are made at the same time in the beginning; later the sessions' own jitter spreads them."""


class Address(Protocol):
    """Where the next session goes, and whether it need not wait."""

    def next(self) -> tuple[str, str]: ...
    def moved(self) -> bool: ...


class AnyServer:
    """The servers of several state directories in turn; one that does not run is passed over."""

    def __init__(self, directories: list[Path]) -> None:
        self._left = [ServerAddress([], directory / "node.token", directory) for directory in directories]
        random.shuffle(self._left)

    def next(self) -> tuple[str, str]:
        """Raises OSError when none of them runs."""
        for _ in self._left[1:]:
            self._left.append(self._left.pop(0))
            with suppress(OSError):
                return self._left[-1].next()
        self._left.append(self._left.pop(0))
        return self._left[-1].next()

    def moved(self) -> bool:
        return self._left[-1].moved()


class Swarm:
    """What all of them do, counted, and written to ``ledger`` (a descriptor) if there is one."""

    def __init__(self, ledger: int | None = None) -> None:
        self._ledger = ledger
        self.agents: list[Agent] = []
        self.begun: dict[tuple[int, int, int], int] = {}
        """(task, index, attempt) → how often it was begun."""
        self.ended = 0
        self.by_agent: dict[str, int] = {}

    def note(self, what: str, assignment: Assignment) -> None:
        if self._ledger is not None:
            a = assignment
            os.write(self._ledger, f"{what} {a.task} {a.index} {a.attempt} {a.token}\n".encode())

    def figures(self) -> dict[str, int]:
        return {
            "connected": sum(agent.session.connected for agent in self.agents),
            "begun": len(self.begun), "ended": self.ended,
            "doubled": sum(count > 1 for count in self.begun.values()),
            "fewest": min((self.by_agent.get(agent.name, 0) for agent in self.agents), default=0),
            "ids": len({agent.node for agent in self.agents if agent.node is not None}),
        }  # fmt: skip


class Agent:
    """As the real agent, without processes."""

    def __init__(self, swarm: Swarm, name: str, address: Address, total: Resources = TOTAL) -> None:
        self._swarm, self.name, self._total = swarm, name, total
        self.node: int | None = None
        self._leader = (0, 0)
        self.machine = Machine(total)
        self.session = Session(self, address)
        self._timers: dict[int, tuple[asyncio.TimerHandle, Assignment, float]] = {}
        self._beat_s = 2.0

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.session.run())
            group.create_task(self._beat())

    async def _beat(self) -> None:
        beats = 0
        while True:
            await asyncio.sleep(self._beat_s * random.uniform(0.9, 1.1))
            self.session.say(Heartbeat(health={"cpu_ratio": 0.1, "load1": 0.5}, told=self.session.told))
            beats += 1
            if beats % 5 == 0:
                for end in list(self.machine.ended.values()):
                    self.session.say(end)

    # ------------------------------------------------------------ the session's handler

    def hello(self) -> Hello:
        return Hello(
            version=PROTOCOL_VERSION, software="0", name=self.name, node=self.node, boot_id=f"boot-{self.name}",
            resources=self._total, labels={}, known=self.machine.known(), incarnation=self._leader[0], epoch=self._leader[1],
            ordinal=time.monotonic_ns(),
        )  # fmt: skip

    def welcomed(self, welcome: Welcome) -> None:
        self.node, self._leader = welcome.node, (welcome.incarnation, welcome.epoch)
        self._beat_s = welcome.heartbeat_s
        self._do(self.machine.welcomed(welcome.forget, welcome.stop, welcome.floor))
        self.session.say(Heartbeat(health={}, told=self.session.told))

    def refused(self, refused: Refused) -> bool:
        return False

    def disconnected(self) -> None:
        """Nothing is open that would have to be closed."""

    def received(self, messages: list[ToAgent]) -> None:
        for message in messages:
            if isinstance(message, Assign):
                self._do(self.machine.assign(message.assignments))
            elif isinstance(message, Recorded):
                self._do(self.machine.recorded(message.numbers, message.floor))
            elif isinstance(message, Recall):
                self._do(self.machine.recall(message.numbers))
            elif isinstance(message, Stop):
                self._do(self.machine.stop(message.number, message.cause, message.grace_s))

    # ------------------------------------------------------------ tasks

    def _do(self, instructions: list[Instruction]) -> None:
        for item in instructions:
            if isinstance(item, Say):
                self.session.say(item.message)
            elif isinstance(item, Start):
                self._start(item)
            elif isinstance(item, Kill):
                self._over(item.work.number, item.work.assignment.token, item.cause, None)
            elif isinstance(item, Forget):
                self._timers.pop(item.number, None)

    def _start(self, item: Start) -> None:
        work = item.work
        key = (work.assignment.task, work.assignment.index, work.assignment.attempt)
        self._swarm.begun[key] = self._swarm.begun.get(key, 0) + 1
        self._swarm.note("begin", work.assignment)
        command = work.spec.command
        seconds = float(command[1]) if isinstance(command, tuple) and command[0] == "sleep" else 0.0
        self._do(self.machine.started(work.number))
        later = asyncio.get_running_loop().call_later
        timer = later(seconds, self._over, work.number, work.assignment.token, Cause.EXIT, 0)
        self._timers[work.number] = timer, work.assignment, time.monotonic()

    def _over(self, number: int, token: int, cause: Cause, exit_code: int | None) -> None:
        if number not in self._timers:
            return
        timer, assignment, begun = self._timers.pop(number)
        timer.cancel()
        self._swarm.note("end", assignment)
        self._swarm.ended += 1
        self._swarm.by_agent[self.name] = self._swarm.by_agent.get(self.name, 0) + 1
        usage = Usage(wall_s=time.monotonic() - begun)
        end = Ended(number=number, token=token, cause=cause, exit_code=exit_code, usage=usage)
        self._do(self.machine.finished(end))


async def main(options: argparse.Namespace) -> None:
    directories = [Path(name) for name in options.directories.split(":")]
    ledger = None if options.ledger is None else os.open(options.ledger, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    swarm, total = Swarm(ledger), TOTAL if options.cpus is None else TOTAL | {"cpu": options.cpus * 1000}
    running: list[asyncio.Task[None]] = []
    for number in range(options.count):
        swarm.agents.append(Agent(swarm, f"{options.name}{number}", AnyServer(directories), total))
        running.append(asyncio.create_task(swarm.agents[-1].run()))
        if number % AT_ONCE == AT_ONCE - 1:
            await asyncio.sleep(0.1)
    over = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), over.set)
    while not over.is_set():
        sys.stdout.write(json.dumps(swarm.figures()) + "\n")
        sys.stdout.flush()
        try:
            async with asyncio.timeout(1.0):
                await over.wait()
        except TimeoutError:
            continue
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("directories")
    parser.add_argument("count", type=int)
    parser.add_argument("--name", default="sim", help="what the names of the nodes begin with")
    parser.add_argument("--cpus", type=int, help="of each node")
    parser.add_argument("--ledger", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    asyncio.run(main(arguments()))
