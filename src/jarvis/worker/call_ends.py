"""What of a call of a function has to be made before it begins, and stored before its end can be told: files, large results,
long output.

A call that is sent files or leaves some runs in a process of its own, whose folder holds its directory: so they go together.
"""

import asyncio
import contextlib
import os
from pathlib import Path

from jarvis.core.inputs import Ended
from jarvis.core.states import Cause
from jarvis.core.task import INLINE_LIMIT
from jarvis.worker.account import Accounts
from jarvis.worker.attempt_files import AttemptFiles
from jarvis.worker.function_protocol import Result
from jarvis.worker.logs import INLINE, Shipper
from jarvis.worker.machine import Work
from jarvis.worker.task_environment import FOLDER
from jarvis.worker.task_executor import PutBlob
from jarvis.worker.warm import Launcher, Warm, remove_folder


class CallEnds:
    """For those calls alone that have something of it."""

    def __init__(
        self, launcher: Launcher, accounts: Accounts, shipper: Shipper, put: PutBlob, files: AttemptFiles
    ) -> None:
        self._launcher, self._accounts, self._shipper, self._put, self._files = launcher, accounts, shipper, put, files

    async def begin(self, work: Work) -> str | None:
        """The name of a folder for its process with its directory in it; None where it has none of its own. Raises OSError and
        :class:`NoSuchUser`."""
        if not work.spec.own_directory:
            return None
        account = self._accounts.of(work.assignment.user)
        name = self._launcher.reserve(account)
        folder = self._launcher.folder(name)
        try:
            await self._files.make(work, account, str(folder))
            if not work.spec.push:
                (folder / FOLDER).mkdir(mode=0o700)
                if account.switch is not None:
                    os.chown(folder / FOLDER, account.switch["uid"], account.switch["gid"])
        except BaseException:
            await self.drop(name)
            raise
        return name

    async def drop(self, name: str) -> None:
        """It is not needed after all."""
        await asyncio.to_thread(remove_folder, str(self._launcher.folder(name)))

    def leaves_files(self, work: Work, end: Ended) -> bool:
        return self._files.wanted(work, end.cause)

    async def complete(self, warm: Warm, work: Work, end: Ended, result: Result | None) -> Ended:
        """The end with all that was stored; one of a process that broke off has no ``result``."""
        number, token = end.number, end.token
        if result is not None:
            try:
                if len(result.payload) > INLINE_LIMIT:
                    end.result_digest = await self._put(number, token, result.payload)
            except (OSError, TimeoutError) as error:
                end.cause, end.exit_code = Cause.START_FAILED, 125
                end.message = f"the result could not be stored: {error}"
            size = result.log_end - result.log_start
            if size > INLINE:
                base = result.log_start
                end.stdout = await self._shipper.ship(number, token, "stdout", warm.log, size, False, base=base)
        if self._files.wanted(work, end.cause):
            end = await self._files.keep(work, warm.folder, _owner(warm.folder), end)
        return end


def _owner(folder: str) -> int | None:
    """As whom it runs, where that is somebody else than we."""
    with contextlib.suppress(FileNotFoundError):
        uid = Path(folder).stat().st_uid
        return uid if uid != os.geteuid() else None
    return None
