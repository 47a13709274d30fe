"""Preemption on a real cluster: a checkpoint on the soft signal, a second attempt that knows why, no retry counted."""

import json
import os
from pathlib import Path
from typing import Any

from tests.e2e.cluster.harness import Home, wait_for

CONFIG = "scheduler: {preemption: {by: 500, grace: 20, protect: 0}, queues: {calm: {preemptible: false}}}\n"
LONG = """
echo "$JARVIS_ATTEMPT reason=$JARVIS_RESTART_REASON from=$(cat checkpoint 2>/dev/null || echo nothing)" >> story
test -f checkpoint && exit 0
trap 'echo half > checkpoint; exit 0' TERM
touch begun
while :; do sleep 0.05; done
"""


def configure(home: Home, text: str) -> None:
    path = home.directory.parent / "jarvis.yaml"
    path.write_text(text, encoding="utf-8")
    home.env["JARVIS_CONFIG"] = str(path)


def shown(home: Home, ident: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(home.jarvis("show", ident, "-o", "json").stdout)
    return found


def events(home: Home, ident: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in home.jarvis("events", "--task", ident, "--json").stdout.splitlines()]


def test_a_long_one_makes_room_and_goes_on_from_its_checkpoint(fresh: Home, tmp_path: Path) -> None:
    configure(fresh, CONFIG)
    os.mkfifo(tmp_path / "gate")
    fresh.jarvis("up", "--cpus", "1")
    low = fresh.jarvis("submit", "-q", "-c", "1", "--", "sh", "-c", LONG, cwd=tmp_path).stdout.strip()
    stubborn = fresh.jarvis("submit", "-q", "-c", "1", "--no-preemptible", "sleep", "60", cwd=tmp_path).stdout.strip()
    wait_for((tmp_path / "begun").exists, "the long one begins")
    ask = ("plan", "-c", "1", "--priority", "high")
    planned = fresh.jarvis(*ask, "true", code=None).stdout
    assert "would stop for it" in planned and "not before" not in planned, planned
    for words in (("submit",), ask):
        refused = fresh.jarvis(*words, "-p", "clam", "true", code=None).stderr
        assert "'clam' is not one of calm, default" in refused, refused
    urgent = fresh.jarvis("submit", "-q", "-c", "1", "--priority", "high", "sh", "-c", "read x < gate", cwd=tmp_path)
    urgent_id = urgent.stdout.strip()
    wait_for(lambda: shown(fresh, urgent_id)["state"] == "running", "the urgent one runs")
    assert (tmp_path / "checkpoint").read_text() == "half\n"
    told = json.loads(fresh.jarvis("why", low, "-o", "json").stdout)
    assert "Preempted" in [reason["reason"] for reason in told["reasons"]], told
    fresh.jarvis("cancel", stubborn)
    (tmp_path / "gate").write_text("open\n")
    wait_for(lambda: shown(fresh, low)["ended"], "the long one goes on and ends")
    element = shown(fresh, low)
    assert (element["state"], element["failures"], element["preemptions"]) == ("succeeded", 0, 1), element
    assert (tmp_path / "story").read_text().splitlines() == ["1 reason= from=nothing", "2 reason=preempted from=half"]
    assert [e["detail"] for e in events(fresh, low) if e["kind"] == "cancelling"] == [
        {"reason": "Preempted", "by": urgent_id}
    ]
    assert [e["detail"] for e in events(fresh, urgent_id) if e["kind"] == "preempts"] == [{"victims": low}]


def test_what_is_borrowed_is_given_back(fresh: Home, tmp_path: Path) -> None:
    """By its guarantee alone: neither priorities nor tiers preempt here."""
    configure(fresh, "scheduler: {preemption: {by: null, tiers: false, grace: 20, protect: 0}}\n")
    os.mkfifo(tmp_path / "gate")
    fresh.jarvis("up", "--cpus", "2")
    fresh.jarvis("quota", "set", "owner", "--guaranteed-cpus", "1")
    borrowed = [
        fresh.jarvis("submit", "-q", "-c", "1", "-A", "guest", "--", "sh", "-c", LONG, cwd=tmp_path).stdout.strip()
        for _ in range(2)
    ]
    wait_for(lambda: all(shown(fresh, i)["state"] == "running" for i in borrowed), "all is borrowed")
    own = fresh.jarvis(
        "submit", "-q", "-c", "1", "-A", "owner", "sh", "-c", "read x < gate", cwd=tmp_path
    ).stdout.strip()
    wait_for(lambda: shown(fresh, own)["state"] == "running", "the owner has its share")
    assert sorted(shown(fresh, i)["preemptions"] for i in borrowed) == [0, 1]
    (tmp_path / "gate").write_text("open\n")


def test_rules_that_cannot_be_meant(fresh: Home) -> None:
    for text, said in (
        ("scheduler: {preemption: {by: 0}}", "scheduler.preemption.by"),
        ("scheduler: {preemption: {patience: 3}}", "scheduler.preemption.patience"),
        ("scheduler: {preemption: {times: 0}}", "scheduler.preemption.times"),
        ("scheduler: {queues: {calm: {preemptible: 3}}}", "scheduler.queues.calm"),
    ):
        configure(fresh, text)
        refused = fresh.jarvis("up", "--cpus", "1", code=None)
        assert refused.returncode != 0
        assert said in refused.stderr, refused.stderr
