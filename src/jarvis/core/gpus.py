"""Which GPUs a request gets, asked alike by the scheduler and by the node. Of each GPU there are thousandths and bytes.

A share by fraction takes the same fraction of the GPU's memory, one by memory takes those bytes alone, and one that says both
takes just both. A share never spans two GPUs, and whole ones are nobody else's: asked for together with memory, each has as much.
"""

from collections.abc import Sequence
from typing import NamedTuple

from jarvis.core.resources import Resources

WHOLE = 1000


class Share(NamedTuple):
    """Of a GPU, by its index, so many thousandths and bytes."""

    gpu: int
    part: int
    memory: int = 0


class Ask(NamedTuple):
    """Thousandths of GPUs, and bytes on each of those that are given."""

    part: int
    memory: int


class Room(NamedTuple):
    """What is free on each GPU of a node in thousandths and bytes, and how many bytes a whole one has (0: not known)."""

    parts: tuple[int, ...]
    memory: tuple[int, ...]
    sizes: tuple[int, ...]

    @property
    def useful(self) -> tuple[int, ...]:
        """Thousandths that can still be had together with as much of the memory."""
        if not any(self.sizes):
            return self.parts
        rows = zip(self.parts, self.memory, self.sizes, strict=True)
        return tuple(min(part, free * WHOLE // size) if size else part for part, free, size in rows)


NO_ROOM = Room((), (), ())


def ask_of(need: Resources) -> Ask | None:
    """What a request wants of GPUs; None if nothing."""
    part, memory = need.get("gpu", 0), need.get("gpu_memory", 0)
    return Ask(part, memory) if part or memory else None


def devices(total: int) -> list[int]:
    """What a node with so many thousandths has on each GPU."""
    return [min(WHOLE, total - start) for start in range(0, total, WHOLE)]


def room_of(resources: Resources, sizes: Sequence[int] = ()) -> Room:
    """A node's GPUs while nobody has any; ``sizes``: bytes of each, or one for all; else they share ``gpu_memory`` alike."""
    parts = devices(resources.get("gpu", 0))
    if len(sizes) == 1:
        sizes = [sizes[0]] * len(parts)
    if not sizes:
        total = resources.get("gpu_memory", 0)
        sizes = [total * WHOLE // resources["gpu"]] * len(parts) if total and parts else []
    full = tuple(sizes[at] if at < len(sizes) else 0 for at in range(len(parts)))
    return Room(tuple(parts), tuple(size * part // WHOLE for size, part in zip(full, parts, strict=True)), full)


def could_hold(resources: Resources, sizes: Sequence[int], need: Resources) -> bool:
    """Whether a node's GPUs could meet the need if nobody had any; their sum is for others to compare."""
    if "gpu_memory" not in need:
        return True
    return pick(room_of(resources, sizes), Ask(need.get("gpu", 0), need["gpu_memory"])) is not None


def pick(room: Room, ask: Ask) -> tuple[Share, ...] | None:
    """Shares that meet the request, or None: whole ones from untouched GPUs, the smallest first; a share where it leaves the
    least over of what it was asked by."""
    parts, free, sizes = room
    wanted, memory = ask
    count, rest = divmod(wanted, WHOLE)
    if not count:
        share = _share(room, rest, memory, ())
        return None if share is None else (share,)
    untouched = [i for i, part in enumerate(parts) if part == WHOLE and free[i] == sizes[i] >= memory]
    if len(untouched) < count:
        return None
    taken = sorted(untouched, key=sizes.__getitem__)[:count]
    shares = [Share(i, WHOLE, sizes[i]) for i in taken]
    if rest:
        share = _share(room, rest, memory, taken)
        if share is None:
            return None
        shares.append(share)
    return tuple(shares)


def _share(room: Room, part: int, memory: int, taken: Sequence[int]) -> Share | None:
    """A part of one GPU that is not taken."""
    parts, free, sizes = room
    best: tuple[int, int, int] | None = None
    for i, left in enumerate(parts):
        if left < part or free[i] < (memory or part * sizes[i] // WHOLE) or i in taken:
            continue
        key = (free[i], left, i) if memory else (left, free[i], i)
        if best is None or key < best:
            best = key
    if best is None:
        return None
    index = best[2]
    return Share(index, part, memory or part * sizes[index] // WHOLE)


def without(room: Room, shares: Sequence[Share]) -> Room:
    """What is left when they are taken; those of GPUs that are not there any more count for nothing."""
    return _moved(room, shares, -1)


def with_back(room: Room, shares: Sequence[Share]) -> Room:
    """What is free when they are given back."""
    return _moved(room, shares, 1)


def _moved(room: Room, shares: Sequence[Share], sign: int) -> Room:
    parts, memory = list(room.parts), list(room.memory)
    for index, part, taken in shares:
        if index < len(parts):
            parts[index] += sign * part
            memory[index] += sign * (taken or part * room.sizes[index] // WHOLE)
    return Room(tuple(parts), tuple(memory), room.sizes)
