"""What a node was told and has not received, and what reached the leader by another way."""

from tests.unit.scheduler.harness import Case

from jarvis.core.effects import Refused, Stop, ToNode, ToSession, Welcome
from jarvis.core.inputs import Ended, Fact, Known, NodeDisconnected, NodesSeen, ReportTaken, Started
from jarvis.core.states import Cause


def seen(case: Case, node: int, told: int) -> list[str]:
    """A heartbeat; the reasons of sessions that it ended."""
    case.take()
    case.step(NodesSeen("seen", {node: {}}, {node: told}))
    return [e.message.reason for e in case.take() if isinstance(e, ToSession) and isinstance(e.message, Refused)]


def test_a_node_that_has_received_everything_is_left_alone() -> None:
    case = Case()
    node = case.node(cpus=1)
    case.submit()
    for _ in range(5):
        case.now += 5.0
        assert seen(case, node, 1) == []


def test_a_message_on_its_way_is_waited_for_and_one_that_never_comes_ends_the_session() -> None:
    case = Case()
    node = case.node(cpus=1)
    assert seen(case, node, 0) == []
    task = case.submit()
    assert seen(case, node, 0) == [], "nothing had to be there yet when it was counted last"
    case.now += 5.0
    assert seen(case, node, 0) == []
    case.now += 2.0
    assert seen(case, node, 0) == ["messages to this node were lost"]
    assert case.cluster.nodes[node].session is None
    case.node(name="n1", cpus=1)
    (effect,) = [e for e in case.take() if isinstance(e, ToNode)]
    assert effect.message.assignments[0].task == task, "it is said again in the next session"  # type: ignore[union-attr]
    assert seen(case, node, 1) == []


def test_a_session_that_was_not_told_to_end_is_told_again() -> None:
    case = Case()
    node = case.node(cpus=1)
    assert seen(case, node, 0) == []
    case.submit()
    assert seen(case, node, 0) == []
    case.now += 7.0
    assert seen(case, node, 0) == ["messages to this node were lost"]
    for _ in range(3):  # the message is lost each time, and the node's heartbeats go on coming
        case.now += 3.0
        assert seen(case, node, 0) == []
        case.now += 4.0
        assert seen(case, node, 0) == ["this session is over"]
    case.node(name="n1", cpus=1)
    case.now += 7.0
    assert seen(case, node, 1) == []


def test_a_stop_follows_the_welcome_of_the_session_that_it_is_for() -> None:
    case = Case()
    case.node(cpus=1)
    task = case.submit()
    case.started(task)
    case.command("cancel", task)
    case.take()
    attempt, session = case.attempt(task), case.cluster.nodes[1].session
    case.step(NodeDisconnected("bye", session or "", 1))
    case.node(name="n1", cpus=1, known=[Known(attempt.number, attempt.token, "running")])
    kinds = [type(e.message) for e in case.take() if isinstance(e, ToNode | ToSession)]
    assert kinds == [Welcome, Stop]


def test_a_kept_report_counts_whatever_session_it_came_by() -> None:
    case = Case()
    node = case.node(cpus=1)
    task = case.submit()
    attempt = case.attempt(task)
    facts: list[Fact] = [
        Started(number=attempt.number, token=attempt.token),
        Ended(number=attempt.number, token=attempt.token, cause=Cause.EXIT, exit_code=0),
    ]
    turn = case.step(ReportTaken("report-1", 1, node, facts))
    case.expect(task, "succeeded")
    assert turn.changes.reports_done == [1]
    turn = case.step(ReportTaken("report-2", 2, node, facts), ReportTaken("report-3", 3, 99, facts))
    assert turn.changes.reports_done == [2, 3], "what is known already, or of a node that is gone, is done with"
