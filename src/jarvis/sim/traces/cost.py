"""What nodes cost over the time of a replay, and how much of that paid for nothing."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from jarvis.core.errors import InvalidValue
from jarvis.core.resources import BYTE_NAMES, Resources
from jarvis.sim.traces.replay import History

NODE = "node"
"""Priced like a resource of which each node has one."""
HOUR_S = 3600.0
_GIB, _ONE = 1 << 30, 1000
Prices = Mapping[str, float]
"""By resource, for an hour of one cpu, GPU, node or whatever it is, or of a GiB."""


@dataclass(frozen=True, slots=True)
class Cost:
    """In the currency of the prices. Nodes are there from the first submission to the last end."""

    node_hours: float
    total: float
    unused: float
    """Share of the total that was paid for what no task held: 0 to 1."""


def prices_from(given: str) -> dict[str, float]:
    """``node=1.5,gpu=2,cpu=0.04,memory=0.005``: raises InvalidValue."""
    prices: dict[str, float] = {}
    for part in filter(None, given.replace(" ", "").split(",")):
        name, _, amount = part.partition("=")
        try:
            price = float(amount)
        except ValueError:
            price = -1.0
        if not name or name in prices or not 0.0 <= price < 1e9:
            raise InvalidValue("price", given, "prices an hour like node=1.5 or gpu=2,cpu=0.04,memory=0.005 (of a GiB)")
        prices[name] = price
    return prices


def check(prices: Prices, nodes: Iterable[tuple[int, Resources]]) -> None:
    """Raises InvalidValue for the price of what none of the nodes has."""
    priced = [NODE, *sorted({name for _, resources in nodes for name in resources})]
    for name in prices:
        if name not in priced:
            raise InvalidValue("price", name, f"what these nodes have: {', '.join(priced)}")


def cost_of(history: History, seconds: float, prices: Prices) -> Cost:
    """Of a replay that took so long."""
    hours = seconds / HOUR_S
    paid = _priced(history.capacity, prices) * hours
    held = sum(_priced(ran.item.whole, prices) * ran.held for ran in history.ran) / HOUR_S
    node_hours = history.nodes * hours
    for_nodes = prices.get(NODE, 0.0) * node_hours
    total = paid + for_nodes
    used = held + for_nodes * _in_use(history, seconds)
    return Cost(node_hours, total, 1.0 - min(used / total, 1.0) if total else 0.0)


def _priced(amounts: Resources, prices: Prices) -> float:
    """For an hour."""
    return sum(
        price * amounts.get(name, 0) / (_GIB if name in BYTE_NAMES else _ONE) for name, price in prices.items()
    )  # fmt: skip


def _in_use(history: History, seconds: float) -> float:
    """Mean share of the nodes that tasks held, of that resource of which they held most."""
    return max(
        (history.work(name) / (has * seconds) for name, has in history.capacity.items() if has and seconds),
        default=0.0,
    )
