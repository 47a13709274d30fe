"""The directory of an attempt that has one of its own: what is in it when it starts, and what is kept of it at the end."""

import logging
import os
from pathlib import Path

import msgspec

from jarvis.core.inputs import Ended
from jarvis.core.states import Cause
from jarvis.worker.account import Account
from jarvis.worker.file_cache import FileCache
from jarvis.worker.file_sets import FileSets
from jarvis.worker.machine import Work
from jarvis.worker.pulled import Pulled
from jarvis.worker.pushed import Pushed
from jarvis.worker.task_environment import FOLDER
from jarvis.worker.task_executor import FetchBlob, PutBlob

log = logging.getLogger("jarvis.files")

NOT_KEPT = 74
"""Exit code of an attempt that went well but for its artifacts: EX_IOERR of sysexits.h."""
_UNWANTED = frozenset(
    {Cause.CANCELLED, Cause.REQUEUED, Cause.PREEMPTED, Cause.RECALLED, Cause.EXPIRED, Cause.NODE_LOST}
)
"""Ends after which nobody waits for files."""


class AttemptFiles:
    """Of those tasks alone whose spec has ``own_directory``."""

    def __init__(self, directory: Path, fetch: FetchBlob, put: PutBlob, cache_bytes: int) -> None:
        kept = directory / "files"
        cache, self.sets = FileCache(kept, fetch, cache_bytes), FileSets(directory / "sets", kept)
        self._pushed, self._pulled = Pushed(directory, fetch, cache, self.sets), Pulled(put, cache)

    def at_hand(self, work: Work, scratch: str) -> bool:
        """Whether there is nothing left to be fetched."""
        return not work.spec.push or os.path.isdir(f"{scratch}/{FOLDER}")

    async def make(self, work: Work, account: Account, scratch: str) -> None:
        """Raises OSError when something cannot be had."""
        if not self.at_hand(work, scratch):
            await self._pushed.stage(work, account, Path(scratch) / FOLDER)

    def wanted(self, work: Work, cause: Cause) -> bool:
        """After successes and failures alike: what a failure left tells why. Of a gang, what rank 0 leaves."""
        return bool(work.spec.artifacts) and not work.rank and cause not in _UNWANTED

    async def keep(self, work: Work, scratch: str, owner: int | None, end: Ended) -> Ended:
        """The end with its artifacts. A success whose artifacts cannot be kept is none."""
        try:
            digest, files = await self._pulled.collect(work, f"{scratch}/{FOLDER}", owner)
        except OSError as error:
            log.warning("assignment %d: its artifacts were not kept: %s", work.number, error)
            text = "; ".join(filter(None, (end.message, f"its artifacts could not be kept: {error}")))
            went_well = end.cause is Cause.EXIT and end.exit_code == 0
            return msgspec.structs.replace(end, message=text, exit_code=NOT_KEPT if went_well else end.exit_code)
        held = await self.sets.made(digest, files) if work.spec.origin is not None else 0
        return msgspec.structs.replace(end, artifacts=digest, held=held)
