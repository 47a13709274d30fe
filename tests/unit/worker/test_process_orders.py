"""What a process executor tells the supervisor, and in which order."""

import asyncio
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any

import msgspec

from jarvis.core.effects import Assignment
from jarvis.core.ids import SOLO
from jarvis.core.inputs import Ended
from jarvis.core.task import TaskSpec
from jarvis.worker.account import Accounts
from jarvis.worker.attempt_files import AttemptFiles
from jarvis.worker.logs import Shipper
from jarvis.worker.machine import Stage, Work
from jarvis.worker.remover import Remover
from jarvis.worker.supervisor_client import SupervisorClient
from jarvis.worker.task_executors.process import ProcessExecutor, work_of

USAGE = {"cpu_user_s": 0.0, "cpu_sys_s": 0.0, "max_rss_bytes": 0, "read_bytes": 0, "write_bytes": 0}
END = {
    "exit_code": 0,
    "signal": None,
    "cause": "exit",
    "kill_cause": None,
    "wall_s": 0.01,
    "usage": USAGE,
    "out_bytes": 0,
}


class Heard(SupervisorClient):
    """A supervisor that only listens."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []

    def send(self, message: dict[str, Any]) -> None:
        self.messages.append(message)


class Agent:
    """What the executor reports to."""

    def __init__(self) -> None:
        self.ends: list[Ended] = []

    def started(self, number: int, age: float = 0.0) -> None: ...
    def vacated(self, number: int, heir: int | None = None) -> None: ...
    def unbegun(self, number: int, heir: int | None) -> None: ...
    def withdrawn(self, works: Sequence[Work]) -> None: ...
    def adopted(self, work: Work, where: Stage) -> None: ...
    def ahead(self, like: Work, limit: int) -> list[Work]:
        return []

    def finished(self, end: Ended, heir: int | None = None) -> None:
        self.ends.append(end)


def work(number: int) -> Work:
    spec = TaskSpec(name="t", command=("true",), cwd="/")
    made = Assignment(
        number=number,
        token=1,
        task=number,
        index=SOLO,
        attempt=1,
        user="root",
        project="p",
        spec=msgspec.Raw(msgspec.msgpack.encode(spec)),
    )
    return Work(made, spec)


async def nothing(*_: object) -> Any: ...


def spawn(coroutine: Coroutine[Any, Any, None]) -> None:
    coroutine.close()


async def test_the_supervisor_forgets_who_had_a_place_before_it_hears_who_has_it_next(tmp_path: Path) -> None:
    """Else an agent that starts anew in between would hear of two attempts in one place."""
    heard, output = Heard(), tmp_path / "output"
    output.mkdir()
    files = AttemptFiles(tmp_path, nothing, nothing, 0)
    executor = ProcessExecutor(
        heard,
        Agent(),
        Shipper(lambda chunk: None),
        Remover(output),
        Accounts(True),
        tmp_path,
        "n",
        "",
        nothing,
        spawn,
        files,
    )
    first, second = work(1), work(2)
    executor.start(first)
    executor.reported(first, END)
    executor.forget(1, first)
    executor.start(second)
    assert [message["op"] for message in heard.messages] == ["start", "ack", "start"]
    assert len({work_of(message["tag"]).place for message in heard.messages if "tag" in message}) == 1
    await asyncio.sleep(0)
    assert len(heard.messages) == 3
