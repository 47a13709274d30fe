"""PURE: the GPUs of a node: what is free on each, and who has what."""

from jarvis.core.gpus import NO_ROOM, Room, Share, ask_of, pick, with_back, without
from jarvis.core.resources import Resources


class Gpus:
    """What is free on each GPU of a node."""

    def __init__(self, free: Room = NO_ROOM) -> None:
        self.free = free

    def pick(self, need: Resources) -> tuple[Share, ...] | None:
        """Shares that meet the need, or None."""
        ask = ask_of(need)
        return () if ask is None else pick(self.free, ask)

    def take(self, shares: tuple[Share, ...]) -> None:
        if shares:
            self.free = without(self.free, shares)

    def give(self, shares: tuple[Share, ...]) -> None:
        if shares:
            self.free = with_back(self.free, shares)
