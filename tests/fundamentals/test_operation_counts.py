"""What a task costs, in operations instead of seconds: the same on every machine, however busy.

Calls of Jarvis's own functions in the leader's thread, rows changed, and synced transactions. The bounds are what was counted
plus a tenth: who needs more says so by raising one, and gives the reason.
"""

import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NamedTuple

import msgspec
from tests.unit.worker.process_node import Node

import jarvis
from jarvis.api.alike import alike
from jarvis.api.schemas.task_in import TaskFast
from jarvis.api.schemas.task_rules import to_spec
from jarvis.bus.buses.memory import MemoryBus
from jarvis.core.effects import Assignment
from jarvis.core.inputs import Ended, Fact, Hello, NodeConnected, NodeReported
from jarvis.core.states import Cause, State
from jarvis.core.task import ArraySpec, FunctionCall, NewTask, TaskSpec
from jarvis.scheduler.cycle import Policy
from jarvis.scheduler.scheduler import Scheduler
from jarvis.state.store import Submission
from jarvis.state.stores.sqlite import SqliteStore
from jarvis.state.stores.sqlite.writer import Writer
from jarvis.utils.clock import Clock
from jarvis.worker.lanes import DEPTH
from jarvis.worker.machine import Machine

TASKS = 1_000
OWN = str(Path(jarvis.__file__).parent)


class Cost(NamedTuple):
    """Calls and rows for each task; statements (of ``executemany`` each row is one) and transactions in all."""

    calls: float
    rows: float
    statements: int
    commits: int


@contextmanager
def counted_calls() -> Iterator[list[int]]:
    """Calls of Jarvis's functions in this thread, into a list of one."""
    count = [0]

    def called(frame: FrameType, event: str, _: object) -> None:
        count[0] += event == "call" and frame.f_code.co_filename.startswith(OWN)

    before = sys.getprofile()
    sys.setprofile(called)
    try:
        yield count
    finally:
        sys.setprofile(before)


class Meter:
    """Counts what a store and this thread do."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer

    async def of(self, act: Callable[[], Awaitable[object]]) -> Cost:
        commits, rows = self._writer.commits, await self._rows()
        statements: list[str] = []
        await self._writer.do(lambda connection: connection.set_trace_callback(statements.append))
        with counted_calls() as calls:
            await act()
        await self._writer.do(lambda connection: connection.set_trace_callback(None))
        changed = await self._rows() - rows
        return Cost(
            round(calls[0] / TASKS, 1), round(changed / TASKS, 1), len(statements), self._writer.commits - commits - 4
        )  # fmt: skip

    async def _rows(self) -> int:
        return await self._writer.do(lambda connection: connection.total_changes)


async def measured(directory: Path, tasks: list[NewTask]) -> dict[str, Cost]:
    """From the submission in one batch to the last recorded end, on one node with room for all."""
    store = SqliteStore(directory / "state", clock=lambda: 1000.0)
    await store.open()
    scheduler = Scheduler(store, MemoryBus(), Clock(lambda: 1000.0, lambda: 1000.0), Policy, "test")
    await scheduler.start()
    room = {"cpu": 1000 * TASKS}
    hello = Hello(version=1, software="0", name="n1", node=None, boot_id="b", resources=room, labels={})
    await scheduler.run_once([NodeConnected("hello", "s-1", hello)])
    meter = Meter(store._writer)

    async def place() -> None:
        scheduler._next_poll = 0.0
        await scheduler.run_once([])

    async def end() -> None:
        ends: list[Fact] = [
            Ended(number=a.number, token=a.token, cause=Cause.EXIT, exit_code=0)
            for a in scheduler.cluster.attempts.values()
        ]
        await scheduler.run_once([NodeReported("ends", "s-1", 1, 1, ends)])

    costs = {
        "submitted": await meter.of(lambda: store.task_insert_many([Submission(tasks)])),
        "assigned": await meter.of(place),
        "ended": await meter.of(end),
    }
    assert not scheduler.cluster.tasks
    assert {t.state for t in await store.task_get_many([1, 2])} == {State.SUCCEEDED}
    await store.close()
    return costs


def within(costs: dict[str, Cost], bounds: dict[str, Cost]) -> None:
    print(costs)  # noqa: T201 - the figure
    over = {
        stage: (cost, bounds[stage])
        for stage, cost in costs.items()
        if any(is_ > most for is_, most in zip(cost, bounds[stage], strict=True))
    }
    assert not over, "more operations than before: (counted, bound)"


async def test_tasks(tmp_path: Path) -> None:
    spec = TaskSpec(name="t", command=("true",), resources={"cpu": 1000})
    tasks = [NewTask(uuid=f"u{n}", project="p", user="u", spec=spec) for n in range(TASKS)]
    bounds = {"submitted": Cost(0.1, 1.1, 7, 1), "assigned": Cost(6.3, 2.2, 12, 1), "ended": Cost(4.6, 2.2, 9, 1)}
    within(await measured(tmp_path, tasks), bounds)


async def test_elements_of_an_array(tmp_path: Path) -> None:
    spec = TaskSpec(name="t", command=("true",), resources={"cpu": 1000}, array=ArraySpec(((0, TASKS - 1, 1),)))
    bounds = {"submitted": Cost(0.1, 0.1, 7, 1), "assigned": Cost(3.7, 2.2, 13, 1), "ended": Cost(7.8, 2.2, 10, 1)}
    within(await measured(tmp_path, [NewTask(uuid="u", project="p", user="u", spec=spec)]), bounds)


async def test_held_tasks_with_commands_of_their_own(tmp_path: Path) -> None:
    """As benchmarks submit them: from the bytes of a batch to what the leader makes of them."""
    bodies = [b'{"command":["echo","%d"],"hold":true}' % n for n in range(TASKS)]
    decode = msgspec.json.Decoder(TaskFast).decode
    first = to_spec(decode(bodies[0]), 1000.0)
    like = alike(bodies[0], decode(bodies[0]), first, decode)
    with counted_calls() as calls:
        specs = like.read(bodies, 0, TASKS, 1000)
    assert len(specs) == TASKS
    assert calls[0] < 0.1 * TASKS, "members are read together"
    store = SqliteStore(tmp_path / "state", clock=lambda: 1000.0)
    await store.open()
    scheduler = Scheduler(store, MemoryBus(), Clock(lambda: 1000.0, lambda: 1000.0), Policy, "test")
    await scheduler.start()
    tasks = [NewTask(uuid=f"u{n}", project="p", user="u", spec=spec) for n, spec in enumerate(specs)]
    meter = Meter(store._writer)
    costs = {
        "submitted": await meter.of(lambda: store.task_insert_many([Submission(tasks)])),
        "held": await meter.of(lambda: scheduler.run_once([])),
    }
    within(costs, {"submitted": Cost(0.1, 1.1, 7, 1), "held": Cost(0.2, 1.1, 8, 1)})
    assert {task.state for task in await store.task_get_many([1, TASKS])} == {State.HELD}
    await store.close()


def test_calls_on_their_node() -> None:
    """Of the node's logic: taken in, handed ahead to the process of the one before, ended, recorded."""
    spec = TaskSpec(name="f", function=FunctionCall("c", "3.11", args=b""), resources={"cpu": 1000})
    specs = [msgspec.structs.replace(spec, function=FunctionCall("c", "3.11", args=b"%d" % n)) for n in range(TASKS)]
    assignments = [
        Assignment(n + 1, 77, 1, n + 1, -1, "p", "u", msgspec.Raw(msgspec.msgpack.encode(specs[n]))) for n in range(TASKS)
    ]  # fmt: skip
    machine = Machine({"cpu": 1000})
    with counted_calls() as calls:
        machine.assign(assignments)
        machine.ahead(machine.active[1], TASKS)
        for n in range(1, TASKS + 1):
            end = Ended(number=n, token=77, cause=Cause.EXIT, exit_code=0)
            machine.finished(end, n + 1 if n < TASKS else None)
        machine.recorded(range(1, TASKS + 1), TASKS + 1)
    assert len({id(work.spec) for work in machine.everything()}) <= 1
    assert not machine.ended
    print(calls[0] / TASKS)  # noqa: T201 - the figure
    assert calls[0] / TASKS <= 14.5


def test_processes_in_the_supervisor(tmp_path: Path) -> None:
    """Of one lane, so that each ends in a turn of its own."""
    script = Path(__file__).with_name("supervised.py")
    counted = subprocess.run(
        [sys.executable, script, tmp_path], capture_output=True, text=True, timeout=120, check=True
    )
    assert float(counted.stdout) <= 107


async def test_processes_on_their_node(tmp_path: Path) -> None:
    """Of the agent: taken in, ordered in the lane of the one before, ended, recorded; and what it does to files."""
    node = Node(tmp_path)
    node.assign([1])
    node.ended(1)
    node.recorded([1])
    numbers = list(range(2, TASKS + 2))
    before = {path.stat().st_ino for path in (tmp_path / "places").rglob("*")}
    with counted_calls() as calls:
        node.assign(numbers)
        for at in range(0, TASKS, 20):
            for number in numbers[at : at + 20]:
                node.ended(number)
            node.recorded(numbers[at : at + 20])
    assert len(node.heard.said("start")) == TASKS + 1
    places = {path.stat().st_ino for path in (tmp_path / "places").rglob("*")}
    print(calls[0] / TASKS, len(places))  # noqa: T201 - the figure
    assert calls[0] / TASKS <= 59.7
    assert before <= places
    assert len(places) <= 4 * (DEPTH + 21), "of all that ended and were recorded, the files are given again"
    assert not list((tmp_path / "output").iterdir())
