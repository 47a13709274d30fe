"""PURE: the GPUs of a node: what is free on each, and who has what."""

from jarvis.core.gpus import Share, devices, pick
from jarvis.core.resources import Resources


class Gpus:
    """What is free on each GPU of a node."""

    def __init__(self, total: int) -> None:
        self.free = devices(total)

    def pick(self, need: Resources) -> tuple[Share, ...] | None:
        """Shares that meet the need, or None."""
        return pick(self.free, need.get("gpu", 0))

    def take(self, shares: tuple[Share, ...]) -> None:
        for index, amount in shares:
            if index < len(self.free):
                self.free[index] -= amount

    def give(self, shares: tuple[Share, ...]) -> None:
        for index, amount in shares:
            if index < len(self.free):
                self.free[index] += amount
