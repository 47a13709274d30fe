"""Processes: an assignment becomes an order to the supervisor, its report an end."""

import asyncio
import base64
import os
import time
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

import msgspec

from jarvis.core.attempt import Output, Usage
from jarvis.core.effects import Assignment
from jarvis.core.inputs import Ended
from jarvis.core.states import Cause
from jarvis.core.task import TaskSpec
from jarvis.worker.account import Account, NoSuchUser, account_of
from jarvis.worker.logs import Shipper, inline_output, remove_quietly
from jarvis.worker.machine import Work
from jarvis.worker.supervisor_client import SupervisorClient
from jarvis.worker.task_environment import Place, environment, output_path
from jarvis.worker.task_executor import Reports, failed

FetchBlob = Callable[[int, str], Awaitable[bytes]]
CAUSES = {
    "exit": Cause.EXIT, "signal": Cause.SIGNAL, "timeout": Cause.TIMEOUT, "oom": Cause.OOM,
    "output_limit": Cause.OUTPUT_LIMIT, "supervisor_lost": Cause.SUPERVISOR_LOST,
}  # fmt: skip


class Tag(msgspec.Struct, array_like=True):
    """What the supervisor keeps with an attempt, so that an agent that starts anew can adopt it."""

    assignment: Assignment
    gpus: tuple[int, ...] = ()


class ProcessExecutor:
    """See the port."""

    def __init__(
        self, supervisor: SupervisorClient, reports: Reports, shipper: Shipper, directory: Path, node: str,
        allow_root: bool, fetch: FetchBlob, spawn: Callable[[Coroutine[Any, Any, None]], None],
    ) -> None:  # fmt: skip
        self._supervisor, self._reports, self._shipper = supervisor, reports, shipper
        self._directory, self._node, self._allow_root = directory, node, allow_root
        self._fetch, self._spawn = fetch, spawn
        self._folders: set[int] = set()

    # ------------------------------------------------------------ orders

    def start(self, work: Work) -> None:
        array = work.spec.array
        if work.spec.script is not None or (array is not None and array.entries is not None):
            self._spawn(self._start_with_blobs(work))
        else:
            self._order(work, None, None)

    async def _start_with_blobs(self, work: Work) -> None:
        """Fetch what the task needs first: a script, the lines of ``--each-line``."""
        script = entry = None
        array = work.spec.array
        try:
            if work.spec.script is not None:
                script = await self._script(work, work.spec.script)
            if array is not None and array.entries is not None:
                lines = (await self._fetch(work.assignment.task, array.entries)).split(b"\n")
                entry = os.fsdecode(lines[work.assignment.position])
        except (OSError, TimeoutError, IndexError) as error:
            self._reports.finished(failed(work, f"an input could not be fetched: {error}"))
            return
        if work.stop_cause is None:
            self._order(work, script, entry)

    async def _script(self, work: Work, digest: str) -> str:
        path = self._directory / "scripts" / digest
        if not path.exists():
            path.parent.mkdir(mode=0o711, exist_ok=True)
            temporary = path.with_name(f".{digest}.{work.number}")
            temporary.write_bytes(await self._fetch(work.assignment.task, digest))
            temporary.chmod(0o755)
            temporary.rename(path)
        return str(path)

    def _order(self, work: Work, script: str | None, entry: str | None) -> None:
        try:
            account = account_of(work.assignment.user, self._allow_root)
            scratch = self._scratch(work, account)
        except (NoSuchUser, OSError) as error:
            self._reports.finished(failed(work, f"node {self._node}: {error}"))
            return
        place = Place(self._node, account.home, account.name, account.shell, scratch, time.time())
        self._supervisor.send(self._message(work, account, environment(work, place, entry), script))

    def _message(self, work: Work, account: Account, env: dict[str, str], script: str | None) -> dict[str, Any]:
        spec = work.spec
        stdout, stderr = self.output_paths(work)
        tag = base64.b64encode(msgspec.msgpack.encode(Tag(work.assignment, work.gpus))).decode()
        return {
            "op": "start", "number": work.number, "tag": tag, "argv": _argv(spec, script, account.shell),
            "cwd": spec.cwd or account.home, "env": env,
            "stdin": "pipe" if spec.stdin == "-" else spec.stdin, "pty": [24, 80] if spec.pty else None,
            "stdout": stdout, "stderr": stderr, "output_limit": spec.output_limit,
            "memory_bytes": spec.resources.get("memory") or None, "user": account.switch,
            "no_new_privs": account.switch is not None,
            "time_limit_s": spec.time_limit, "soft_limit_s": spec.soft_limit, "grace_s": spec.grace,
            "output_as_user": spec.stdout is not None,
        }  # fmt: skip

    def _scratch(self, work: Work, account: Account) -> str:
        """The attempt's own directory; made by what needs it (tmp), shared folders kept to one per task."""
        a = work.assignment
        base = self._directory / "tasks" / str(a.task)
        if a.task not in self._folders:
            base.mkdir(mode=0o711, parents=True, exist_ok=True)
            self._folders.add(a.task)
        scratch = base / f"{a.index}.{a.attempt}"
        for folder in (scratch, scratch / "tmp", scratch / "outputs"):
            folder.mkdir(mode=0o700, exist_ok=True)
            if account.switch is not None:
                os.chown(folder, account.switch["uid"], account.switch["gid"])
        return str(scratch)

    def output_paths(self, work: Work) -> tuple[str, str | None]:
        """(stdout, stderr): one file unless the errors were asked for apart."""
        spec, a = work.spec, work.assignment
        default = str(self._directory / "tasks" / str(a.task) / f"{a.index}.{a.attempt}.out")
        stdout = output_path(spec.stdout, work, self._node) if spec.stdout else default
        stderr = output_path(spec.stderr, work, self._node) if spec.stderr else None
        return stdout, stderr

    def kill(self, work: Work, cause: Cause, grace_s: float) -> None:
        self._supervisor.send({"op": "kill", "number": work.number, "grace_s": grace_s, "cause": str(cause)})

    def signal(self, work: Work, signum: int) -> None:
        self._supervisor.send({"op": "signal", "number": work.number, "signum": signum})

    def forget(self, number: int, work: Work | None) -> None:
        """The supervisor's journal is trimmed; the default output is safe elsewhere."""
        self._supervisor.send({"op": "ack", "numbers": [number]})
        if work is not None:
            self._spawn(asyncio.to_thread(self._remove, work))

    def _remove(self, work: Work) -> None:
        a = work.assignment
        base = self._directory / "tasks" / str(a.task)
        for path in sorted((base / f"{a.index}.{a.attempt}").rglob("*"), reverse=True):
            if path.is_dir() and not path.is_symlink():
                try:
                    path.rmdir()
                except OSError:
                    continue
            else:
                remove_quietly(path)
        remove_quietly(base / f"{a.index}.{a.attempt}.out")
        for folder in (base / f"{a.index}.{a.attempt}", base):
            try:
                folder.rmdir()
            except OSError:
                return
        self._folders.discard(a.task)

    # ------------------------------------------------------------ reports

    def reported(self, work: Work, report: dict[str, Any]) -> None:
        """The supervisor says that it ended (or could not be started)."""
        if "code" in report:
            self._reports.finished(failed(work, f"node {self._node}: {report['error']}", int(report["code"])))
            return
        stdout_path, stderr_path = self.output_paths(work)
        stdout = inline_output(stdout_path, report.get("out_bytes") or 0, work.spec.stdout is not None)
        stderr = inline_output(stderr_path, report.get("err_bytes") or 0, True) if stderr_path else None
        if stdout is None or (stderr is None and stderr_path is not None):
            self._spawn(self._ship(work, report, stdout_path, stderr_path))
        else:
            self._reports.finished(self._end(work, report, stdout, stderr))

    async def _ship(self, work: Work, report: dict[str, Any], stdout: str, stderr: str | None) -> None:
        number, token, spec = work.number, work.assignment.token, work.spec
        out_size, err_size = int(report.get("out_bytes") or 0), int(report.get("err_bytes") or 0)
        out = await self._shipper.ship(number, token, "stdout", stdout, out_size, spec.stdout is not None)
        err = await self._shipper.ship(number, token, "stderr", stderr, err_size, True) if stderr else None
        self._reports.finished(self._end(work, report, out, err))

    def _end(self, work: Work, report: dict[str, Any], stdout: Output, stderr: Output | None) -> Ended:
        cause = CAUSES.get(str(report.get("cause")))
        if cause is None:
            cause = Cause(report.get("kill_cause") or Cause.CANCELLED)
        usage = report.get("usage") or {}
        return Ended(
            number=work.number, token=work.assignment.token, cause=cause, exit_code=report.get("exit_code"),
            signal=report.get("signal"), stdout=stdout, stderr=stderr,
            usage=Usage(
                float(report.get("wall_s") or 0.0), float(usage.get("cpu_user_s") or 0.0),
                float(usage.get("cpu_sys_s") or 0.0), int(usage.get("max_rss_bytes") or 0),
                int(usage.get("read_bytes") or 0), int(usage.get("write_bytes") or 0),
            ),
        )  # fmt: skip


def _argv(spec: TaskSpec, script: str | None, shell: str) -> list[str]:
    command = spec.command
    if script is not None:
        return [script, *((command,) if isinstance(command, str) else command or ())]
    if isinstance(command, str):
        return [shell, "-l", "-c", command] if spec.login_shell else ["/bin/sh", "-c", command]
    return list(command or ())
