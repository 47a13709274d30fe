"""Gangs: all ranks start together or none, end together, and nothing partial stays, whatever happens on the way."""

import pytest
from tests.unit.scheduler.gang_harness import Gangs, successor

from jarvis.core.effects import Assign, Gang, Recall, Signal, Stop
from jarvis.core.inputs import Known
from jarvis.core.retry import RetryPolicy
from jarvis.core.states import Cause
from jarvis.core.task import ADDRESS_LABEL, Affinity
from jarvis.scheduler import explain, whatif
from jarvis.scheduler.cycle import Policy
from jarvis.scheduler.policy.backfill import Backfill
from jarvis.scheduler.policy.preemption import Preemption

EASY = Policy(backfill=Backfill("easy"))


def test_every_rank_has_a_node_of_its_own_and_knows_the_others() -> None:
    case = Gangs()
    nodes = case.nodes(4)
    task = case.submit(cpus=2, nodes=3)
    attempt = case.attempt(task)
    assert [rank.node for rank in attempt.ranks] == nodes[:3]
    assert [(p.rank, p.node, p.resources) for p in attempt.placements] == [
        (i, nodes[i], {"cpu": 2000}) for i in range(3)
    ]
    told = case.said(Assign)
    gangs = {node: message.assignments[0].gang for node, message in told.items()}  # type: ignore[attr-defined]
    port = 20_000 + attempt.number + 997 * attempt.node
    hosts = ("10.0.0.1", "10.0.0.2", "10.0.0.3")
    assert gangs == {nodes[rank]: Gang(rank, hosts, port) for rank in range(3)}


def test_it_runs_when_all_ranks_do_and_succeeds_when_all_have() -> None:
    case = Gangs()
    case.nodes(3)
    task = case.submit(nodes=3)
    case.rank_started(task, 1)
    case.expect(task, "starting")
    case.rank_started(task, 0)
    case.rank_started(task, 2)
    case.expect(task, "running")
    case.rank_ends(task, 0)
    case.expect(task, "running")
    assert case.cluster.nodes[1].free["cpu"] == 4000, "the room of a rank that is over is free"
    case.rank_ends(task, 2)
    case.rank_ends(task, 1)
    case.expect(task, "succeeded")
    attempt = case.ended_attempt(task)
    assert (attempt.exit_code, attempt.usage.wall_s, attempt.message) == (0, 3.0, "")
    assert not any(view.placed for view in case.cluster.nodes.values())


def test_one_that_fails_has_the_others_stopped_and_all_is_tried_again() -> None:
    case = Gangs()
    case.nodes(3)
    task = case.submit(nodes=3, retry=RetryPolicy(max_attempts=2, base=5.0))
    case.all_start(task)
    case.take()
    case.rank_ends(task, 1, exit_code=3)
    case.expect(task, "cancelling")
    stops = case.said(Stop)
    assert sorted(stops) == [1, 3]
    assert {stop.cause for stop in stops.values()} == {Cause.CANCELLED}  # type: ignore[attr-defined]
    case.rank_ends(task, 0, None, Cause.CANCELLED)
    case.expect(task, "cancelling")
    case.rank_ends(task, 2, None, Cause.CANCELLED)
    case.expect(task, "backoff")
    attempt = case.ended_attempt(task)
    assert (attempt.exit_code, attempt.message) == (3, "rank 1 on n2: it ended with exit code 3")
    assert [str(rank.cause) for rank in attempt.ranks] == ["cancelled", "exit", "cancelled"]
    case.wait(60)
    assert case.attempt(task).attempt == 2


def test_the_loss_of_a_node_explains_what_the_others_ended_by() -> None:
    case = Gangs()
    case.nodes(4)
    task = case.submit(nodes=3)
    case.all_start(task)
    case.rank_ends(task, 0, exit_code=1)  # it lost its peer
    case.rank_ends(task, 2, exit_code=1)
    case.expect(task, "cancelling")
    case.lose(2)
    assert case.attempt(task).attempt == 2, "no failure of its own: it runs again, though it asked for no retries"
    assert [rank.node for rank in case.attempt(task).ranks] == [1, 3, 4]
    assert case.cluster.elements[next(iter(case.cluster.elements))].lost_on == (2,)
    assert "rank 1 on n2: node n2 was not heard of" in case.ended_attempt(task).message


def test_one_that_must_not_run_twice_ends_lost_with_all_ranks() -> None:
    case = Gangs()
    case.nodes(3)
    task = case.submit(nodes=3, on_lost="never")
    case.all_start(task)
    case.lose(3)
    case.expect(task, "cancelling")
    case.rank_ends(task, 0, None, Cause.CANCELLED)
    case.rank_ends(task, 1, None, Cause.CANCELLED)
    case.expect(task, "lost")


def test_a_fenced_one_waits_for_its_fence_and_then_goes_on_as_a_whole() -> None:
    case = Gangs()
    case.nodes(3)
    task = case.submit(nodes=2, on_lost="fence")
    case.all_start(task)
    case.lose(2)
    case.expect(task, "running")
    from jarvis.scheduler.nodes import on_fence_passed
    from jarvis.scheduler.turn import Turn

    turn = Turn(case.cluster, case.now, "fence")
    on_fence_passed(turn, case.cluster.nodes[2])
    case.step()
    case.expect(task, "cancelling")
    case.rank_ends(task, 0, None, Cause.CANCELLED)
    assert [rank.node for rank in case.attempt(task).ranks] == [1, 3]


@pytest.mark.parametrize("begun", [0, 1, 2])
def test_a_rank_that_is_given_back_takes_the_whole_start_back(begun: int) -> None:
    case = Gangs()
    case.nodes(2)
    task = case.submit(nodes=2)
    for rank in range(begun):
        case.rank_started(task, rank)
    case.take()
    case.rank_returned(task, 1)
    assert list(case.said(Stop)) == [1]
    case.rank_ends(task, 0, None, Cause.CANCELLED)
    element = case.cluster.elements[next(iter(case.cluster.elements))]
    assert (element.attempt, element.failures, element.infra_losses) == (2, 0, 0)


def test_cancel_hold_and_signals_reach_every_rank() -> None:
    case = Gangs()
    case.nodes(3)
    task = case.submit(nodes=3)
    case.take()
    case.command("hold", task)
    assert sorted(case.said(Recall)) == [1, 2, 3]
    for rank in range(3):
        case.rank_returned(task, rank)
    case.expect(task, "held")
    case.command("release", task)
    case.all_start(task)
    case.command("signal", task, signum=10)
    assert sorted(case.said(Signal)) == [1, 2, 3]
    assert all(p.saved_at == case.now for v in case.cluster.nodes.values() for p in v.placed.values())
    case.command("suspend", task)
    case.command("resume", task)
    case.take()
    case.command("cancel", task)
    assert sorted(case.said(Stop)) == [1, 2, 3]
    case.rank_ends(task, 0, None, Cause.CANCELLED)
    assert not case.said(Stop), "they were told already"
    case.rank_ends(task, 1, 143)
    case.lose(3)
    case.expect(task, "cancelled")


def test_a_timeout_and_a_deadline_end_all_ranks() -> None:
    case = Gangs()
    case.nodes(2)
    task = case.submit(nodes=2, time_limit=5.0)
    case.all_start(task)
    case.rank_ends(task, 0, None, Cause.TIMEOUT)
    case.rank_ends(task, 1, None, Cause.TIMEOUT)
    case.expect(task, "timeout")
    late = case.submit(nodes=2, deadline=case.now + 10)
    case.all_start(late)
    case.wait(11)
    case.rank_ends(late, 1, None, Cause.EXPIRED)
    case.rank_ends(late, 0, None, Cause.EXPIRED)
    case.expect(late, "expired")


def test_draining_a_node_recalls_what_has_not_begun_and_its_deadline_ends_the_rest() -> None:
    case = Gangs()
    case.nodes(3)
    task = case.submit(nodes=2)
    case.command("node_drain", node=2)
    assert sorted(case.said(Recall)) == [2]
    case.rank_returned(task, 1)
    case.rank_ends(task, 0, None, Cause.CANCELLED)
    assert [rank.node for rank in case.attempt(task).ranks] == [1, 3]
    case.all_start(task)
    case.take()
    case.command("node_drain", node=3, deadline_s=5.0)
    assert not case.said(Recall)
    case.wait(6)
    assert sorted(case.said(Stop)) == [1, 3]
    case.rank_ends(task, 0, None, Cause.REQUEUED)
    case.rank_ends(task, 1, None, Cause.REQUEUED)
    case.expect(task, "queued")


def test_a_new_leader_goes_on_with_a_gang_that_was_half_said() -> None:
    case = Gangs()
    case.nodes(3)
    task = case.submit(nodes=3, grace=1.0)
    case.rank_started(task, 0)
    before = case.attempt(task)
    case.cluster = successor(case)
    known = [Known(before.number, before.token, "running")]
    case.take()
    case.node("n1", labels={ADDRESS_LABEL: "a"}, known=known)
    case.node("n2", labels={ADDRESS_LABEL: "b"})
    assert case.assigned() == [before.ranks[1].number], "the rank that its node does not know is said again"
    case.node("n3", labels={ADDRESS_LABEL: "c"}, boot="another")
    case.expect(task, "cancelling")
    case.cluster.nodes[2].session = None
    case.node("n2", labels={ADDRESS_LABEL: "b"})
    assert case.attempt(task).ranks[1].cause is Cause.RECALLED, "it never came, and does not start any more"
    case.rank_ends(task, 0, None, Cause.CANCELLED)
    assert case.attempt(task).attempt == 2


def test_a_rank_that_ran_and_is_not_known_any_more_ends_all() -> None:
    case = Gangs()
    case.nodes(2)
    task = case.submit(nodes=2)
    case.all_start(task)
    case.cluster.nodes[2].session = None
    case.node("n2", labels={ADDRESS_LABEL: "b"})
    case.rank_ends(task, 0, None, Cause.CANCELLED)
    assert case.ended_attempt(task).cause is Cause.SUPERVISOR_LOST


# ---------------------------------------------------------------- room


def test_all_or_nothing() -> None:
    case = Gangs()
    case.nodes(2)
    case.submit(cpus=3)
    task = case.submit(cpus=2, nodes=2)
    case.expect(task, "queued")
    case.able()
    assert [rank.node for rank in case.attempt(task).ranks] == [2, 3]


def test_a_node_whose_agent_knows_no_gangs_gets_no_rank() -> None:
    case = Gangs()
    case.node("old")
    case.able()
    task = case.submit(nodes=2)
    case.expect(task, "queued")
    told = explain.why(case.cluster, next(iter(_keys(task))), case.now)
    assert told is not None
    assert "knows nothing of tasks on several nodes" in told["nodes"][0]["text"]


def test_elements_of_arrays_are_gangs_each() -> None:
    case = Gangs()
    case.nodes(4, cpus=1)
    task = case.submit(nodes=2, array="0-2")
    assert sorted(rank.node for a in case.cluster.attempts.values() for rank in a.ranks) == [1, 2, 3, 4]
    assert case.cluster.on_nodes[task] == 2


def test_quotas_count_all_ranks() -> None:
    from jarvis.core.quota import Quota

    case = Gangs()
    case.nodes(4)
    case.cluster.quotas[("p", "")] = Quota(project="p", user="", resources={"cpu": 5000})
    first, second = case.submit(cpus=1, nodes=3), case.submit(cpus=1, nodes=3)
    case.expect(first, "assigned")
    case.expect(second, "queued")
    told = explain.why(case.cluster, next(iter(_keys(second))), case.now)
    assert told is not None
    assert "has 3, wanted 3 more" in told["summary"]


def test_why_says_how_many_nodes_have_room() -> None:
    case = Gangs()
    case.nodes(3)
    case.submit(cpus=3)
    task = case.submit(cpus=2, nodes=3)
    told = explain.why(case.cluster, next(iter(_keys(task))), case.now, case.policy)
    assert told is not None
    assert told["reason"] == "GangIncomplete"
    assert told["reasons"][0]["text"] == "2 nodes have room for a rank, 3 are wanted at once"
    assert told["reasons"][1]["text"] == "1 of 3 nodes: 1 cpu free, wanted 2"
    assert told["changes"] == ["1 cpu instead of 2 starts now on n1", "on 2 nodes instead of 3 it starts now"]
    running = case.submit(cpus=1, nodes=2)
    told = explain.why(case.cluster, next(iter(_keys(running))), case.now)
    assert told is not None
    assert "attempt 1 is on nodes n2, n3" in told["summary"]


def test_plan_says_never_when_too_few_nodes_could_hold_a_rank() -> None:
    case = Gangs()
    case.nodes(2)
    case.able(cpus=1)
    spec = case.tasks[case.submit(cpus=2, nodes=2)].spec
    from msgspec.structs import replace

    said = whatif.plan_task(case.cluster, case.policy, replace(spec, nodes=3), ("p", "u"), case.now)
    assert (said["verdict"], said["summary"]) == (
        "never", "nodes: 3 are wanted, and 2 of the 3 registered could ever hold a rank",
    )  # fmt: skip
    large = replace(spec, resources={"cpu": 9000})
    assert whatif.plan_task(case.cluster, case.policy, large, ("p", "u"), case.now)["summary"].startswith(
        "resources.cpu"
    )
    assert whatif.plan_task(case.cluster, case.policy, spec, ("p", "u"), case.now)["node"] == "n1"


def test_a_reservation_takes_the_earliest_time_at_which_enough_nodes_have_room() -> None:
    case = Gangs(EASY)
    case.nodes(3)
    for seconds in (300, 100, 200):
        case.submit(cpus=4, time_limit=float(seconds))
    task = case.submit(cpus=4, nodes=2, time_limit=1000.0)
    key = next(iter(_keys(task)))
    short, long = case.submit(cpus=4, time_limit=50.0), case.submit(cpus=4, time_limit=500.0)
    case.ends(2)  # the node that is free from 100 s on
    node, start = case.cluster.reservations[key]
    assert ((node, *case.cluster.reserved_others[key]), start) == ((2, 3), case.now + 200)
    case.expect(short, "assigned")
    case.expect(long, "queued")
    case.wait(50)
    case.ends(short)
    case.expect(long, "queued")
    case.ends(3)
    assert [rank.node for rank in case.attempt(task).ranks] == [2, 3]


def test_with_no_backfill_one_that_can_fit_holds_up_the_others_and_one_that_cannot_does_not() -> None:
    case = Gangs(Policy(backfill=Backfill("none")))
    case.nodes(2)
    case.submit(cpus=3)
    case.submit(cpus=2, nodes=3)
    behind = case.submit(cpus=1)
    case.expect(behind, "assigned")
    case.submit(cpus=4, nodes=2)
    case.expect(case.submit(cpus=1), "queued")


def test_one_that_is_preempted_stops_on_all_nodes() -> None:
    case = Gangs(Policy(preemption=Preemption(by=500, grace=7.0)))
    case.nodes(3)
    task = case.submit(cpus=3, nodes=2)
    case.all_start(task)
    case.submit(cpus=4, preemptible=False)
    case.now += 100
    case.take()
    urgent = case.submit(cpus=4, priority=500)
    stops = case.said(Stop)
    assert {node: stop.cause for node, stop in stops.items()} == dict.fromkeys((1, 2), Cause.PREEMPTED)  # type: ignore[attr-defined]
    told = explain.why(case.cluster, next(iter(_keys(task))), case.now)
    assert told is not None
    assert f"it stops for task {urgent}" in told["summary"]
    case.rank_ends(task, 0, 0, Cause.PREEMPTED)
    case.expect(urgent, "assigned")
    case.expect(task, "cancelling")
    case.rank_ends(task, 1, 0, Cause.PREEMPTED)
    case.expect(task, "queued")
    assert case.cluster.elements[next(iter(_keys(task)))].preemptions == 1


def test_what_is_apart_from_a_gang_stays_off_all_of_its_nodes() -> None:
    case = Gangs()
    case.nodes(3)
    gang = case.submit(nodes=2, keys=("db",))
    other = case.submit(affinities=(Affinity("apart", "db"),))
    assert case.attempt(other).node == 3
    again = case.submit(nodes=3, keys=("db",))
    case.expect(again, "queued")
    case.all_start(gang)
    case.ends(other)
    case.expect(again, "assigned")


def _keys(task: int):  # type: ignore[no-untyped-def]
    from jarvis.core.ids import ElementKey

    yield ElementKey(task)
