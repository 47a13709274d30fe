"""PURE: how the leader keeps tasks that will not be looked at for long: their specs packed, a fifth of the size.

A parked task is a task. Its spec is unpacked when somebody asks for it, and the last ones that were asked for are kept, so that
whoever goes through a long queue needs no more memory than for those.
"""

from functools import lru_cache
from sys import intern

import msgspec

from jarvis.core.states import State
from jarvis.core.task import Task, TaskSpec

KEPT = 1024
"""Specs, unpacked."""
_pack = msgspec.msgpack.Encoder().encode
_unpacked = lru_cache(KEPT)(msgspec.msgpack.Decoder(TaskSpec).decode)
_NONE: dict[State, int] = {}
"""What a task without an array counts; nobody writes into it."""


class ParkedTask(Task, gc=False, kw_only=True):
    """``spec`` is unset until it is unparked."""

    packed: bytes
    queue: str
    """As its spec says."""

    def __getattr__(self, name: str) -> TaskSpec:
        if name != "spec":
            raise AttributeError(name)
        return _unpacked(self.packed)

    def __reduce__(self) -> tuple[object, ...]:
        self.spec = self.spec
        return super().__reduce__()  # type: ignore[return-value]  # object's own says less


@lru_cache(KEPT)
def _same(packed: bytes) -> bytes:
    """Tasks of one submission differ seldom: then they share these."""
    return packed


def parked(task: Task) -> ParkedTask:
    """The same task, small. Only for tasks without an array: nothing else has counts that change."""
    spec = task.spec
    small = ParkedTask(
        id=task.id, uuid=task.uuid, project=intern(task.project), user=intern(task.user), spec=spec, state=task.state,
        submitted_at=task.submitted_at, counts=_NONE, next_position=task.next_position, base=task.base, reason=task.reason,
        retry_of=task.retry_of, started_at=task.started_at, ended_at=task.ended_at, packed=_same(_pack(spec)),
        queue=intern(spec.queue),
    )  # fmt: skip
    del small.spec
    return small


def unpark(task: Task) -> None:
    """Keep its spec at hand from now on: it will be asked for again and again."""
    task.spec = task.spec


def plain(task: Task) -> Task:
    """As it is told to others."""
    if not isinstance(task, ParkedTask):
        return task
    return Task(**{name: getattr(task, name) for name in Task.__struct_fields__})


def queue_of(task: Task) -> str:
    """Without unpacking."""
    return task.queue if isinstance(task, ParkedTask) else task.spec.queue
