"""Schedules that wait for events, on a real cluster: one run for each, also over a leader that is killed."""

import json
import os
import signal
from pathlib import Path

import httpx2 as httpx
from tests.e2e.cluster.harness import Home, home, wait_for
from tests.servers.postgres import free_port

from jarvis.api.webhooks import signature
from jarvis.sdk.client import Client


def lines(ledger: Path) -> list[str]:
    return ledger.read_text().splitlines() if ledger.exists() else []


def test_a_chain_of_workflows_each_after_the_one_before(up: Home, client: Client, tmp_path: Path) -> None:
    ledger, first, second = tmp_path / "ledger", tmp_path / "first.yaml", tmp_path / "second.yaml"
    first.write_text(
        "name: load\nsteps: [{id: a, command: 'echo 7 > $JARVIS_OUTPUT'}]\noutput: '${{ steps.a.output }}'\n"
    )
    second.write_text(
        "name: clean\nparams: {event: {type: object, default: {}}}\n"
        f"steps: [{{id: a, command: 'echo clean ${{{{ params.event.output }}}} >> {ledger}'}}]\n"
    )
    said = up.jarvis("cron", "add", "--on-workflow", "load", "--workflow", str(second), "cleaning")
    assert "when that happens" in said.stdout
    up.jarvis(
        "cron", "add", "--on-workflow", "clean:any", "telling", "--", "sh", "-c", f'echo "$JARVIS_EVENT" >> {ledger}'
    )
    ident = up.jarvis("workflow", "run", "-q", str(first)).stdout.strip()
    wait_for(lambda: len(lines(ledger)) == 2, "both followed")
    assert lines(ledger)[0] == "clean 7"
    assert '"name":"clean","state":"succeeded"' in lines(ledger)[1]
    assert "on workflow load succeeded" in up.jarvis("cron", "ls").stdout
    shown = up.jarvis("cron", "show", "telling").stdout
    assert "on workflow clean any" in shown
    assert client.connection.get("/schedules/cleaning")["last_run"] not in (None, int(ident))
    refused = up.jarvis("cron", "add", "--on-workflow", "clean", "--workflow", str(first), "round", code=1)
    assert "clean → load → clean" in refused.stderr
    for name in ("cleaning", "telling"):
        up.jarvis("cron", "rm", name)


def test_a_leader_that_is_killed_about_the_end_makes_one_run(up: Home, client: Client, tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    up.jarvis("cron", "add", "--on-workflow", "ending", "once", "--", "sh", "-c", f"echo ran >> {ledger}")
    for number in range(1, 4):
        with up.client() as asking:
            begun, go = tmp_path / f"begun{number}", tmp_path / f"go{number}"
            script = f"touch {begun}; until [ -e {go} ]; do sleep 0.01; done"
            ident = asking.submit_workflow({"name": "ending", "steps": [{"id": "a", "command": script}]}).id
            wait_for(begun.exists, "it runs")
        go.touch()
        if number > 1:  # once at any moment before or after, and twice near the end
            with up.client() as asking:
                wait_for(lambda i=ident, c=asking: c.connection.get(f"/workflows/{i}")["ended"], "it ended")  # type: ignore[misc]
        up.kill_server()
        up.jarvis("up", "--cpus", "4")
        with up.client() as asking:
            wait_for(lambda i=ident, c=asking: c.connection.get(f"/workflows/{i}")["ended"], "it ended")  # type: ignore[misc]
            wait_for(lambda n=number, c=asking: c.connection.get("/schedules/once")["runs"] == n, "it is followed")  # type: ignore[misc]
            wait_for(lambda c=asking: not list(c.tasks(state="active")), "what ran is over")  # type: ignore[misc]
        assert lines(ledger) == ["ran"] * number
    up.jarvis("cron", "rm", "once")


def test_a_signed_request_makes_one_run_however_often_it_comes(up: Home, client: Client, tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    said = up.jarvis("cron", "add", "--on-webhook", "push", "--", "sh", "-c", f'echo "$JARVIS_EVENT" >> {ledger}')
    url, secret = (line.split()[1] for line in said.stdout.splitlines()[1:])

    def send(body: bytes, delivery: str | None, signed: str | None = None) -> httpx.Response:
        headers = {"X-Hub-Signature-256": signed or signature(secret, body)}
        return httpx.post(url, content=body, headers=headers | ({"X-GitHub-Delivery": delivery} if delivery else {}))

    first, again = send(b'{"ref": "main"}', "1"), send(b'{"ref": "main"}', "1")
    assert (first.status_code, again.status_code) == (202, 202)
    assert first.json()["command"] == again.json()["command"]
    assert again.headers["idempotent-replayed"] == "true"
    assert send(b'{"ref": "other"}', "1").status_code == 409
    assert send(b'{"ref": "main"}', None).json()["errors"][0]["path"] == "Idempotency-Key"
    assert send(b"[]", "2").status_code == 422
    assert send(b"{", "2").status_code == 400
    assert send(b"{" + b" " * 65536 + b"}", "2").status_code == 413
    wrong = send(b'{"ref": "main"}', "3", signature("another secret", b'{"ref": "main"}'))
    assert (wrong.status_code, wrong.json()["code"]) == (401, "bad_signature")
    up.kill_server()
    up.jarvis("up", "--cpus", "4")
    url = url.replace(url.split("/")[2], up.server.url.split("/")[2])
    assert send(b'{"ref": "main"}', "1").headers["idempotent-replayed"] == "true"
    assert send(b'{"ref": "next"}', "4").status_code == 202
    wait_for(lambda: len(lines(ledger)) == 2, "both ran")
    assert sorted(lines(ledger)) == ['{"ref":"main"}', '{"ref":"next"}']
    with up.client() as asking:
        assert asking.connection.get("/schedules/push")["runs"] == 2
        assert secret not in up.jarvis("cron", "show", "push", "-o", "json").stdout
        body = {"name": "twice", "on_webhook": {}, "task": {"command": ["true"]}}
        answers = [
            asking.connection.request("POST", "/schedules", json_body=body, idempotency_key="same") for _ in range(2)
        ]
        assert [answer.status_code for answer in answers] == [201, 200]
        assert answers[0].json() == answers[1].json()
    assert "on webhook" in up.jarvis("cron", "ls").stdout
    up.jarvis("cron", "add", "--on-webhook", "--every", "5m", "x", "--", "true", code=2)
    up.jarvis("cron", "rm", "push", "twice")


def test_files_that_arrive_make_one_run_each(tmp_path: Path) -> None:
    inbox, ledger = tmp_path / "inbox", tmp_path / "ledger"
    inbox.mkdir()
    command = ("sh", "-c", f'echo "$JARVIS_EVENT" >> {ledger}')
    with home() as made:
        made.env["JARVIS_SERVER__WATCH"] = json.dumps([str(inbox)])
        made.jarvis("up", "--cpus", "4")
        for path in ("/etc/*.conf", f"{tmp_path}/*.csv", f"{inbox}/../*.csv", f"{inbox}*/x.csv", f"{inbox}/"):
            assert "on_file.path" in made.jarvis("cron", "add", "--on-file", path, "bad", "--", "true", code=1).stderr
        made.jarvis("cron", "add", "--on-file", f"{inbox}/*.csv", "load", "--", *command)
        (inbox / "a.csv").write_text("1")
        (inbox / "a.txt").write_text("1")
        wait_for(lambda: len(lines(ledger)) == 1, "the first one is told")
        made.kill_server()
        (inbox / "b.csv").write_text("22")
        made.jarvis("up", "--cpus", "4")
        wait_for(lambda: len(lines(ledger)) == 2, "the one that came meanwhile is told")
        found = [json.loads(line) for line in lines(ledger)]
        assert [(one["path"], one["size"]) for one in found] == [(f"{inbox}/a.csv", 1), (f"{inbox}/b.csv", 2)]
        with made.client() as client:
            assert client.connection.get("/schedules/load")["runs"] == 2
        assert f"on file {inbox}/*.csv" in made.jarvis("cron", "ls").stdout


def test_files_that_arrive_on_a_node_make_one_run_each_whoever_is_killed(tmp_path: Path) -> None:
    inbox, ledger = tmp_path / "inbox", tmp_path / "ledger"
    inbox.mkdir()
    command = ("sh", "-c", f'echo "$JARVIS_EVENT" >> {ledger}')
    with home() as made, home() as far:
        made.env["JARVIS_SERVER__LISTEN"] = f"127.0.0.1:{free_port()}"
        made.jarvis("up", "--cpus", "4")
        line = made.jarvis("token", "create", "--join").stdout.split()
        far.jarvis(*line[1:], "--name", "far", "--watch", str(inbox), code=0)
        name = made.jarvis("node", "ls", "-o", "name").stdout.split()[0]
        for place, said in (
            (f"nowhere:{inbox}/*.csv", "on_file.node: 'nowhere' is not the name of a node"),
            (f"far:{tmp_path}/*.csv", f"on_file.path: '{tmp_path}/*.csv' is not below {inbox}"),
            (f"far:{inbox}/../*.csv", "on_file.path"),
            (f"far:{inbox}*/x.csv", "on_file.path"),
            (f"{name}:{inbox}/*.csv", f"worker.watch of node {name}, where there is none yet"),
        ):
            refused = made.jarvis("cron", "add", "--on-file", place, "bad", "--", "true", code=1).stderr
            assert said in refused
            assert refused.count("on_file.") == 1, refused
        made.jarvis("cron", "add", "--on-file", f"far:{inbox}/*.csv", "load", "--", *command)

        def arrives(file: str, count: int) -> None:
            (inbox / file).write_text(file)
            wait_for(lambda: len(lines(ledger)) == count, f"{file} is told")

        arrives("a.csv", 1)
        agent = far.agent()
        assert agent is not None
        os.kill(agent, signal.SIGKILL)
        arrives("b.csv", 2)
        agent = wait_for(far.agent, "there is another agent")
        made.kill_server()
        os.kill(agent, signal.SIGKILL)
        (inbox / "c.csv").write_text("c")
        made.jarvis("up", "--cpus", "4")
        wait_for(lambda: len(lines(ledger)) == 3, "the one that came meanwhile is told")
        found = [json.loads(line) for line in lines(ledger)]
        assert [(one["node"], one["path"]) for one in found] == [("far", f"{inbox}/{n}.csv") for n in "abc"]
        assert f"on file far:{inbox}/*.csv" in made.jarvis("cron", "ls").stdout
        far.jarvis("down")
        wait_for(lambda: "far is not connected" in made.jarvis("cron", "show", "load").stdout, "it says why it waits")


def test_an_end_that_no_workflow_has_is_refused(up: Home) -> None:
    refused = up.jarvis("cron", "add", "--on-workflow", "a:maybe", "bad", "--", "true", code=2).stderr
    assert "the end 'maybe' is not one of succeeded, failed, any" in refused
