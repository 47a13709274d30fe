"""Two servers on one database, as one cluster: whoever is asked, everything is there."""

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.e2e.cluster.harness import wait_for
from tests.e2e.servers.harness import Servers, servers

import jarvis
from jarvis.core.manifest import PIECE

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def inbox(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where schedules may wait for files, on each node."""
    return tmp_path_factory.mktemp("inbox")


@pytest.fixture(scope="module", params=[False, True], ids=["database", "redis"])
def both(request: pytest.FixtureRequest, inbox: Path) -> Iterator[Servers]:
    with servers("na", "nb", with_redis=request.param, more={"JARVIS_WORKER__WATCH": f"[{inbox}]"}) as made:
        made.leader()
        yield made


def test_a_standby_takes_tasks_and_both_nodes_run_them(both: Servers) -> None:
    with both.homes[both.standby()].client() as client:
        tasks = [client.submit(command=["sh", "-c", "sleep 0.5; echo $JARVIS_NODE"]) for _ in range(6)]
        for task in tasks:
            assert client.wait(task.id, 60)["state"] == "succeeded"
    said = {both.homes[name].jarvis("logs", str(tasks[0].id)).stdout for name in both.homes}
    assert len(said) == 1
    nodes = {both.homes["na"].jarvis("logs", str(task.id)).stdout.strip() for task in tasks}
    assert nodes == {"na", "nb"}


def test_each_explains_what_waits(both: Servers) -> None:
    with both.homes["na"].client() as client:
        ident = str(client.submit(command=["true"], hold=True).id)
    for name in both.homes:
        wait_for(lambda name=name: "it is held by its user" in both.homes[name].jarvis("why", ident).stdout, "why")  # type: ignore[misc]
    both.homes["nb"].jarvis("cancel", ident)
    assert both.homes["na"].jarvis("wait", ident, code=1).stdout.split() == [ident, "cancelled"]


def test_each_knows_what_every_node_holds(both: Servers, tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(os.urandom(17 * PIECE))
    with both.homes["na"].client() as client:
        digest = client.push(tmp_path / "data")
        for task in [client.submit(command=["sleep", "1"], push=[digest], resources={"cpu": 2}) for _ in range(2)]:
            task.check(60)

    def known(asked: str, node: str) -> bool:
        with both.homes[asked].client() as client:
            return any(
                one["what"] == f"files {digest[:12]}" for one in client.connection.get(f"/nodes/{node}")["holds"]
            )

    for asked in both.homes:
        for node in both.homes:
            wait_for(lambda asked=asked, node=node: known(asked, node), f"{asked} knows what {node} holds")  # type: ignore[misc]


@pytest.mark.parametrize("asked", ["na", "nb"])
def test_output_is_followed_and_commands_run_beside_wherever_the_node_is_connected(
    both: Servers, asked: str, tmp_path: Path
) -> None:
    script = f"echo begun; while [ ! -e {tmp_path}/$JARVIS_TASK_ID ]; do sleep 0.1; done; echo over"
    with both.homes[asked].client() as client:
        tasks = [client.submit(command=["sh", "-c", script], resources={"cpu": 2}).id for _ in range(2)]
        for task in tasks:
            wait_for(lambda task=task: client.show(task)["state"] == "running", "it runs")  # type: ignore[misc]
        for task in tasks:
            assert both.homes[asked].jarvis("exec", str(task), "--", "echo", "beside").stdout == "beside\n"
            both.homes[asked].jarvis("exec", str(task), "--", "touch", str(tmp_path / str(task)))
            assert both.homes[asked].jarvis("logs", "-f", str(task)).stdout == "begun\nover\n"


def test_files_are_seen_on_each_node_whichever_server_it_is_connected_to(
    both: Servers, inbox: Path, tmp_path: Path
) -> None:
    ledger, asked = tmp_path / "ledger", both.homes[both.standby()]
    for node in both.homes:
        place, command = f"{node}:{inbox}/{tmp_path.name}.{node}.*", f'echo "$JARVIS_EVENT" >> {ledger}'
        asked.jarvis("cron", "add", "--on-file", place, f"{tmp_path.name}-{node}", "--", "sh", "-c", command)
    for count, node in enumerate(both.homes, 1):
        (inbox / f"{tmp_path.name}.{node}.csv").write_text("1")
        wait_for(lambda count=count: ledger.exists() and len(ledger.read_text().splitlines()) == count, "it is seen")  # type: ignore[misc]
    assert [json.loads(line)["node"] for line in ledger.read_text().splitlines()] == list(both.homes)


def test_functions_run_through_a_standby(both: Servers) -> None:
    with both.homes[both.standby()].client() as client, jarvis.Executor(client=client) as pool:
        assert list(pool.map(pow, range(50), [2] * 50)) == [n * n for n in range(50)]


def test_health_tells_who_leads_and_what_carries_messages(both: Servers) -> None:
    for name in both.homes:
        checks = both.health(name)["checks"]
        assert {check: told["status"] for check, told in checks.items() if check != "redis"} == {
            "api": "ok", "scheduler_queue": "ok", "workers": "ok", "database": "ok",
        }  # fmt: skip
        assert checks["redis"]["status"] == ("ok" if both.redis else "not_configured")
    if both.redis is not None:
        both.redis.pause(on=True)
        begun = time.monotonic()
        wait_for(lambda: both.health("na")["checks"]["redis"]["status"] == "down", "it is noticed", 5)
        others = both.health("na")["checks"]
        assert {check for check, told in others.items() if told["status"] != "ok"} == {"redis"}
        with both.homes[both.standby()].client() as client:
            assert client.wait(client.submit(command=["true"]).id, 30)["state"] == "succeeded", "and nothing stops"
        both.redis.pause(on=False)
        wait_for(lambda: both.health("na")["checks"]["redis"]["status"] == "ok", "it is back", 10)
        assert time.monotonic() - begun < 60


def test_the_cluster_is_shown(both: Servers) -> None:
    leader = both.leader()
    for name in both.homes:
        shown = both.homes[name].jarvis("cluster", "show").stdout.splitlines()
        rows = [line.split() for line in shown[1 : shown.index("")]]
        # A server decides in a process of its own where there are processors enough for one.
        assert {row[2] for row in rows} in ({"all"}, {"api", "scheduler"})
        assert sorted(row[0] for row in rows if row[2] != "api") == ["leader", "standby"]
        assert f"redis {'ok' if both.redis else 'not_configured'}" in "\n".join(shown)
        assert shown[-1].endswith("the first leader")
    told = json.loads(both.homes[leader].jarvis("cluster", "show", "-o", "json").stdout)
    assert {server["url"] for server in told["servers"] if server["role"] != "scheduler"} == {
        both.homes[name].server.url.removesuffix("/api/v1") for name in both.homes
    }
    assert [server["name"] for server in told["servers"] if server["leads"]] == [told["leader"]]
    assert 0 < told["lease_left_s"] <= 10
