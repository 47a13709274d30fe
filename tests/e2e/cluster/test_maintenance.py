"""Maintenance and reservations by the command line, on a real cluster: planned, told, kept over a restart, ended by themselves."""

import json

from tests.e2e.cluster.harness import Home, wait_for


def kinds(home: Home, after: str) -> list[str]:
    with home.client() as client:
        found = client.connection.get("/events", after=after or None, limit=1000)["items"]
    return [event["kind"] for event in found if event["kind"].startswith(("maintenance", "reservation"))]


def test_the_life_of_a_maintenance(fresh: Home) -> None:
    fresh.jarvis("up", "--cpus", "4")
    (node,) = [n["name"] for n in json.loads(fresh.jarvis("node", "ls", "-o", "json").stdout)]
    add = ("add", "--nodes", node, "--for", "2h", "--reason", "new disks")
    planned = fresh.jarvis("maintenance", *add, "--start", "+10m").stdout.strip()
    long = fresh.jarvis("submit", "-q", "true").stdout.strip()
    short = fresh.jarvis("submit", "-q", "-t", "5m", "true").stdout.strip()
    fresh.jarvis("wait", short)
    fresh.jarvis("down", "--keep")
    fresh.jarvis("up", "--cpus", "4")
    told = json.loads(fresh.jarvis("why", long, "-o", "json").stdout)
    assert told["reason"] == "ReqNodeNotAvail"
    assert "to be under maintenance" in told["summary"] and "new disks" in told["summary"], told
    assert fresh.jarvis("plan", "true", code=1).stdout
    assert planned in fresh.jarvis("maintenance", "ls").stdout
    assert json.loads(fresh.jarvis("reservation", "ls", "-o", "json").stdout) == []
    assert fresh.jarvis("reservation", "rm", planned, code=None).returncode == 3
    fresh.jarvis("maintenance", "rm", planned)
    fresh.jarvis("wait", long)
    now = fresh.jarvis("maintenance", "add", "--nodes", node, "--for", "1h", "--reason", "new disks").stdout.strip()
    (shown,) = json.loads(fresh.jarvis("node", "ls", "-o", "json").stdout)
    assert not shown["schedulable"] and "(new disks)" in shown["maintenance"]
    fresh.jarvis("maintenance", "rm", now)
    kept = fresh.jarvis("reservation", "add", "--nodes", node, "--for", "1s", "-A", "physics").stdout.strip()
    wait_for(lambda: "reservation.ended" in kinds(fresh, ""), "the reservation ends by itself")
    assert kept not in fresh.jarvis("reservation", "ls").stdout
    fresh.jarvis("wait", fresh.jarvis("submit", "-q", "true").stdout.strip())
    assert kinds(fresh, "")[:2] == ["maintenance.set", "maintenance.removed"]
    fresh.jarvis("down", "--keep")
    assert "all the same" in fresh.jarvis("replay").stdout


def test_what_cannot_be_meant(up: Home) -> None:
    (node,) = [n["name"] for n in json.loads(up.jarvis("node", "ls", "-o", "json").stdout)]
    for words, said in (
        (("maintenance", "add", "--nodes", "nowhere", "--for", "1h"), f"there are {node}"),
        (("maintenance", "add", "--nodes", node, "--for", "soon"), "2h30m"),
        (("maintenance", "add", "--nodes", node, "--for", "0"), "duration"),
        (("maintenance", "add", "--nodes", node, "--for", "1h", "--start", "noon"), "begin"),
        (("reservation", "add", "--nodes", node, "--for", "1h"), "--project"),
        (("maintenance", "rm", "999999"), "no maintenance 999999"),
    ):
        refused = up.jarvis(*words, code=None)
        assert refused.returncode != 0
        assert said in refused.stderr, refused.stderr
