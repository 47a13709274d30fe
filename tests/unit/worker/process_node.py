"""The agent's part of process tasks, real but for the supervisor, which only listens, and the session, to which nobody listens."""

import os
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
from jarvis.worker.machine import Forget, Instruction, Machine, Stage, Start, Work
from jarvis.worker.remover import Remover
from jarvis.worker.supervisor_client import SupervisorClient
from jarvis.worker.task_executors.process import ProcessExecutor

USAGE = {"cpu_user_s": 0.0, "cpu_sys_s": 0.0, "max_rss_bytes": 0, "read_bytes": 0, "write_bytes": 0}
END = {
    "exit_code": 0,
    "signal": None,
    "cause": "exit",
    "kill_cause": None,
    "wall_s": 0.001,
    "usage": USAGE,
    "out_bytes": 0,
}
SPEC = msgspec.Raw(msgspec.msgpack.encode(TaskSpec(name="t", command=("true",), cwd="/", resources={"cpu": 1000})))


class Heard(SupervisorClient):
    """A supervisor that opens the output of what it is told to start, and does nothing else."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []

    def send(self, message: dict[str, Any]) -> None:
        self.messages.append(message)
        if message["op"] == "start":
            os.close(os.open(message["stdout"], os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600))

    def said(self, op: str) -> list[dict[str, Any]]:
        return [message for message in self.messages if message["op"] == op]


class Node:
    """With room for one task at a time."""

    def __init__(self, folder: Path) -> None:
        output = folder / "output"
        output.mkdir()
        self.heard, self.machine = Heard(), Machine({"cpu": 1000})
        self.executor = ProcessExecutor(
            self.heard, self, Shipper(lambda chunk: None), Remover(output), Accounts(True), folder, "n", "", _nothing, _spawn,
            AttemptFiles(folder, _nothing, _nothing, 0),
        )  # fmt: skip

    def assign(self, numbers: Sequence[int]) -> None:
        self._do(self.machine.assign(Assignment(n, 1, 1, n, SOLO, "p", "root", SPEC) for n in numbers))

    def ended(self, number: int) -> None:
        self.executor.reported(self.machine.active[number], END)

    def recorded(self, numbers: Sequence[int]) -> None:
        self._do(self.machine.recorded(numbers, 0))

    def _do(self, instructions: list[Instruction]) -> None:
        for item in instructions:
            if isinstance(item, Start):
                self.executor.start(item.work)
            elif isinstance(item, Forget):
                self.executor.forget(item.number, item.work)

    # ------------------------------------------------------------ what the executor reports

    def started(self, number: int, age: float = 0.0) -> None:
        self._do(self.machine.started(number, age))

    def finished(self, end: Ended, heir: int | None = None) -> None:
        self._do(self.machine.finished(end, heir))

    def vacated(self, number: int, heir: int | None = None) -> None:
        self._do(self.machine.vacated(number, heir))

    def unbegun(self, number: int, heir: int | None) -> None:
        self._do(self.machine.unbegun(number, heir))

    def withdrawn(self, works: Sequence[Work]) -> None:
        self._do(self.machine.withdrawn(works))

    def adopted(self, work: Work, where: Stage) -> None:
        self.machine.adopt(work, where)

    def ahead(self, like: Work, limit: int) -> list[Work]:
        return self.machine.ahead(like, limit)


async def _nothing(*_: object) -> Any: ...


def _spawn(coroutine: Coroutine[Any, Any, None], _: Work | None = None) -> None:
    coroutine.close()
