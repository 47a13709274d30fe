"""PURE: which GPUs a task gets. Amounts are thousandths; a share of one GPU never spans two."""

from jarvis.core.resources import Resources

WHOLE = 1000
Share = tuple[int, int]
"""(index of the GPU, thousandths of it)"""


class Gpus:
    """What is free on each GPU of a node."""

    def __init__(self, total: int) -> None:
        self.free = [min(WHOLE, total - start) for start in range(0, total, WHOLE)]

    def pick(self, need: Resources) -> tuple[Share, ...] | None:
        """Shares that meet the need, or None: whole ones from untouched GPUs, a rest where it leaves the least over."""
        wanted = need.get("gpu", 0)
        if not wanted:
            return ()
        count, rest = divmod(wanted, WHOLE)
        untouched = [index for index, free in enumerate(self.free) if free == WHOLE]
        if len(untouched) < count:
            return None
        shares = [(index, WHOLE) for index in untouched[:count]]
        if rest:
            taken = set(untouched[:count])
            fitting = [(free, i) for i, free in enumerate(self.free) if free >= rest and i not in taken]
            if not fitting:
                return None
            shares.append((min(fitting)[1], rest))
        return tuple(shares)

    def take(self, shares: tuple[Share, ...]) -> None:
        for index, amount in shares:
            if index < len(self.free):
                self.free[index] -= amount

    def give(self, shares: tuple[Share, ...]) -> None:
        for index, amount in shares:
            if index < len(self.free):
                self.free[index] += amount
