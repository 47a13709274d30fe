"""Processes: an assignment becomes an order to the supervisor, its report an end."""

import asyncio
import errno
import logging
import os
import time
from pathlib import Path
from typing import Any

from jarvis.core.attempt import Output
from jarvis.core.ids import SOLO
from jarvis.core.inputs import Ended
from jarvis.core.states import Cause
from jarvis.core.task import INLINE_LIMIT, TaskSpec
from jarvis.worker.account import Account, Accounts, NoSuchUser
from jarvis.worker.attempt_files import AttemptFiles
from jarvis.worker.ends import FENCE_TEXT, FENCED, cause_of, usage_of
from jarvis.worker.lanes import STALLED_S, Lane, Lanes
from jarvis.worker.logs import Shipper, inline_output, read_range
from jarvis.worker.machine import Work
from jarvis.worker.places import INNER, Places, made
from jarvis.worker.process_orders import Pattern
from jarvis.worker.remover import Remover
from jarvis.worker.supervisor_client import SupervisorClient
from jarvis.worker.task_environment import FOLDER, Where, environment, hostfile, output_path
from jarvis.worker.task_executor import FetchBlob, Reports, Spawn, cut, failed, lost

log = logging.getLogger("jarvis.processes")
PORTION = 8
"""Orders that are given ahead in one turn of the loop."""
RETRY_S = 1.0
"""Between two tries to start something that cannot start now: the disk is full, or the leader is not heard of."""


class MissingInput(Exception):
    """A script or a list of lines that the server did not give."""


class ProcessExecutor:
    """See the port. Inputs, directories, output files and ends of containers are the same and are handled here too."""

    def __init__(
        self, supervisor: SupervisorClient, reports: Reports, shipper: Shipper, remover: Remover, accounts: Accounts,
        directory: Path, node: str, api_url: str, fetch: FetchBlob, spawn: Spawn, files: AttemptFiles,
    ) -> None:  # fmt: skip
        self._supervisor, self._reports, self._shipper, self._remover = supervisor, reports, shipper, remover
        self._accounts, self._directory, self._node, self._api_url = accounts, directory, node, api_url
        self._fetch, self._spawn, self._files = fetch, spawn, files
        self._preparing: set[int] = set()
        self._lines: dict[str, list[bytes]] = {}
        self._pattern: Pattern | None = None
        """Of the last order."""
        self._me = os.geteuid()
        self._lanes = Lanes()
        self._stall_timer: asyncio.TimerHandle | None = None
        self._acks: list[int] = []
        self._output = directory / "output"
        self._places = Places(directory / "places")
        for folder in (self._output, directory / "scripts"):
            folder.mkdir(mode=0o711, exist_ok=True)

    # ------------------------------------------------------------ orders

    def start(self, work: Work) -> None:
        inputs = self._inputs_at_hand(work)
        if inputs is None:
            self._preparing.add(work.number)
            self._spawn(self._start_with_blobs(work), work)
        else:
            self._order(work, *inputs)

    async def _start_with_blobs(self, work: Work) -> None:
        try:
            script, entry = await self.inputs(work)
        except MissingInput as error:
            if work.number in self._preparing:
                self._preparing.discard(work.number)
                self._reports.finished(failed(work, f"node {self._node}: {error}"))
            return
        if work.number in self._preparing:
            self._preparing.discard(work.number)
            self._order(work, script, entry)

    def _inputs_at_hand(self, work: Work) -> tuple[str | None, str | None] | None:
        """As :meth:`inputs`; None when one of them must be fetched first."""
        script = entry = None
        array = work.spec.array
        if work.spec.push and not self._files.at_hand(work, f"{self._base(work)}.d"):
            return None
        if work.spec.script is not None:
            script = f"{self._directory}/scripts/{work.spec.script}"
            if not os.path.exists(script):
                return None
        if array is not None and array.entries is not None:
            lines = self._lines.get(array.entries, ())
            if work.assignment.position >= len(lines):
                return None
            entry = os.fsdecode(lines[work.assignment.position])
        return script, entry

    async def inputs(self, work: Work) -> tuple[str | None, str | None]:
        """What the task needs first: (path of its script, its line of ``--each-line``), and its directory; raises
        :class:`MissingInput`."""
        script = entry = None
        array = work.spec.array
        try:
            if work.spec.script is not None:
                script = await self._script(work, work.spec.script)
            if array is not None and array.entries is not None:
                entry = os.fsdecode((await self._entries(work, array.entries))[work.assignment.position])
            if work.spec.own_directory:
                account = self._accounts.of(work.assignment.user)
                await self._files.make(work, account, self.scratch(work, account))
        except (OSError, TimeoutError, IndexError, NoSuchUser) as error:
            raise MissingInput(f"an input could not be fetched: {error}") from None
        return script, entry

    async def _entries(self, work: Work, digest: str) -> list[bytes]:
        """The lines of ``--each-line``, kept for the other elements of the array."""
        lines = self._lines.get(digest)
        if lines is None:
            data = await self._fetch(work.assignment.task, digest)
            lines = data.removesuffix(b"\n").split(b"\n")
            if len(self._lines) >= 4:
                self._lines.pop(next(iter(self._lines)))
            self._lines[digest] = lines
        return lines

    async def _script(self, work: Work, digest: str) -> str:
        """By digest, read-only, once for all who run it."""
        path = self._directory / "scripts" / digest
        if not path.exists():
            data = await self._fetch(work.assignment.task, digest)
            temporary = path.with_name(f".{digest}.{work.number}")
            temporary.write_bytes(data)
            temporary.chmod(0o555)
            temporary.rename(path)
        return str(path)

    def _order(self, work: Work, script: str | None, entry: str | None) -> None:
        try:
            message = self._message(work, script, entry)
        except (NoSuchUser, OSError) as error:
            if isinstance(error, OSError) and error.errno == errno.ENOSPC:
                self._wait(work, "the disk of this node is full")
            else:
                self._reports.finished(failed(work, f"node {self._node}: {error}"))
            return
        lane = self._lanes.open(work, time.monotonic())
        message["slot"] = lane.ident
        self._supervisor.send(message)
        self._fill(lane)

    def _fill(self, lane: Lane) -> None:
        """Hand short processes ahead, so that the supervisor never waits for the next. What cannot be ordered at once goes
        back, and waits or fails when its turn comes. In portions, so that the first begin while places of the others are made."""
        room = self._lanes.room(lane)
        works = self._reports.ahead(lane.work, min(room, PORTION)) if room else []
        refused = []
        for work in works:
            work.shares = lane.work.shares
            inputs = self._inputs_at_hand(work)
            try:
                if inputs is None:
                    raise FileNotFoundError
                message = self._message(work, *inputs)
            except (NoSuchUser, OSError):
                refused.append(work)
                continue
            self._lanes.add(lane, work)
            message["slot"] = lane.ident
            self._supervisor.send(message)
        if refused:
            self._reports.withdrawn(refused)
        if len(works) == PORTION:
            asyncio.get_running_loop().call_soon(self._fill_further, lane)
        if self._stall_timer is None and self._lanes.some_wait:
            self._stall_timer = asyncio.get_running_loop().call_later(STALLED_S / 2, self._check_stalls)

    def _fill_further(self, lane: Lane) -> None:
        if self._lanes.of(lane.work.number) is lane:
            self._fill(lane)

    def _check_stalls(self) -> None:
        self._stall_timer = None
        stalled = self._lanes.stalled(time.monotonic())
        if stalled:
            self._supervisor.send({"op": "recall", "numbers": stalled})
        if self._lanes.some_wait:
            self._stall_timer = asyncio.get_running_loop().call_later(STALLED_S / 2, self._check_stalls)

    def withdraw(self, work: Work) -> None:
        self._supervisor.send({"op": "recall", "numbers": [work.number]})

    def not_begun(self, numbers: list[int]) -> None:
        """The supervisor gave these back from their lanes, or did not take them."""
        works = self._lanes.withdraw(numbers)
        for work in works:
            self._leave(work)
        if works:
            self._reports.withdrawn(works)

    def find_places(self, used: set[str]) -> None:
        """What agents before this one left goes, or is given again, but for what is in use."""
        for name in self._places.find(used):
            self._remover.add(self._places.base(name))

    def adopt_lane(self, ident: int, works: list[Work]) -> None:
        """The first of them runs, the others follow it."""
        self._lanes.adopt(ident, works[0], works[1:], time.monotonic())

    def _wait(self, work: Work, why: str) -> None:
        """Nothing has begun, so the same number is ordered again, until it is stopped."""
        if work.stop_cause is not None:
            self._reports.finished(cut(work, work.stop_cause, "stopped before it started"))
            return
        log.warning("assignment %d waits: %s", work.number, why)
        self._preparing.add(work.number)
        self._spawn(self._order_again(work), work)

    async def _order_again(self, work: Work) -> None:
        await asyncio.sleep(RETRY_S)
        if work.number in self._preparing:
            self._preparing.discard(work.number)
            self.start(work)

    def environment(self, work: Work, account: Account, scratch: str, entry: str | None = None) -> dict[str, str]:
        place = Where(self._node, account.home, account.name, account.shell, scratch, time.time(), self._api_url)
        return environment(work, place, entry)

    def _message(self, work: Work, script: str | None, entry: str | None) -> dict[str, Any]:
        """The order for the supervisor; makes the attempt's directory."""
        spec, account = work.spec, self._accounts.of(work.assignment.user)
        pattern = self._pattern
        if pattern is None or not pattern.fits(spec, account):
            pattern = self._pattern = Pattern(spec, script, account, self._node, self._api_url)
        message = pattern.order(work, self.scratch(work, account), time.time(), entry)
        message["stdout"], stderr = self.output_paths(work)
        if stderr is not None:
            message["stderr"] = stderr
        if spec.own_directory:
            message["cwd"] = self._own_directory(work)
        return message

    def scratch(self, work: Work, account: Account) -> str:
        """The attempt's own directory: in a place where it may be given again, else in the one of its task."""
        switch, gang = account.switch, work.assignment.gang
        if work.spec.kind == "process" and not work.spec.own_directory and gang is None and not work.place:
            if self._acks:
                self._send_acks()  # the supervisor forgets who had a place before it hears who has it next
            given = self._places.take(switch["uid"] if switch is not None else self._me)
            work.place = given or self._places.name()
            if given:
                return f"{self._places.base(given)}.d"
        scratch = f"{self._base(work)}.d"
        self._make_scratch(work, scratch, switch)
        if gang is not None:
            _write(f"{scratch}/hostfile", hostfile(work), account)
        return scratch

    def _make_scratch(self, work: Work, scratch: str, switch: dict[str, Any] | None) -> None:
        folders = [scratch, *(f"{scratch}/{name}" for name in INNER)]
        if work.spec.own_directory and not work.spec.push:
            folders.append(f"{scratch}/{FOLDER}")
        while not made(folders):
            os.mkdir(os.path.dirname(scratch), 0o711)
        if switch is not None:
            for folder in reversed(folders):
                os.chown(folder, switch["uid"], switch["gid"], follow_symlinks=False)

    def directory_of(self, work: Work, account: Account) -> str:
        """Where it runs: a directory of its own where it was sent files or leaves some, else the one that it names."""
        return self._own_directory(work) or work.spec.cwd or account.home

    def _own_directory(self, work: Work) -> str:
        if not work.spec.own_directory:
            return ""
        return os.path.join(f"{self._base(work)}.d", FOLDER, work.spec.cwd or "").rstrip("/")

    def _base(self, work: Work) -> str:
        if work.place:
            return self._places.base(work.place)
        a = work.assignment
        return f"{self._output}/{a.task}/{a.index if a.index != SOLO else 'task'}.{a.attempt}"

    def output_paths(self, work: Work) -> tuple[str, str | None]:
        """(stdout, stderr): one file unless the errors were asked for apart."""
        spec = work.spec
        if not spec.stdout and not spec.stderr:
            return f"{self._base(work)}.out", None
        below = self._own_directory(work) or spec.cwd or "/"
        stdout = output_path(spec.stdout, work, self._node, below) if spec.stdout else f"{self._base(work)}.out"
        stderr = output_path(spec.stderr, work, self._node, below) if spec.stderr else None
        return stdout, stderr

    def output_of(self, work: Work, stream: str) -> tuple[str, int]:
        stdout, stderr = self.output_paths(work)
        return (stderr if stream == "stderr" and stderr is not None else stdout), 0

    def exec_place(self, work: Work) -> tuple[dict[str, str], str]:
        """Environment and directory of another process beside the task's own."""
        account = self._accounts.of(work.assignment.user)
        return self.environment(work, account, f"{self._base(work)}.d"), self.directory_of(work, account)

    def kill(self, work: Work, cause: Cause, grace_s: float) -> None:
        if work.number in self._preparing:
            self._preparing.discard(work.number)
            self._reports.finished(cut(work, cause, "stopped before it started"))
            return
        self._supervisor.send({"op": "kill", "number": work.number, "grace_s": grace_s, "cause": str(cause)})

    def signal(self, work: Work, signum: int) -> None:
        self._supervisor.send({"op": "signal", "number": work.number, "signum": signum})

    def broke(self, work: Work, message: str) -> None:
        """What the supervisor has got ends by its report, as ever."""
        self._preparing.discard(work.number)
        if self._lanes.of(work.number) is None:
            self._reports.finished(lost(work, message))

    def forget(self, number: int, work: Work | None) -> None:
        """The supervisor's journal is trimmed; the default output is safe elsewhere. A user's own path is never removed.
        Acknowledgements gather for a turn of the loop."""
        if not self._acks:
            asyncio.get_running_loop().call_soon(self._send_acks)
        self._acks.append(number)
        if work is not None:
            self.discard(work)

    def _send_acks(self) -> None:
        numbers, self._acks = self._acks, []
        if numbers:
            self._supervisor.send({"op": "ack", "numbers": numbers})

    def discard(self, work: Work) -> None:
        """Remove the default output and the directory of an attempt, at a pace, unless another attempt may have them."""
        if work.place:
            self._leave(work)
        else:
            self._remover.add(self._base(work))

    def _leave(self, work: Work) -> None:
        """It needs its place no more."""
        if work.place and (work.spoiled or not self._places.keep(work.place)):
            self._remover.add(self._base(work))
        work.place = ""

    def guard(self, number: int, argv: list[str] | None) -> None:
        """How the supervisor ends what is not its child when the fence closes; None: there is nothing to end any more."""
        self._supervisor.send({"op": "guard", "number": number, "argv": argv})

    # ------------------------------------------------------------ reports

    def reported(self, work: Work, report: dict[str, Any]) -> None:
        """The supervisor says that it ended (or could not be started). What follows it in its lane runs by now."""
        now = time.monotonic()
        if report.get("again"):
            self._leave(work)
            lane = self._lanes.advance(work.number, now)
            if lane is not None or report.get("fenced"):
                self._reports.unbegun(work.number, None if lane is None else lane.work.number)
            else:
                self._wait(work, str(report["error"]))
            return
        work.spoiled |= report.get("usage") is None or bool(report.get("kill_cause"))  # not all of it may be over
        lane = self._lanes.advance(work.number, now, float(report.get("wall_s") or 0.0))
        self._tell_end(work, report, None if lane is None else lane.work.number)
        if lane is not None:
            self._fill(lane)

    def _tell_end(self, work: Work, report: dict[str, Any], heir: int | None) -> None:
        if "code" in report:
            self._reports.finished(failed(work, f"node {self._node}: {report['error']}", int(report["code"])), heir)
            return
        if not (report.get("out_bytes") or _names_files(work.spec)):
            self._reports.finished(self._end(work, report, Output(), None), heir)
            return
        stdout_path, stderr_path = self.output_paths(work)
        owner = self.owner_of(work)
        chosen = work.spec.stdout is not None
        stdout = inline_output(stdout_path, report.get("out_bytes") or 0, chosen, owner if chosen else None)
        stderr = inline_output(stderr_path, report.get("err_bytes") or 0, True, owner) if stderr_path else None
        late = self._files.wanted(work, cause_of(report, work.stop_cause))
        if late or stdout is None or (stderr is None and stderr_path is not None):
            self._reports.vacated(work.number, heir)
            self._spawn(self._ship(work, report, stdout_path, stderr_path), work)
        else:
            self._reports.finished(self._end(work, report, stdout, stderr), heir)

    async def _ship(self, work: Work, report: dict[str, Any], stdout: str, stderr: str | None) -> None:
        number, token, spec = work.number, work.assignment.token, work.spec
        out_size, err_size = int(report.get("out_bytes") or 0), int(report.get("err_bytes") or 0)
        chosen, owner = spec.stdout is not None, self.owner_of(work)
        mine = owner if chosen else None
        out = await self._shipper.ship(number, token, "stdout", stdout, out_size, chosen, owner=mine)
        err = await self._shipper.ship(number, token, "stderr", stderr, err_size, True, owner=owner) if stderr else None
        end = self._end(work, report, out, err)
        if self._files.wanted(work, end.cause):
            end = await self._files.keep(work, f"{self._base(work)}.d", self._uid_of(work), end)
        self._reports.finished(end)

    def owner_of(self, work: Work) -> int | None:
        """Whose the output must be to be read by us; None where the path is our own, or we are who runs it."""
        return None if work.spec.stdout is None and work.spec.stderr is None else self._uid_of(work)

    def _uid_of(self, work: Work) -> int | None:
        """As whom it runs, where that is somebody else than we."""
        try:
            switch = self._accounts.of(work.assignment.user).switch
        except NoSuchUser:
            return None
        return switch["uid"] if switch else None

    def _end(self, work: Work, report: dict[str, Any], stdout: Output, stderr: Output | None) -> Ended:
        kill = str(report.get("kill_cause") or "")
        written = None
        if work.spec.origin is not None:  # one byte more than is taken, so that too much is seen to be
            written = read_range(f"{self._base(work)}.d/output.json", 0, INLINE_LIMIT + 1) or None
        return Ended(
            number=work.number, token=work.assignment.token, cause=cause_of(report, work.stop_cause),
            exit_code=report.get("exit_code"), signal=report.get("signal"), stdout=stdout, stderr=stderr,
            usage=usage_of(report), message=FENCE_TEXT if kill == FENCED else kill if " " in kill else "",
            output=written,
        )  # fmt: skip


def _names_files(spec: TaskSpec) -> bool:
    """Whether what it leaves is found elsewhere than in its place."""
    return bool(spec.stderr or spec.artifacts) or spec.stdout is not None


def _write(path: str, text: str, account: Account) -> None:
    """A file for the owner, in a directory that is or will be theirs: links are not followed."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with open(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        if account.switch is not None:
            os.fchown(descriptor, account.switch["uid"], account.switch["gid"])
