"""What waits ahead of room for longer than was meant goes back into the queue."""

from tests.unit.scheduler.harness import Case

from jarvis.core.ids import ElementKey
from jarvis.scheduler.nodes import STALE_S, recall_stale
from jarvis.scheduler.turn import Turn


def look(case: Case) -> list[int]:
    """Numbers that are recalled."""
    turn = Turn(case.cluster, case.now, "heartbeats")
    recall_stale(turn)
    case.effects += turn.finish()
    return case.recalls()


def behind_a_long_one() -> tuple[Case, int, int, list[int]]:
    """The only node has a task that does not end, and ahead of room two of a kind that takes a moment."""
    case = Case()
    case.node("slow", cpus=1)
    short = case.submit()
    case.started(short)
    case.ends(short, wall=0.001)
    long = case.submit(cpus=0.9)
    case.started(long)
    return case, long, short, [case.submit() for _ in range(2)]


def test_what_had_its_turn_in_time_stays() -> None:
    case, *_ = behind_a_long_one()
    case.now += STALE_S / 2
    assert look(case) == []


def test_it_is_given_back_and_runs_where_there_is_room() -> None:
    case, _, _, waiting = behind_a_long_one()
    for task in waiting:
        case.expect(task, "assigned")
    fast = case.node("fast", cpus=4)
    for task in waiting:
        assert case.attempt(task).node != fast
    case.now += STALE_S + 1
    assert sorted(look(case)) == sorted(case.attempt(task).number for task in waiting)
    for task in waiting:
        case.returned(task)
        assert case.attempt(task).node == fast
        assert case.attempt(task).attempt == 2
        assert case.cluster.elements[ElementKey(task)].infra_losses == 0


def test_the_node_gets_nothing_ahead_until_something_is_over_there() -> None:
    case, long, _, waiting = behind_a_long_one()
    case.now += STALE_S + 1
    look(case)
    for task in waiting:
        case.returned(task)
        case.expect(task, "queued")
    case.ends(long, wall=10.0)
    case.expect(waiting[0], "assigned")


def test_a_new_session_has_its_time_too() -> None:
    """The node may have gone through its backlog unseen."""
    case, *_ = behind_a_long_one()
    case.now += STALE_S * 10
    view = next(iter(case.cluster.nodes.values()))
    view.connected_at = case.now - STALE_S / 2
    assert look(case) == []
    view.session = None
    view.connected_at = 0.0
    assert look(case) == [], "nobody is there to hear it"
