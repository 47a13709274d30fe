"""Cancelling only what has not begun to run."""

from tests.unit.scheduler.harness import Case


def test_what_waits_is_cancelled() -> None:
    case = Case()
    task = case.submit()
    case.command("cancel", task, unstarted=1)
    case.expect(task, "cancelled")


def test_what_runs_goes_on() -> None:
    case = Case()
    case.node()
    task = case.submit()
    case.started(task)
    case.command("cancel", task, unstarted=1)
    assert case.stops() == []
    case.ends(task)
    case.expect(task, "succeeded")


def test_what_its_node_gives_back_is_cancelled() -> None:
    case = Case()
    case.node()
    task = case.submit()
    number = case.attempt(task).number
    case.command("cancel", task, unstarted=1)
    assert case.recalls() == [number]
    case.expect(task, "assigned")
    case.returned(task)
    case.expect(task, "cancelled")


def test_what_begins_before_its_node_hears_of_it_ends_as_itself() -> None:
    case = Case()
    case.node()
    task = case.submit()
    case.command("cancel", task, unstarted=1)
    case.started(task)
    case.ends(task, exit_code=3)
    case.expect(task, "failed")
