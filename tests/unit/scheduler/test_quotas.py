"""Quotas are never exceeded, whatever happens; use is written down and comes back with a new leader."""

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.scheduler.harness import Case

from jarvis.core.command import Command, NewCommand
from jarvis.core.ids import ElementKey
from jarvis.core.inputs import CommandsTaken
from jarvis.core.quota import Quota
from jarvis.core.task import TaskSpec
from jarvis.scheduler.cluster import Cluster
from jarvis.scheduler.explain import why
from jarvis.scheduler.quotas import SAVE_S, allows, load, quota_args


def set_quota(case: Case, quota: Quota, verb: str = "quota_set") -> str:
    args = quota_args(quota) if verb == "quota_set" else {"user": quota.user}
    body = NewCommand(verb=verb, user="admin", admin=True, project=quota.project, args=args)  # type: ignore[arg-type]
    case.step(CommandsTaken("quota", [Command(id=1, at=case.now, body=body)]))
    return case.outcomes[1]


def on_nodes(case: Case, project: str, user: str = "") -> list[int]:
    tasks = case.cluster.tasks
    return [
        k.task for k in case.cluster.attempts if tasks[k.task].project == project and user in ("", tasks[k.task].user)
    ]


def test_a_project_gets_no_more_than_its_quota() -> None:
    case = Case()
    case.node(cpus=8)
    set_quota(case, Quota(project="A", resources={"cpu": 3000}))
    case.submit_as("A", "a", 5, {"cpu": 1000})
    case.submit_as("B", "b", 2, {"cpu": 1000})
    assert (len(on_nodes(case, "A")), len(on_nodes(case, "B"))) == (3, 2)
    case.ends(on_nodes(case, "A")[0])
    assert len(on_nodes(case, "A")) == 3


def test_a_user_gets_no_more_than_its_own() -> None:
    case = Case()
    case.node(cpus=8)
    set_quota(case, Quota(project="A", user="a", running=1))
    case.submit_as("A", "a", 3, {"cpu": 1000})
    case.submit_as("A", "b", 3, {"cpu": 1000})
    assert (len(on_nodes(case, "A", "a")), len(on_nodes(case, "A", "b"))) == (1, 3)


def test_without_its_quota_all_go() -> None:
    case = Case()
    case.node(cpus=8)
    set_quota(case, Quota(project="A", running=0))
    case.submit_as("A", "a", 3, {"cpu": 1000})
    assert not on_nodes(case, "A")
    assert set_quota(case, Quota(project="A"), "quota_remove") == ""
    assert len(on_nodes(case, "A")) == 3
    assert set_quota(case, Quota(project="A"), "quota_remove") == "no such quota"


def test_why_names_the_quota_in_numbers() -> None:
    case = Case()
    case.node(cpus=8)
    set_quota(case, Quota(project="A", resources={"cpu": 3000}))
    case.submit_as("A", "a", 4, {"cpu": 1000})
    (waiting,) = [task for task in case.cluster.tasks if task not in on_nodes(case, "A")]
    told = why(case.cluster, ElementKey(waiting), case.now)
    assert told is not None
    assert told["reason"] == "QuotaProject"
    assert told["reasons"][0]["text"] == "project A may have 3 cpu, has 3, wanted 1 more"


def test_a_weight_that_was_set_takes_the_place_of_that_in_the_settings() -> None:
    case = Case()
    set_quota(case, Quota(project="A", weight=3.0))
    case.submit_as("A", "a", 9, {"cpu": 1000})
    case.submit_as("B", "b", 9, {"cpu": 1000})
    case.node(cpus=8)
    assert (len(on_nodes(case, "A")), len(on_nodes(case, "B"))) == (6, 2)


def test_submission_refuses_what_can_never_be_and_what_is_too_much() -> None:
    case = Case()
    spec = TaskSpec(name="t", resources={"cpu": 2000})
    assert allows(case.cluster, "A", "a", spec, 0) is None
    set_quota(case, Quota(project="A", resources={"cpu": 1000}))
    refused = allows(case.cluster, "A", "a", spec, 0)
    assert refused is not None
    assert refused.word == "QuotaProject"
    set_quota(case, Quota(project="A", user="a", tasks=3))
    set_quota(case, Quota(project="A"))
    case.submit_as("A", "a", 2, {"cpu": 1000})
    assert allows(case.cluster, "A", "a", spec, 0) is None
    refused = allows(case.cluster, "A", "a", spec, 1)
    assert refused is not None
    assert refused.word == "QuotaUser"
    case.node(cpus=8)
    case.ends(1)
    assert allows(case.cluster, "A", "a", spec, 1) is None


def test_use_is_written_down_and_read_again() -> None:
    case = Case()
    case.node(cpus=8)
    case.submit_as("A", "a", 2, {"cpu": 1000})
    case.wait(SAVE_S)
    written = case.turns[-1].changes.used
    assert {owner: (used.total, used.elements) for owner, used in written.items()} == {
        ("A", ""): ({"cpu": 2000 * SAVE_S}, 2),
        ("A", "a"): ({"cpu": 2000 * SAVE_S}, 2),
    }
    case.ends(1)
    case.ends(2)
    case.wait(SAVE_S)
    case.wait(SAVE_S)
    assert not case.turns[-1].changes.used, "nothing new to write"
    new = Cluster(1, 2)
    load(new, [], list(written.values()))
    assert new.ledger.project("A").total == {"cpu": 2000 * SAVE_S}


steps = st.lists(
    st.one_of(
        st.tuples(
            st.just("submit"), st.sampled_from("AB"), st.sampled_from("ab"), st.integers(1, 4), st.integers(1, 4)
        ),
        st.tuples(st.just("end"), st.integers(0, 50)),
        st.tuples(
            st.just("quota"), st.sampled_from("AB"), st.sampled_from(["", "a"]), st.integers(0, 5), st.integers(0, 8)
        ),
    ),
    max_size=25,
)


@settings(max_examples=60, deadline=None)
@given(steps)
def test_never_exceeded_by_anything_that_is_placed(history: list[tuple[object, ...]]) -> None:
    """A quota that was lowered below what runs lets nothing more start until it holds again."""
    case = Case()
    case.node(cpus=6)
    case.node(cpus=4)
    for step in history:
        before = set(case.cluster.attempts)
        if step[0] == "submit":
            _, project, user, count, cpus = step
            case.submit_as(str(project), str(user), int(str(count)), {"cpu": int(str(cpus)) * 1000})
        elif step[0] == "end" and before:
            keys = sorted(before)
            case.ends(keys[int(str(step[1])) % len(keys)])
        elif step[0] == "quota":
            _, project, user, running, cpus = step
            set_quota(
                case,
                Quota(
                    project=str(project),
                    user=str(user),
                    running=int(str(running)),
                    resources={"cpu": int(str(cpus)) * 1000},
                ),
            )
        started = set(case.cluster.attempts) - before
        for key in started:
            task = case.cluster.tasks[key.task]
            for owner in ((task.project, ""), (task.project, task.user)):
                quota = case.cluster.quotas.get(owner)
                if quota is not None:
                    mine = on_nodes(case, *owner)
                    assert quota.running is None or len(mine) <= quota.running
                    used = sum(case.cluster.tasks[t].spec.resources["cpu"] for t in mine)
                    assert used <= quota.resources["cpu"]
