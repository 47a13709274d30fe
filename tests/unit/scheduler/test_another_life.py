"""A database that failed over lacks the last commits; nodes remember what it has forgotten."""

from tests.unit.scheduler.harness import Case

from jarvis.core.effects import Assign, ToNode
from jarvis.core.inputs import Known, NodeDisconnected


def fails_over(case: Case, node: int) -> None:
    """A new life begins, and the node has lost its session."""
    case.cluster.incarnation += 1
    case.step(NodeDisconnected("bye", case.cluster.nodes[node].session or "", node))
    case.take()


def numbers(case: Case) -> list[int]:
    """That were said to nodes."""
    said = [e.message for e in case.take() if isinstance(e, ToNode) and isinstance(e.message, Assign)]
    return [assignment.number for message in said for assignment in message.assignments]


def test_an_assignment_that_its_node_has_settled_is_not_said_again_for_ever() -> None:
    """It ended, was recorded and forgotten; the new life knows neither."""
    case = Case()
    node = case.node(cpus=1)
    task = case.submit()
    (first,) = numbers(case)
    fails_over(case, node)
    assert case.node(name="n1", cpus=1, heard=1) == node
    case.wait(5.0)
    (second,) = numbers(case)
    assert second > first + 100_000, "a number that no node can have seen"
    case.started(task)
    case.ends(task)
    case.expect(task, "succeeded")


def test_numbers_that_were_given_after_the_last_commit_that_is_there_are_not_given_again() -> None:
    case = Case()
    node = case.node(cpus=4)
    fails_over(case, node)
    case.node(name="n1", cpus=4, heard=1)
    case.submit()
    (number,) = numbers(case)
    assert number > 100_000


def test_what_the_node_still_has_goes_on() -> None:
    case = Case()
    node = case.node(cpus=1)
    task = case.submit()
    case.started(task)
    attempt = case.attempt(task)
    fails_over(case, node)
    case.node(name="n1", cpus=1, known=[Known(attempt.number, attempt.token, "running")], heard=1)
    case.expect(task, "running")
    case.ends(task)
    case.expect(task, "succeeded")


def test_in_the_same_life_it_is_said_again_under_its_number() -> None:
    case = Case()
    node = case.node(cpus=1)
    case.submit()
    (first,) = numbers(case)
    case.step(NodeDisconnected("bye", case.cluster.nodes[node].session or "", node))
    case.node(name="n1", cpus=1, heard=1)
    assert numbers(case) == [first]
