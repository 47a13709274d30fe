"""The leader's rules, one line per fact; the harness re-derives the invariants after every step."""

import pytest
from tests.unit.scheduler.harness import Case

from jarvis.core.ids import ElementKey
from jarvis.core.inputs import Known, NodeDisconnected
from jarvis.core.retry import RetryPolicy
from jarvis.core.states import Cause
from jarvis.scheduler.nodes import on_node_lost
from jarvis.scheduler.placement import on_tasks_ended
from jarvis.scheduler.turn import Turn

K = ElementKey


def test_a_task_goes_all_the_way() -> None:
    case = Case()
    case.node(cpus=1)
    task = case.submit()
    case.expect(task, "assigned")
    case.started(task)
    case.expect(task, "running")
    assert case.attempt(task).state == "running"
    case.ends(task)
    case.expect(task, "succeeded")
    assert not case.cluster.tasks
    assert not case.cluster.elements
    assert not case.cluster.attempts


def test_without_a_node_it_waits_and_starts_when_one_comes() -> None:
    case = Case()
    task = case.submit()
    case.expect(task, "queued")
    case.node()
    case.expect(task, "assigned")


def test_no_more_than_fits_and_the_next_when_one_ends() -> None:
    case = Case()
    case.node(cpus=2)
    tasks = [case.submit(cpus=1) for _ in range(3)]
    assert [case.state(t) for t in tasks] == ["assigned", "assigned", "queued"]
    case.ends(tasks[0])
    case.expect(tasks[2], "assigned")


def test_priority_goes_first_then_submission() -> None:
    case = Case()
    low, high, mid = case.submit(priority=-5), case.submit(priority=9), case.submit()
    case.node(cpus=1)
    case.expect(high, "assigned")
    case.ends(high)
    case.expect(mid, "assigned")
    case.ends(mid)
    case.expect(low, "assigned")


def test_short_tasks_are_assigned_ahead_of_room() -> None:
    case = Case()
    case.node(cpus=1)
    first = case.submit()
    case.ends(first, wall=0.001)
    more = [case.submit() for _ in range(10)]
    assert {case.state(t) for t in more} == {"assigned"}
    view = case.cluster.nodes[1]
    assert sum(view.ahead.values()) == 9
    assert view.used == {"cpu": 1000}
    for task in more:
        case.ends(task, wall=0.001)
    assert view.used == {"cpu": 0}
    assert not view.ahead


def test_long_tasks_are_not_assigned_ahead() -> None:
    case = Case()
    case.node(cpus=1)
    case.ends(case.submit(), wall=60)
    assert [case.state(case.submit()) for _ in range(2)] == ["assigned", "queued"]


def test_a_stale_end_changes_nothing_and_may_be_forgotten() -> None:
    case = Case()
    case.node()
    task = case.submit()
    attempt = case.attempt(task)
    case.ends(task, token=attempt.token + 1)
    case.expect(task, "assigned")


def test_retry_with_backoff_then_failure() -> None:
    case = Case()
    case.node()
    task = case.submit(retry=RetryPolicy(max_attempts=2, base=4.0))
    case.ends(task, exit_code=1)
    case.expect(task, "backoff")
    case.wait(1.9)
    case.expect(task, "backoff")
    case.wait(2.2)
    case.expect(task, "assigned")
    assert case.attempt(task).attempt == 2
    case.ends(task, exit_code=1)
    case.expect(task, "failed")


def test_retry_only_on_the_named_classes() -> None:
    case = Case()
    case.node()
    task = case.submit(retry=RetryPolicy(max_attempts=9, retry_on=("exit:75",)))
    case.ends(task, exit_code=75)
    case.expect(task, "backoff")
    case.wait(2)
    case.ends(task, exit_code=1)
    case.expect(task, "failed")


@pytest.mark.parametrize(("end", "kind", "state"), [
    (0, "afterok", "assigned"), (1, "afterok", "upstream_failed"), (1, "afternotok", "assigned"),
    (0, "afternotok", "upstream_failed"), (0, "afterany", "assigned"), (1, "afterany", "assigned"),
])  # fmt: skip
def test_dependencies(end: int, kind: str, state: str) -> None:
    case = Case()
    case.node()
    first = case.submit()
    second = case.submit(after=f"{kind}:{first}")
    case.expect(second, "waiting")
    case.ends(first, exit_code=end)
    case.expect(second, state)


def test_a_chain_that_can_never_run_ends_whole() -> None:
    case = Case()
    case.node()
    first = case.submit()
    second = case.submit(after=f"afterok:{first}")
    third = case.submit(after=f"afterok:{second}")
    case.ends(first, exit_code=1)
    case.expect(third, "upstream_failed")
    assert not case.cluster.tasks
    assert not case.cluster.waits_for


def test_a_dependency_that_ended_before() -> None:
    case = Case()
    case.node()
    first = case.submit()
    case.ends(first)
    case.expect(case.submit(after=f"afterok:{first}"), "assigned")
    case.expect(case.submit(after=f"afternotok:{first}"), "upstream_failed")


def test_begin_and_deadline() -> None:
    case = Case()
    case.node()
    later = case.submit(begin=1010.0)
    case.expect(later, "waiting")
    case.wait(10)
    case.expect(later, "assigned")
    doomed = case.submit(cpus=99, deadline=1020.0)
    case.wait(20)
    case.expect(doomed, "expired")


def test_deadline_stops_what_runs() -> None:
    case = Case()
    case.node()
    task = case.submit(deadline=1010.0)
    case.started(task)
    case.take()
    case.wait(11)
    assert [s.cause for s in case.stops()] == [Cause.EXPIRED]
    case.ends(task, exit_code=None, cause=Cause.EXPIRED)
    case.expect(task, "expired")


def test_hold_and_release() -> None:
    case = Case()
    task = case.submit()
    assert case.command("hold", task) == ""
    case.expect(task, "held")
    case.node()
    case.expect(task, "held")
    assert case.command("release", task) == ""
    case.expect(task, "assigned")


def test_submitted_held() -> None:
    case = Case()
    case.node()
    task = case.submit(hold=True)
    case.expect(task, "held")
    case.command("release", task)
    case.expect(task, "assigned")


def test_hold_of_an_unstarted_assignment_recalls_it() -> None:
    case = Case()
    case.node()
    task = case.submit()
    case.take()
    number = case.attempt(task).number
    case.command("hold", task)
    assert case.recalls() == [number]
    case.returned(task)
    case.expect(task, "held")


def test_hold_of_a_running_task_is_refused() -> None:
    case = Case()
    case.node()
    task = case.submit()
    case.started(task)
    assert "running" in case.command("hold", task)


def test_cancel_queued_and_running() -> None:
    case = Case()
    queued = case.submit()
    case.command("cancel", queued)
    case.expect(queued, "cancelled")
    case.node()
    running = case.submit()
    case.started(running)
    case.take()
    case.command("cancel", running)
    case.expect(running, "cancelling")
    assert len(case.stops()) == 1
    case.ends(running, exit_code=None, cause=Cause.CANCELLED)
    case.expect(running, "cancelled")
    assert case.command("cancel", running) == "already ended"


def test_an_end_before_the_cancel_arrived_stands() -> None:
    case = Case()
    case.node()
    task = case.submit()
    case.command("cancel", task)
    case.ends(task, exit_code=0)
    case.expect(task, "succeeded")


def test_requeue_runs_again_without_counting_a_failure() -> None:
    case = Case()
    case.node()
    task = case.submit()
    case.started(task)
    case.command("requeue", task)
    case.ends(task, exit_code=None, cause=Cause.REQUEUED)
    case.expect(task, "assigned")
    assert case.cluster.elements[K(task)].failures == 0
    assert case.attempt(task).attempt == 2


def test_recalled_is_not_counted() -> None:
    case = Case()
    case.node()
    task = case.submit()
    case.command("node_cordon", node=1)
    case.returned(task)
    case.expect(task, "queued")
    assert case.cluster.elements[K(task)].failures == 0


def test_arrays_share_one_row_until_assigned() -> None:
    case = Case()
    case.node(cpus=2)
    task = case.submit(array="0-9")
    assert case.cluster.tasks[task].counts == {"assigned": 2, "queued": 8}
    assert len(case.cluster.elements) == 2
    for index in range(10):
        case.ends(K(task, index), exit_code=0 if index else 3)
    assert case.tasks[task].counts == {"succeeded": 9, "failed": 1}
    assert case.tasks[task].state == "failed"
    assert not case.cluster.tasks


def test_array_throttle() -> None:
    case = Case()
    case.node(cpus=8)
    task = case.submit(array="1-6%2")
    other = case.submit()
    assert case.cluster.tasks[task].counts == {"assigned": 2, "queued": 4}
    case.expect(other, "assigned")
    case.ends(K(task, 1))
    assert case.cluster.tasks[task].counts == {"assigned": 2, "queued": 3, "succeeded": 1}


def test_one_element_of_an_array_by_name() -> None:
    case = Case()
    task = case.submit(array="0-4")
    case.command("cancel", task, index=2)
    case.command("hold", task, index=3)
    case.node(cpus=9)
    states = [case.state(K(task, i)) for i in range(5)]
    assert states == ["assigned", "assigned", "cancelled", "held", "assigned"]
    assert case.command("cancel", task, index=77) == "no such element"
    case.command("release", task, index=3)
    case.expect(K(task, 3), "assigned")
    for i in (0, 1, 3, 4):
        case.ends(K(task, i))
    assert not case.cluster.tasks


def test_cancel_a_whole_array_in_the_middle() -> None:
    case = Case()
    case.node(cpus=2)
    task = case.submit(array="0-9")
    case.started(K(task, 0))
    case.command("cancel", task)
    assert case.cluster.tasks[task].counts == {"cancelling": 2, "cancelled": 8}
    for i in (0, 1):
        case.ends(K(task, i), exit_code=None, cause=Cause.CANCELLED)
    assert case.tasks[task].state == "cancelled"
    assert not case.cluster.tasks


def test_hold_and_release_an_array() -> None:
    case = Case()
    task = case.submit(array="0-2")
    case.command("hold", task)
    case.node()
    assert case.cluster.tasks[task].counts == {"held": 3}
    case.command("release", task)
    assert case.cluster.tasks[task].counts == {"assigned": 3}


def test_labels_taints_and_size() -> None:
    case = Case()
    case.node("small", cpus=1, labels={"arch": "x86"})
    case.node("special", cpus=8, labels={"arch": "arm"}, taints=("dedicated",))
    from jarvis.core.task import Constraint

    arm = case.submit(constraints=(Constraint("arch", "=", "arm"),))
    case.expect(arm, "queued")
    tolerant = case.submit(constraints=(Constraint("arch", "=", "arm"),), tolerations=("dedicated",))
    assert case.attempt(tolerant).node == case.cluster.node_names["special"]
    case.expect(case.submit(cpus=4), "queued")


@pytest.mark.parametrize(("balancer", "nodes"), [
    ("least_loaded", [1, 2, 1, 2]), ("bin_pack", [1, 1, 1, 1]), ("round_robin", [1, 2, 1, 2]),
])  # fmt: skip
def test_balancers(balancer: str, nodes: list[int]) -> None:
    case = Case()
    case.node(cpus=4)
    case.node(cpus=4)
    tasks = [case.submit(balancer=balancer) for _ in range(4)]
    assert [case.attempt(t).node for t in tasks] == nodes


def test_spread_looks_at_the_task() -> None:
    case = Case()
    case.node(cpus=8)
    case.node(cpus=2)
    task = case.submit(array="0-3", balancer="spread")
    assert sorted(case.attempt(K(task, i)).node for i in range(4)) == [1, 1, 2, 2]


# ---------------------------------------------------------------- nodes


def _again(case: Case, known: list[Known], boot: str = "boot") -> None:
    case.step(NodeDisconnected("cut", case.cluster.nodes[1].session or "", 1))
    case.now += 1
    case.take()
    case.node("n1", known=known, boot=boot)


def test_reconnect_says_again_what_the_node_never_got() -> None:
    case = Case()
    case.node("n1")
    task = case.submit()
    number = case.attempt(task).number
    _again(case, [])
    assert case.assigned() == [number]
    case.expect(task, "assigned")


def test_reconnect_with_a_running_task_goes_on() -> None:
    case = Case()
    case.node("n1")
    task = case.submit()
    attempt = case.attempt(task)
    _again(case, [Known(attempt.number, attempt.token, "running")])
    case.expect(task, "running")
    assert case.assigned() == []


def test_reconnect_when_the_node_forgot_a_running_task() -> None:
    case = Case()
    case.node("n1")
    task = case.submit()
    case.started(task)
    _again(case, [])
    case.expect(task, "assigned")
    assert case.attempt(task).attempt == 2
    assert case.cluster.elements[K(task)].infra_losses == 1


def test_reboot_loses_every_attempt_once() -> None:
    case = Case()
    case.node("n1")
    task = case.submit()
    _again(case, [], boot="other")
    assert case.attempt(task).attempt == 2


def test_unknown_attempts_are_stopped_and_unknown_ends_forgotten() -> None:
    case = Case()
    case.node("n1")
    case.take()
    _again(case, [Known(77, 5, "running"), Known(78, 5, "ended")])
    welcome = case.welcome()
    assert welcome.stop == [77]
    assert welcome.forget == [78]


def test_a_second_node_of_the_same_name_is_refused_while_the_first_is_connected() -> None:
    case = Case()
    case.node("n1")
    case.node("n1")
    assert len(case.cluster.nodes) == 1


def _lose(case: Case, node: int) -> None:
    turn = Turn(case.cluster, case.now, "lost")
    on_node_lost(turn, case.cluster.nodes[node])
    on_tasks_ended(turn)
    case.step()


def test_a_lost_node_s_tasks_run_elsewhere_and_the_old_result_is_refused() -> None:
    case = Case()
    case.node()
    task = case.submit()
    case.started(task)
    case.node()
    _lose(case, 1)
    assert case.attempt(task).node == 2


def test_never_ends_lost() -> None:
    case = Case()
    case.node()
    task = case.submit(on_lost="never")
    _lose(case, 1)
    assert case.tasks[task].state == "lost"


def test_poison_is_quarantined_after_three_nodes() -> None:
    case = Case()
    task = case.submit()
    for n in range(1, 4):
        case.node()
        assert case.attempt(task).node == n
        _lose(case, n)
    case.expect(task, "quarantined")
    case.node()
    case.expect(task, "quarantined")
    assert "administrator" in case.command("release", task)
    assert case.command("release", task, admin=True) == ""
    case.expect(task, "assigned")


def test_drain_recalls_what_has_not_started_and_requeues_at_the_deadline() -> None:
    case = Case()
    case.node()
    waiting, running = case.submit(), case.submit()
    case.started(running)
    case.take()
    number = case.attempt(waiting).number
    case.command("node_drain", node=1, deadline_s=30)
    assert case.recalls() == [number]
    case.returned(waiting)
    case.expect(waiting, "queued")
    case.wait(31)
    assert [s.cause for s in case.stops()] == [Cause.REQUEUED]
    case.ends(running, exit_code=None, cause=Cause.REQUEUED)
    case.expect(running, "queued")
    case.command("node_resume", node=1)
    case.expect(running, "assigned")


def test_suspend_resume_signal() -> None:
    case = Case()
    case.node()
    task = case.submit()
    assert "signals go to running" in case.command("signal", task, signum=10)
    case.started(task)
    case.command("suspend", task)
    case.expect(task, "suspended")
    case.command("resume", task)
    case.expect(task, "running")
    assert case.command("signal", task, signum=10) == ""
