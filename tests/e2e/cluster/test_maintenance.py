"""Maintenance and reservations by the command line, on a real cluster: planned, told, kept over a restart, ended by themselves."""

import json

import pytest
from tests.e2e.cluster.harness import Home, wait_for

from jarvis.sdk.client import Client

pytestmark = pytest.mark.timeout(180)


def kinds(client: Client) -> list[str]:
    found = client.connection.get("/events", limit=1000)["items"]
    return [event["kind"] for event in found if event["kind"].startswith(("maintenance", "reservation"))]


def submitted(client: Client, **more: object) -> int:
    return int(client.submit(command=["true"], **more).id)


def test_the_life_of_a_maintenance(fresh: Home) -> None:
    fresh.jarvis("up", "--cpus", "4")
    with fresh.client() as client:
        node = client.connection.get("/nodes")["items"][0]["name"]
        add = ("add", "--nodes", node, "--for", "2h", "--reason", "new disks")
        planned = fresh.jarvis("maintenance", *add, "--start", "+10m").stdout.strip()
        long, short = submitted(client), submitted(client, time_limit=300)
        client.wait(short, 60)
    fresh.jarvis("down", "--keep")
    fresh.jarvis("up", "--cpus", "4")
    with fresh.client() as client:
        told = client.connection.get(f"/tasks/{long}/why")
        assert told["reason"] == "ReqNodeNotAvail"
        assert "to be under maintenance" in told["summary"] and "new disks" in told["summary"], told
        assert planned in fresh.jarvis("maintenance", "ls").stdout
        assert json.loads(fresh.jarvis("reservation", "ls", "-o", "json").stdout) == []
        assert fresh.jarvis("reservation", "rm", planned, code=None).returncode == 3
        fresh.jarvis("maintenance", "rm", planned)
        client.wait(long, 60)
        now = fresh.jarvis("maintenance", *add, "--start", "now").stdout.strip()
        (shown,) = client.connection.get("/nodes")["items"]
        assert not shown["schedulable"] and "(new disks)" in shown["maintenance"]
        client.connection.request("DELETE", f"/maintenance/{now}")
        fresh.jarvis("reservation", "add", "--nodes", node, "--for", "1s", "-A", "physics")
        wait_for(lambda: "reservation.ended" in kinds(client), "the reservation ends by itself")
        assert client.connection.get("/maintenance")["items"] == []
        client.wait(submitted(client), 60)
        assert kinds(client)[:2] == ["maintenance.set", "maintenance.removed"]
    fresh.jarvis("down", "--keep")
    assert "all the same" in fresh.jarvis("replay").stdout


def test_what_cannot_be_meant(up: Home) -> None:
    with up.client() as client:
        node = client.connection.get("/nodes")["items"][0]["name"]
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
