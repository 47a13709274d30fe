"""A simulated node: the real machine and session in an agent that may crash, over processes and a journal that outlive it."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

from jarvis.bus.messages import PROTOCOL_VERSION, Heartbeat, ToAgent
from jarvis.core.attempt import Usage
from jarvis.core.effects import Assign, Recall, Recorded, Refused, Seen, Signal, Stop, Welcome
from jarvis.core.inputs import Ended, Hello
from jarvis.core.resources import Resources
from jarvis.core.states import Cause
from jarvis.core.task import ADDRESS_LABEL
from jarvis.sim.scarcity import FILES
from jarvis.worker.fence import Fence
from jarvis.worker.holding import Holding
from jarvis.worker.machine import Forget, Instruction, Kill, Machine, Say, Start, Work
from jarvis.worker.session import Session, Socket

if TYPE_CHECKING:
    from jarvis.sim.judge import Judge
    from jarvis.sim.network import Network

FILES_MOST = 2
"""Sets of files that a node has room for."""
CHECK_S = 10.0
"""As in the agent: so often it looks for ends that nobody recorded."""
REPORT_S = 0.001
ORDER_AGAIN_S = 1.0
"""As in the agent: after the supervisor took an order back."""


@dataclass(slots=True)
class Process:
    """What the supervisor holds of an attempt: its plan is in its command, ``cause`` is there once it is over."""

    work: Work
    began: float
    timer: asyncio.TimerHandle | None = None
    cause: Cause | None = None
    exit_code: int | None = None
    wall_s: float = 0.0


class Node:
    """A computer. Its processes and its journal outlive the agent; its identity outlives everything."""

    def __init__(self, name: str, total: Resources, random: Random, *, network: "Network", judge: "Judge",
                 new_machine: Callable[[Resources], Machine]) -> None:  # fmt: skip
        self.name, self.total, self.random, self.network, self.judge = name, total, random, network, judge
        self.new_machine = new_machine
        self.rate = random.uniform(0.8, 1.25)
        """How fast its clock goes."""
        self.node: int | None = None
        self.leader = (0, 0)
        self.boots, self.booted_at = 1, 0.001
        self.processes: dict[int, Process] = {}
        self.acknowledged: set[int] = set()
        self.files: dict[str, int] = {}
        """Kept for others, the one used last comes last."""
        self.fence_until = 0.0
        self._fence_timer: asyncio.TimerHandle | None = None
        self.agent: Agent | None = None
        self.messages_get_lost = False
        """Between servers: then its agent says, as the real one always does, how many it has received."""

    # ------------------------------------------------------------ life

    def start(self) -> None:
        """Start the agent, unless it runs."""
        if self.agent is None:
            self.agent = Agent(self)
            self.agent.start()

    def crash_agent(self) -> None:
        """The agent is gone, its sockets are closed, its processes go on."""
        self._drop_agent()
        self.network.cut(self.name)

    def crash_supervisor(self) -> None:
        """With the supervisor go the agent and all processes; its successor knows what the journal says."""
        self.crash_agent()
        for process in self.processes.values():
            self._over(process, Cause.SUPERVISOR_LOST, None)

    def reboot(self) -> None:
        """Power loss: nothing but the journal of another boot is left, and nobody says goodbye."""
        self._drop_agent()
        self.network.vanish(self.name)
        self.boots += 1
        self.booted_at = asyncio.get_running_loop().time()
        for process in self.processes.values():
            self._over(process, Cause.SUPERVISOR_LOST, None)

    def _drop_agent(self) -> None:
        if self.agent is not None:
            self.agent.stop()
            self.agent = None

    # ------------------------------------------------------------ the supervisor's part

    def spawn(self, work: Work) -> None:
        """Run it, unless its number was seen before: then say again what became of it."""
        number = work.number
        known = self.processes.get(number)
        if known is not None or number in self.acknowledged:
            self._report(number)
            return
        loop = asyncio.get_running_loop()
        process = self.processes[number] = Process(work, loop.time())
        _, seconds, *codes = _plan(work)
        if seconds < 0:
            self._over(process, Cause.START_FAILED, 127)
            return
        self.judge.process_started(self.name, work)
        self._fetch(work.spec.push)
        code = codes[min(work.assignment.attempt, len(codes)) - 1] if _decides(work) else "0"
        limit = work.spec.time_limit
        wall = seconds * self.rate
        if limit is not None and limit < wall:
            process.timer = loop.call_later(limit, self._over, process, Cause.TIMEOUT, None)
        else:
            process.timer = loop.call_later(wall, self._over, process, Cause.EXIT, int(code))
        self._report(number)

    def _fetch(self, files: tuple[str, ...]) -> None:
        """What it was sent stays here until something else needs the room."""
        for digest in files:
            self.files[digest] = self.files.pop(digest, FILES[digest])
        for digest in list(self.files)[:-FILES_MOST]:
            del self.files[digest]

    def kill(self, number: int, cause: Cause, grace_s: float) -> None:
        """Most obey the soft signal; the others are killed after the grace."""
        process = self.processes.get(number)
        if process is None or process.cause is not None:
            return
        obeys = self.random.random() < 0.7
        wait = self.random.uniform(0.001, grace_s / 2 + 0.002) if obeys else grace_s
        if process.timer is not None:
            due = process.timer.when() - asyncio.get_running_loop().time()
            if due <= wait:
                return
            process.timer.cancel()
        process.timer = asyncio.get_running_loop().call_later(wait, self._over, process, cause, None)

    def extend_fence(self, fence: Fence) -> None:
        """Its seconds are those of this node's clock."""
        until = fence.since + fence.fence_s * self.rate
        if until <= self.fence_until:
            return
        self.fence_until = until
        if self._fence_timer is not None:
            self._fence_timer.cancel()
        self._fence_timer = asyncio.get_running_loop().call_at(until, self._fence_closes, fence.grace_s * self.rate)

    def _fence_closes(self, grace_s: float) -> None:
        for number, process in self.processes.items():
            if process.work.spec.on_lost == "fence":
                self.kill(number, Cause.NODE_LOST, grace_s)

    def acknowledge(self, number: int) -> None:
        """Its end is recorded: it is forgotten, but its number never runs again."""
        self.processes.pop(number, None)
        self.acknowledged.add(number)

    def _over(self, process: Process, cause: Cause, exit_code: int | None) -> None:
        if process.cause is not None:
            return
        if process.timer is not None:
            process.timer.cancel()
            process.timer = None
        process.cause, process.exit_code = cause, exit_code
        process.wall_s = asyncio.get_running_loop().time() - process.began
        self.judge.process_ended(self.name, process.work, cause, exit_code)
        self._report(process.work.number)

    def _report(self, number: int) -> None:
        """Over the agent's socket: an agent that is gone by then does not get it."""
        agent = self.agent
        if agent is not None:
            asyncio.get_running_loop().call_later(REPORT_S, agent.reported, number)


def _decides(work: Work) -> bool:
    """Of a gang one rank alone ends as the plan says, another one each time."""
    gang = work.assignment.gang
    return gang is None or gang.rank == work.assignment.token % len(gang.hosts)


def _plan(work: Work) -> tuple[str, float, *tuple[str, ...]]:
    """(how it ends, seconds it runs, its exit code at each attempt) from the command of a simulated task."""
    command = work.spec.command
    assert isinstance(command, tuple)
    return (command[0], float(command[1]), *command[2:])


class _Anywhere:
    """The only address of the simulated network."""

    def next(self) -> tuple[str, str]:
        return "", ""

    def moved(self) -> bool:
        return False


class Agent:
    """As the real agent: feeds the machine, does what it answers, and is the handler of the session."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.machine = node.new_machine(node.total)
        self.machine.fence_open = False
        self.holding = Holding()
        self.fence = Fence(node.boots << 40 | int(asyncio.get_running_loop().time() * 1e3) << 8)
        self._hello_at = 0.0
        self.session = Session(self, _Anywhere(), self._dial, node.random.uniform)
        self._said: set[int] = set()
        self._tasks: list[asyncio.Task[None]] = []
        self.gone = False

    def start(self) -> None:
        for process in self.node.processes.values():
            work = Work(process.work.assignment, process.work.spec, process.work.shares)
            self.machine.adopt(work, "active" if process.cause is None else "leaving")
        for process in list(self.node.processes.values()):
            if process.cause is not None:
                self._finished(process)
        self._tasks = [asyncio.create_task(self.session.run()), asyncio.create_task(self._beat())]

    def stop(self) -> None:
        self.gone = True
        for task in self._tasks:
            task.cancel()

    async def _dial(self, url: str, token: str) -> Socket:
        return await self.node.network.dial(self.node.name)

    async def _beat(self) -> None:
        checked = 0.0
        while True:
            await asyncio.sleep(2.0 * self.node.rate)
            self._say_heartbeat()
            self._look_at_fence()
            checked += 2.0
            if checked >= CHECK_S:
                checked = 0.0
                self._say_again()

    def _say_heartbeat(self) -> None:
        fenced = self.session.connected and self.machine.fenced
        beat = self.fence.ask(asyncio.get_running_loop().time()) if fenced else 0
        told = self.session.told if self.node.messages_get_lost else -1
        self.holding.found = dict(self.node.files)
        now = asyncio.get_running_loop().time()
        holds = self.holding.to_say(now) if self.session.connected else None
        self.session.say(Heartbeat(told=told, beat=beat, holds=holds))

    def _look_at_fence(self) -> None:
        self.machine.fence_open = asyncio.get_running_loop().time() < self.node.fence_until

    def _fence_moved(self) -> None:
        self.node.extend_fence(self.fence)
        if asyncio.get_running_loop().time() < self.node.fence_until:
            self._do(self.machine.open_fence())

    def _say_again(self) -> None:
        said = set(self.machine.ended)
        for number in sorted(said & self._said):
            self.session.say(self.machine.ended[number])
        self._said = said

    # ------------------------------------------------------------ the supervisor's reports

    def reported(self, number: int) -> None:
        """Something about this number is new, or was asked for again."""
        process = self.node.processes.get(number)
        if self.gone or process is None:
            return
        if process.cause is None:
            self._do(self.machine.started(number))
        elif number in self.machine.active:
            if process.work.spec.command[0] == "ship":  # type: ignore[index]
                self._do(self.machine.vacated(number))
                wait = self.node.random.uniform(0.01, 2.0)
                asyncio.get_running_loop().call_later(wait, self._shipped, process)
            else:
                self._finished(process)

    def _shipped(self, process: Process) -> None:
        if not self.gone:
            self._finished(process)

    def _finished(self, process: Process) -> None:
        work, cause = process.work, process.cause
        assert cause is not None
        end = Ended(
            number=work.number, token=work.assignment.token, cause=cause, exit_code=process.exit_code,
            usage=Usage(wall_s=process.wall_s),
        )  # fmt: skip
        self._do(self.machine.finished(end))

    def _do(self, instructions: list[Instruction]) -> None:
        for item in instructions:
            if isinstance(item, Say):
                self.session.say(item.message)
            elif isinstance(item, Start):
                self._start(item.work)
            elif isinstance(item, Forget):
                self.node.judge.forgotten(self.node.name, item.number)
                self.node.acknowledge(item.number)
            elif isinstance(item, Kill):
                self.node.kill(item.work.number, item.cause, item.grace_s)

    def _start(self, work: Work) -> None:
        """As the supervisor does: nothing fenced begins when the fence is closed, and it is ordered again later."""
        if self.gone:
            return
        if work.stop_cause is not None:
            cut = Ended(number=work.number, token=work.assignment.token, cause=work.stop_cause)
            self._do(self.machine.finished(cut))
        elif work.spec.on_lost == "fence" and asyncio.get_running_loop().time() >= self.node.fence_until:
            self.machine.fence_open = False
            asyncio.get_running_loop().call_later(ORDER_AGAIN_S, self._start, work)
        else:
            self.node.judge.start_ordered(self.node.name, self.node.boots, work)
            self.node.spawn(work)

    # ------------------------------------------------------------ the session

    def hello(self) -> Hello:
        incarnation, epoch = self.node.leader
        self._hello_at = asyncio.get_running_loop().time()
        return Hello(
            version=PROTOCOL_VERSION, software="0", name=self.node.name, node=self.node.node,
            boot_id=f"{self.node.name}-{self.node.boots}", resources=self.node.total, labels={ADDRESS_LABEL: self.node.name},
            known=self.machine.known(), incarnation=incarnation, epoch=epoch,
            ordinal=int(self._hello_at * 1e9), booted_at=self.node.booted_at,
        )  # fmt: skip

    def welcomed(self, welcome: Welcome) -> None:
        if (welcome.incarnation, welcome.epoch) < self.node.leader:
            raise OSError("an older leader")
        self.node.node, self.node.leader = welcome.node, (welcome.incarnation, welcome.epoch)
        self.holding.welcomed(asyncio.get_running_loop().time())
        self._look_at_fence()
        self._do(self.machine.welcomed(welcome.forget, welcome.stop, welcome.floor))
        if self.fence.welcomed(self._hello_at, welcome.fence_s, welcome.grace_s):
            self._fence_moved()
        self._say_heartbeat()

    def refused(self, refused: Refused) -> bool:
        return False

    def disconnected(self) -> None:
        """Nothing is open that would have to be closed."""

    def received(self, messages: list[ToAgent]) -> None:
        for message in messages:
            if isinstance(message, Assign):
                self._look_at_fence()
                self._do(self.machine.assign(message.assignments))
                if self.fence.is_stale(asyncio.get_running_loop().time(), 4.0) and self.machine.fenced:
                    self._say_heartbeat()
            elif isinstance(message, Seen):
                self._look_at_fence()
                if self.fence.answered(message.beat):
                    self._fence_moved()
            elif isinstance(message, Recorded):
                self._do(self.machine.recorded(message.numbers, message.floor))
            elif isinstance(message, Recall):
                self._do(self.machine.recall(message.numbers))
            elif isinstance(message, Stop):
                self._do(self.machine.stop(message.number, message.cause, message.grace_s))
            elif isinstance(message, Signal):
                self._do(self.machine.signal(message.number, message.signum))
