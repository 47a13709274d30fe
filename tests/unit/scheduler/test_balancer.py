"""The names of balancers."""

from tests.unit.scheduler.harness import Case

from jarvis.core.task import BALANCERS
from jarvis.scheduler.load_balancer import SCORES


def test_the_names_that_tasks_may_give_are_those_that_there_are() -> None:
    assert set(SCORES) == BALANCERS


def test_a_name_that_is_not_known_stops_nobody() -> None:
    """It may come from a database that a newer version wrote."""
    case = Case()
    case.node()
    task = case.submit(balancer="newer")
    case.expect(task, "assigned")
