"""Recorded workloads: readers refuse what they cannot mean, and replays are right where they can be counted by hand."""

import gzip
import json
import os
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from click.testing import CliRunner

from jarvis.cli.sim import sim
from jarvis.config.policies import policy_of
from jarvis.config.sources import SettingsError
from jarvis.core.errors import InvalidValue
from jarvis.scheduler.cycle import Policy
from jarvis.sim.traces.cost import Cost, cost_of, prices_from
from jarvis.sim.traces.filling import arrivals, fill, read_requests
from jarvis.sim.traces.formats import read
from jarvis.sim.traces.history import equal_nodes, lines, span_of
from jarvis.sim.traces.picture import svg
from jarvis.sim.traces.replay import History, Ran, Replay, Workers
from jarvis.sim.traces.report import Terms, figures, shares
from jarvis.sim.traces.run import Question, answer, nodes_from, policy_from
from jarvis.sim.traces.tally import Tally
from jarvis.sim.traces.workload import Recorded, drawn_starts

HEADER = "; MaxProcs: 4\n"
TRACES = Path(os.environ.get("JARVIS_TRACES") or Path(__file__).resolve().parents[4] / "shared" / "traces")


def row(ident: int, submitted: int, run: int, procs: int, limit: int = -1) -> str:
    return f"{ident} {submitted} -1 {run} {procs} -1 -1 {procs} {limit} -1 1 3 4 5 -1 -1 -1 -1"


def swf(tmp_path: Path, *rows: str) -> Path:
    path = tmp_path / "small.swf"
    path.write_text(HEADER + "\n".join(rows) + "\n", encoding="utf-8")
    return path


def question(path: Path, policy: str = "fifo", **rest: object) -> Question:
    return Question(path, policy_from(policy), **rest)  # type: ignore[arg-type]


def test_a_row_and_its_machine(tmp_path: Path) -> None:
    workload = read(swf(tmp_path, row(7, 10, 20, 2, 30), row(8, 11, 0, 1), row(9, 5, 50, 3, 40)))
    late, early = workload.items[1], workload.items[0]
    assert (late.ident, late.submitted, late.run, late.limit, late.resources) == (7, 10, 20, 30, {"cpu": 2000})
    assert (late.user, late.project, late.name) == ("u3", "g4", "x5")
    assert (early.ident, early.run) == (9, 40), "in order of submission; nothing runs past its limit"
    assert (workload.dropped, workload.nodes) == (1, [(1, {"cpu": 4000})])


def test_compressed(tmp_path: Path) -> None:
    path = tmp_path / "small.swf.gz"
    path.write_bytes(gzip.compress((HEADER + row(1, 0, 10, 1)).encode()))
    assert len(read(path).items) == 1


def test_waits_counted_by_hand(tmp_path: Path) -> None:
    """4 processors: the first takes all for 100 s; the second waits 90 and the third, which may pass it by nobody, 195."""
    path = swf(tmp_path, row(1, 0, 100, 4, 100), row(2, 10, 100, 3, 100), row(3, 5, 10, 4, 10))
    found = answer(question(path)).mean
    assert (found.tasks, found.never, found.wait_longest, found.makespan) == (3, 0, 100.0, 210.0)
    assert found.wait == pytest.approx((0 + 95 + 100) / 3)
    assert found.slowdown == pytest.approx((1 + 105 / 10 + 200 / 100) / 3)
    assert (found.slowdown_p99, found.slowdown_longest) == (10.5, 10.5)
    assert found.turnaround == pytest.approx((100 + 200 + 105) / 3)
    assert (found.turnaround_p50, found.turnaround_p99, found.turnaround_longest) == (105.0, 200.0, 200.0)
    assert found.utilisation == pytest.approx((400 + 40 + 300) / (4 * 210))


def test_what_is_too_large_never_runs(tmp_path: Path) -> None:
    path = swf(tmp_path, row(1, 0, 100, 8), row(2, 0, 100, 1))
    found = answer(question(path)).mean
    assert (found.tasks, found.never) == (1, 1)


def test_more_nodes(tmp_path: Path) -> None:
    path = swf(tmp_path, *(row(n, 0, 100, 4) for n in range(1, 5)))
    assert answer(question(path)).mean.makespan == 400.0
    assert answer(question(path, nodes=(nodes_from("4x4"),))).mean.makespan == 100.0


def test_the_same_question_has_the_same_answer(tmp_path: Path) -> None:
    path = swf(tmp_path, *(row(n, n * 7 % 50, 10 + n * 13 % 90, 1 + n % 4, 200) for n in range(1, 60)))
    assert answer(question(path, "default")) == answer(question(path, "default"))
    workload = read(path)
    once = Replay(workload.items, workload.nodes, policy_of_preset("throughput")).run()
    single = Replay(workload.items, workload.nodes, policy_of_preset("throughput"), single=True).run()
    assert figures(once).tasks == figures(single).tasks == 59


def policy_of_preset(name: str):  # type: ignore[no-untyped-def]
    from jarvis.config.policies import policy_of

    return policy_of(policy_from(name))


def test_starts_as_published() -> None:
    """The ten sequences of RLScheduler's tables on the Lublin lists."""
    assert list(drawn_starts(1, 10, 1024, 10_000)) == [1981, 2756, 4299, 8850, 3316, 2714, 5228, 7762, 4022, 7085]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("4x64", (4, {"cpu": 64_000})),
        ("64", (1, {"cpu": 64_000})),
        ("2x cpu=8,memory=1Gi", (2, {"cpu": 8000, "memory": 1 << 30})),
    ],
)
def test_nodes(given: str, expected: tuple[int, dict[str, int]]) -> None:
    assert nodes_from(given) == expected


@pytest.mark.parametrize("given", ["", "4x", "cpu", "0x4", "cpu=,", "CPU=3"])
def test_nodes_that_cannot_be_meant(given: str) -> None:
    with pytest.raises(InvalidValue):
        nodes_from(given)


def test_policies_by_name_and_by_file(tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text("scheduler: {preset: throughput, backfill: conservative}", encoding="utf-8")
    found = policy_from(str(path))
    assert (found.order.name, found.backfill.name) == ("smallest_area", "conservative")
    for text, named in (
        ("order: newest", "order.name"),
        ("ordre: fifo", "ordre"),
        ("backfill: {depth: 0}", "backfill.depth"),
    ):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(SettingsError, match=named):
            policy_from(str(path))
    path.write_text("queues: {fast: {order: shortest}}", encoding="utf-8")
    with pytest.raises(SettingsError, match="tier of its own"):
        policy_from(str(path))
    with pytest.raises(InvalidValue, match="throughput"):
        policy_from(str(tmp_path / "nowhere.yaml"))


@pytest.mark.parametrize(
    ("name", "text"),
    [("a.swf", "1 2 x"), ("a.swf", "1 2 3"), ("a.txt", ""), ("b.swf.gz", "no gzip"), ("nowhere.swf", None)],
)
def test_traces_that_cannot_be_read(tmp_path: Path, name: str, text: str | None) -> None:
    path = tmp_path / name
    if text is not None:
        path.write_text(text, encoding="utf-8")
    with pytest.raises(InvalidValue):
        read(path)


def test_sequences_within_the_trace(tmp_path: Path) -> None:
    path = swf(tmp_path, row(1, 0, 10, 1), row(2, 0, 10, 1))
    with pytest.raises(InvalidValue, match="from"):
        answer(question(path, start=1, count=2))
    with pytest.raises(InvalidValue, match="half"):
        answer(question(path, draws=1))
    with pytest.raises(InvalidValue, match="at least one"):
        answer(question(swf(tmp_path, row(1, 0, 0, 1))))


def test_the_command(tmp_path: Path) -> None:
    path = swf(tmp_path, row(1, 0, 100, 4), row(2, 10, 100, 3))
    table = CliRunner().invoke(sim, ["--trace", str(path), "--policy", "fifo"], catch_exceptions=False)
    assert "2 tasks ran, 0 never" in table.output
    told = CliRunner().invoke(sim, ["--trace", str(path), "-o", "json"], catch_exceptions=False)
    assert json.loads(told.output)["mean"]["wait_longest"] == 90.0


def test_what_it_cost(tmp_path: Path) -> None:
    """4 processors for 200 s: the first held all of them for 100 s, the second three; a quarter of the second half was idle."""
    path = swf(tmp_path, row(1, 0, 100, 4), row(2, 0, 100, 3))
    told = CliRunner().invoke(sim, ["--trace", str(path), "--policy", "fifo", "--price", "cpu=9,node=36"])
    assert "0.1 node-hours; cost 4.00, 12.5 % of it for what nobody held" in told.output, told.output
    plain = CliRunner().invoke(sim, ["--trace", str(path), "--policy", "fifo"])
    assert "0.1 node-hours\n" in plain.output
    assert "cost" not in plain.output


def test_memory_is_priced_by_the_gib(tmp_path: Path) -> None:
    items = [Recorded(1, 0.0, 3600.0, None, {"cpu": 1000, "memory": 1 << 30})]
    history = Replay(items, [(1, {"cpu": 1000, "memory": 4 << 30})], policy_of_preset("fifo")).run()
    cost = cost_of(history, 3600.0, prices_from("memory=0.25, cpu=1"))
    assert (cost.node_hours, cost.total) == (1.0, 2.0)
    assert cost.unused == pytest.approx(1 - 1.25 / 2)
    assert cost_of(history, 3600.0, {}) == Cost(1.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("given", "expected"),
    [("gpu=1", "node, cpu"), *((bad, "an hour") for bad in ("cpu", "cpu=-1", "=1", "cpu=nan", "cpu=1,cpu=2"))],
)  # fmt: skip
def test_what_is_no_price(tmp_path: Path, given: str, expected: str) -> None:
    with pytest.raises(InvalidValue, match=expected):
        answer(question(swf(tmp_path, row(1, 0, 10, 1)), terms=Terms(prices=prices_from(given))))


def test_a_format_that_no_name_tells_and_rows_that_are_none(tmp_path: Path) -> None:
    path = swf(tmp_path, row(1, 0, 100, 4), row(2, 0, 0, 4))
    other = path.rename(tmp_path / "small.txt")
    told = CliRunner().invoke(sim, ["--trace", str(other)])
    assert told.exception is not None and "--kind" in str(told.exception)
    told = CliRunner().invoke(sim, ["--trace", str(other), "--kind", "swf"])
    assert "left out: 1 of the rows" in told.output, told.output


def test_who_starves(tmp_path: Path) -> None:
    path = swf(tmp_path, row(1, 0, 7200, 4), row(2, 0, 10, 4), row(3, 0, 10, 9))
    told = CliRunner().invoke(sim, ["--trace", str(path), "--policy", "fifo", "--starved", "1"])
    assert "2 tasks waited for more than 01:00:00, or for ever" in told.output, told.output
    assert "starve" not in CliRunner().invoke(sim, ["--trace", str(path), "--policy", "fifo", "--count", "2"]).output


def test_filling_draws_the_order_of_nodes_as_well(tmp_path: Path) -> None:
    """Who takes any type is now and then first, and then leaves the other what that needs only if the right node came first."""
    pods, nodes = tmp_path / "pods.csv", tmp_path / "nodes.csv"
    pods.write_text("cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec\n1,0,1,1000,\n1,0,1,1000,A\n", encoding="utf-8")
    nodes.write_text("sn,cpu_milli,memory_mib,gpu,model\na,9,9,1,A\nb,9,9,1,B\n", encoding="utf-8")
    seeds = [seed for seed in range(20) if not arrivals(read_requests(pods), 2000, 1.0, seed)[0].types]

    def allocated(seed: int) -> float:
        return fill(pods, nodes, Policy(gpu_balancer="best_fit"), 1.0, range(seed, seed + 1))[0].allocated

    found = [allocated(seed) for seed in seeds]
    assert set(found) == {50.0, 100.0}
    assert found == [allocated(seed) for seed in seeds]


@pytest.mark.skipif(
    not (TRACES / "lublin").is_dir(), reason=f"no traces in {TRACES} (JARVIS_TRACES says where they are)"
)
@pytest.mark.parametrize(
    ("policy", "slowdown"),
    [
        ("{order: fifo, backfill: {name: none, keep: true}, fairness: nobody}", 7273.77),
        ("{order: f1, backfill: {name: easy, order: submission, extra: false, keep: true}, fairness: nobody}", 75.07),
    ],
)
def test_published_cells(tmp_path: Path, policy: str, slowdown: float) -> None:
    """Two of RLScheduler's (SC'20), to the last digit; ``make quality`` prints them all."""
    path = tmp_path / "policy.yaml"
    path.write_text(policy, encoding="utf-8")
    asked = question(TRACES / "lublin" / "lublin_256.swf.gz", str(path), draws=10, count=1024, single=True)
    assert answer(asked).mean.slowdown == pytest.approx(slowdown, abs=0.005)


# ---------------------------------------------------------------- preemption, projects, other formats


TURNS = """
order: {name: least_attained, first: 100, factor: 10}
backfill: skip
fairness: nobody
preemption: {attained: true, protect: 0, grace: 0, times: 1000}
"""


def turns(tmp_path: Path) -> str:
    path = tmp_path / "turns.yaml"
    path.write_text(TURNS, encoding="utf-8")
    return str(path)


def test_what_is_preempted_goes_on_where_it_was(tmp_path: Path) -> None:
    """The long one has had 200 s of one processor when the short one comes, which runs at once; it ends 100 s later for it."""
    path = swf(tmp_path, row(1, 0, 1000, 4), row(2, 200, 100, 4))
    found = answer(question(path, turns(tmp_path)))
    long, short = sorted(found.history.ran, key=lambda ran: ran.item.ident)
    assert (short.started, short.ended, short.wait, short.preempted) == (200.0, 300.0, 0.0, 0)
    assert (long.started, long.ended, long.wait, long.preempted, long.held) == (0.0, 1100.0, 100.0, 1, 1000.0)
    assert (found.mean.preemptions, found.mean.preempted_most, found.mean.utilisation) == (1, 1, 1.0)


def test_what_a_preemption_may_cost(tmp_path: Path) -> None:
    path = swf(tmp_path, row(1, 0, 1000, 4), row(2, 200, 100, 4))
    slow = answer(question(path, turns(tmp_path), workers=Workers(restart=60.0)))
    assert slow.mean.makespan == 1160.0
    lost = answer(question(path, turns(tmp_path), workers=Workers(keep=False)))
    assert lost.mean.makespan == 1300.0
    assert lost.mean.utilisation == 1.0, "what is lost was in use, too"


def test_what_runs_on_is_looked_at_again(tmp_path: Path) -> None:
    """Nothing happens while the second waits, but the first has had more as time goes by."""
    path = swf(tmp_path, row(1, 0, 10_000, 4), row(2, 5, 100, 4))
    short = max(answer(question(path, turns(tmp_path))).history.ran, key=lambda ran: ran.item.ident)
    assert short.started == 305.0


def philly(tmp_path: Path, *rows: str) -> Path:
    path = tmp_path / "philly.csv"
    path.write_text("\n".join(["timestamp,duration,num_gpus,gpu_time,cluster", *rows]) + "\n", encoding="utf-8")
    return path


def test_rows_of_philly(tmp_path: Path) -> None:
    path = philly(
        tmp_path, "2017-10-09 07:00:05,66.0,8,528.0,b", "2017-10-09 07:00:00,10,1,10,a", "2017-10-09 08:00:00,10,0,0,a"
    )
    workload = read(path, "philly")
    first, second = workload.items
    assert second.submitted - first.submitted == 5.0
    assert (second.run, second.limit, second.resources, second.project) == (66.0, None, {"gpu": 8000}, "b")
    assert (workload.dropped, workload.nodes) == (1, [(1, {"gpu": 448_000})])
    for wrong in ("2017-10-09 07:00:05,x,8,5,b", "yesterday,1,8,5,b", "2017-10-09 07:00:05,1"):
        with pytest.raises(InvalidValue, match="line 2"):
            read(philly(tmp_path, wrong), "philly")


def test_what_each_project_had(tmp_path: Path) -> None:
    """Two that want all of a GPU at the same time, and one that comes when nobody does."""
    path = philly(
        tmp_path, "2017-01-01 00:00:00,100,1,0,a", "2017-01-01 00:00:00,300,1,0,b", "2017-01-01 01:00:00,100,1,0,c"
    )
    found = answer(question(path, kind="philly", nodes=(nodes_from("1xgpu=1"),)))
    had = {one.project: one for one in shares(found.history)}
    assert list(had) == ["b", "a", "c"], "the largest first"
    assert (had["b"].share, had["b"].wait, had["b"].turnaround) == (0.6, 100.0, 400.0)
    assert (had["c"].share, had["c"].wait_longest, had["c"].slowdown) == (0.2, 0.0, 1.0)
    assert (found.mean.fairness, found.mean.contested) == (1.0, 0.0), "never did two of them wait"


def test_bytes_do_not_outweigh_what_is_scarce() -> None:
    """Three of four cpus with a hundredth of the memory, beside one with twice that memory."""
    gib = 1 << 30
    items = [
        Recorded(1, 0.0, 100.0, None, {"cpu": 3000, "memory": gib}, project="a"),
        Recorded(2, 0.0, 100.0, None, {"cpu": 1000, "memory": 2 * gib}, project="b"),
    ]
    history = Replay(items, [(1, {"cpu": 4000, "memory": 100 * gib})], policy_of(policy_from("fifo"))).run()
    assert figures(history).utilisation == 1.0
    assert [(one.project, one.share) for one in shares(history)] == [("a", 0.75), ("b", 0.25)]


def test_fairness_counts_while_two_wait() -> None:
    """One of two holds everything for ten seconds, then each half for another ten; then nobody waits any more."""
    tally = Tally({"cpu": 4000})
    for project in ("a", "b", "a", "b"):
        tally.arrives(project)
    tally.begins("a", {"cpu": 4000})
    tally.comes_to(10.0)
    tally.stops("a", {"cpu": 4000})
    for project in ("a", "b"):
        tally.begins(project, {"cpu": 2000})
    tally.arrives("b")
    tally.comes_to(20.0)
    tally.note()
    assert tally.contested == 20.0
    assert tally.fairness == pytest.approx(0.75)
    assert (list(tally.in_use), list(tally.queued)) == ([1.0], [3.0])


def test_a_gang_in_a_replay(tmp_path: Path) -> None:
    items = [
        Recorded(1, 0.0, 100.0, None, {"cpu": 4000}, nodes=2), Recorded(2, 0.0, 50.0, None, {"cpu": 2000}),
        Recorded(3, 10.0, 10.0, None, {"cpu": 4000}, nodes=3),
    ]  # fmt: skip
    history = Replay(items, [(2, {"cpu": 4000})], policy_of_preset("fifo")).run()
    gang, other = history.ran
    assert (gang.ended, other.started, [item.ident for item in history.never]) == (100.0, 100.0, [3])
    assert figures(history).utilisation == pytest.approx((100 * 8 + 50 * 2) / (150 * 8))


def test_the_command_tells_of_preemptions_and_projects(tmp_path: Path) -> None:
    path = swf(tmp_path, row(1, 0, 1000, 4), row(2, 200, 100, 4))
    command = ["--trace", str(path), "--policy", turns(tmp_path), "--projects", "--restart", "60"]
    told = CliRunner().invoke(sim, command)
    assert "1 preemptions, of one task at most 1\n" in told.output, told.output
    assert "PROJECT  TASKS  OF ALL WORK" in told.output
    data = json.loads(CliRunner().invoke(sim, [*command, "-o", "json"]).output)
    assert data["mean"]["preemptions"] == 1
    assert [one["project"] for one in data["projects"]] == ["g4"]


def test_a_picture_of_a_replay(tmp_path: Path) -> None:
    path = swf(tmp_path, *(row(n, n * 5, 10 + n * 13 % 900, 1 + n % 4) for n in range(1, 40)))
    for name in ("it.svg", "it.html"):
        drawn = tmp_path / name
        told = CliRunner().invoke(sim, ["--trace", str(path), "--policy", "fifo", "--picture", str(drawn)])
        assert told.exit_code == 0, told.output
        text = drawn.read_text(encoding="utf-8")
        tree = ET.fromstring(text[text.index("<svg") : text.index("</svg>") + 6])
        words = " ".join(tree.itertext())
        for expected in (
            "small.swf, policy fifo",
            "in use",
            "tasks that wait",
            "waited at most so long",
            "g4",
            "39 tasks",
        ):
            assert expected in words
        (area, _) = tree.iter("{http://www.w3.org/2000/svg}polygon")
        heights = [float(point.partition(",")[2]) for point in area.attrib["points"].split()]
        assert all(50.0 <= y <= 210.0 for y in heights), "within the chart"
    assert "--picture takes" in CliRunner().invoke(sim, ["--trace", str(path), "--picture", "it.png"]).output


def test_a_picture_of_nothing() -> None:
    assert "nothing ran" in svg(History(), "empty")


def test_what_is_drawn_is_what_was_so() -> None:
    """Half in use for the first half of the time, all of it after."""
    history = History(ran=[Ran(Recorded(1, 0.0, 1.0, None, {"cpu": 1000}), 0.0, 1.0, 1)], capacity={"cpu": 1000})
    for at, used in ((0.0, 500), (50.0, 500), (100.0, 0)):
        history.tally.comes_to(at)
        history.tally.capacity = {"cpu": 1000}
        history.tally.begins("p", {"cpu": used})
        history.tally.note()
    text = svg(history, "t")
    points = text.split('points="')[1].split('"')[0].split()[1:-1]
    assert points[0].endswith(",130.0")
    assert points[-1].endswith(",50.0")


# ---------------------------------------------------------------- a cluster's own history


def history_row(**more: object) -> dict[str, object]:
    return {
        "task": 7, "index": None, "submitted_at": 100.0, "ran_s": 20.0, "limit_s": 10.0, "resources": {"cpu": 2000}, "nodes": 2,
        "user": "ann", "project": "p", "name": "t", "queue": "gpu", "priority": 5, "attempts": 1,
    } | more  # fmt: skip


def test_a_history_that_was_kept(tmp_path: Path) -> None:
    path = tmp_path / "week.jsonl"
    nodes = equal_nodes([{"cpu": 4000}, {"cpu": 8000}, {"cpu": 4000}])
    rows = [history_row(), history_row(task=6, submitted_at=90.0, limit_s=None), history_row(ran_s=0.0)]
    path.write_text("".join(lines(rows, nodes)), encoding="utf-8")
    workload = read(path)
    assert (workload.nodes, workload.dropped) == ([(2, {"cpu": 4000}), (1, {"cpu": 8000})], 1)
    early, late = workload.items
    assert (early.ident, early.limit, late.limit) == (6, None, 20.0), "nothing ran past its limit"
    assert (late.user, late.queue, late.priority, late.whole) == ("ann", "gpu", 5, {"cpu": 4000})
    assert answer(question(path)).mean.tasks == 2


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "line 1"), ("[]", "line 1"), ('{"trace": "jarvis"}', "line 1"),
        ('{"trace": "jarvis", "version": 1, "nodes": []}\n{"task": 1}', "line 2"),
        ('{"trace": "jarvis", "version": 9, "nodes": []}', "version 9"),
    ],
)  # fmt: skip
def test_a_history_that_is_none(tmp_path: Path, text: str, line: str) -> None:
    path = tmp_path / "week.jsonl"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InvalidValue, match=line):
        read(path)


def test_which_time_is_meant() -> None:
    assert [span_of(word) for word in ("last-week", "last-12h", "last-2d", "week.swf", "lastweek")] == [
        604_800, 43_200, 172_800, None, None,
    ]  # fmt: skip
    for wrong in ("last-year", "last-0h", "last-", "last-h"):
        with pytest.raises(InvalidValue, match="last-12h"):
            span_of(wrong)
    told = CliRunner().invoke(sim, ["--trace", "x.swf", "--save", "y"])
    assert (told.exit_code, "--save: goes with" in told.output) == (2, True)
