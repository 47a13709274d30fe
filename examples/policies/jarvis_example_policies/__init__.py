"""Three policies that plug into the scheduler of Jarvis by the entry points in ``pyproject.toml``."""

from jarvis.core.task import TaskSpec
from jarvis.policies import FilterPolicy, OrderPolicy, ScorePolicy
from jarvis.scheduler.load_balancer import Candidate
from jarvis.scheduler.policy.order import Order, weight_of
from jarvis.scheduler.policy.plugged import NodeFacts
from jarvis.scheduler.task_queue import PlacementClass


def _widest(order: Order, spec: TaskSpec, submitted_at: float, seconds: float | None) -> float:
    """The largest first; whoever waits gains ``ageing`` cpus a second on it."""
    return order.ageing * submitted_at - weight_of(order, spec)


def _newest(candidate: Candidate) -> float:
    """The node that joined last, as long as it has room."""
    return 1e9 * candidate.ahead - candidate.node


def _own_queue(node: NodeFacts, asked: PlacementClass) -> str:
    """A node with a label ``queue`` takes only what is in that queue."""
    queue = node.labels.get("queue", asked.queue)
    return "" if queue == asked.queue else f"takes the queue {queue} alone, not {asked.queue}"


WIDEST_FIRST = OrderPolicy(_widest)
NEWEST_NODE = ScorePolicy(_newest)
OWN_QUEUE = FilterPolicy(_own_queue)
