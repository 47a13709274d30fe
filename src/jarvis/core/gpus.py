"""Which GPUs a request gets, asked alike by the scheduler and by the node. Amounts are thousandths; a share never spans two."""

from collections.abc import Sequence

WHOLE = 1000
Share = tuple[int, int]
"""(index of the GPU, thousandths of it)"""


def devices(total: int) -> list[int]:
    """What a node with so many thousandths has on each GPU."""
    return [min(WHOLE, total - start) for start in range(0, total, WHOLE)]


def pick(free: Sequence[int], wanted: int) -> tuple[Share, ...] | None:
    """Shares that meet the request, or None: whole ones from untouched GPUs, a rest where it leaves the least over."""
    if not wanted:
        return ()
    count, rest = divmod(wanted, WHOLE)
    untouched = [index for index, amount in enumerate(free) if amount == WHOLE]
    if len(untouched) < count:
        return None
    shares = [(index, WHOLE) for index in untouched[:count]]
    if rest:
        taken = set(untouched[:count])
        fitting = [(amount, i) for i, amount in enumerate(free) if amount >= rest and i not in taken]
        if not fitting:
            return None
        shares.append((min(fitting)[1], rest))
    return tuple(shares)
