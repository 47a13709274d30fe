"""Recorded workloads: readers refuse what they cannot mean, and replays are right where they can be counted by hand."""

import gzip
import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from jarvis.cli.sim import sim
from jarvis.config.sources import SettingsError
from jarvis.core.errors import InvalidValue
from jarvis.sim.traces.replay import Replay
from jarvis.sim.traces.report import figures
from jarvis.sim.traces.run import Question, answer, nodes_from, policy_from
from jarvis.sim.traces.formats import read
from jarvis.sim.traces.workload import drawn_starts

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
