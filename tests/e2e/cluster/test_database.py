"""The cluster's database by the real command line: an embedded one moves into PostgreSQL, schemas are shown and refused."""

from pathlib import Path

from tests.e2e.cluster.harness import Home, wait_for
from tests.servers.postgres import shared


def use(made: Home, url: str) -> None:
    made.env |= {"JARVIS_STORE__KIND": "postgres", "JARVIS_STORE__URL": url}


def test_an_embedded_cluster_moves_with_all_that_waits_and_runs(fresh: Home, tmp_path: Path) -> None:
    url, begun, go_on = shared().database(), tmp_path / "begun", tmp_path / "go_on"
    fresh.jarvis("up", "--cpus", "1")
    with fresh.client() as client:
        done = client.submit(command=["echo", "kept"]).id
        assert client.wait(done, 60)["state"] == "succeeded"
        runs = client.submit(command=["sh", "-c", f"echo x >> {begun}; while [ ! -e {go_on} ]; do sleep 0.05; done"]).id
        waits = client.submit(command=["true"], after=[f"afterok:{runs}"]).id
        held = client.submit(command=["true"], hold=True).id
    wait_for(begun.exists, "it runs")
    assert "is in use" in fresh.jarvis("promote", url, "--yes", code=1).stderr
    fresh.jarvis("down", "--keep")
    said = fresh.jarvis("promote", url, "--yes").stdout
    assert "moved 4 tasks" in said
    assert f": {runs}" in said
    assert "was moved to postgresql://" in fresh.jarvis("up", code=None).stderr
    use(fresh, url)
    fresh.jarvis("up", "--cpus", "1")
    with fresh.client() as client:
        go_on.touch()
        assert [client.wait(ident, 60)["state"] for ident in (runs, waits, done)] == ["succeeded"] * 3
        assert fresh.jarvis("logs", str(done)).stdout == "kept\n"
        fresh.jarvis("release", str(held))
        assert client.wait(held, 60)["state"] == "succeeded"
        assert client.submit(command=["true"]).id == held + 1
    assert begun.read_text() == "x\n", "it ran once"
    fresh.jarvis("down")


def test_the_schema_is_shown_and_changed_by_hand_and_a_newer_one_is_refused(fresh: Home) -> None:
    assert "its server migrates it" in fresh.jarvis("migrate", code=1).stderr
    server = shared()
    url = server.database()
    use(fresh, url)
    due = fresh.jarvis("migrate", "--dry-run").stdout.splitlines()
    assert due[0] == "0001_first"
    assert f"took {len(due)} step" in fresh.jarvis("migrate", "--yes").stdout
    assert "up to date" in fresh.jarvis("migrate").stdout
    server.psql("INSERT INTO jarvis_schema (number, name) VALUES (9999, '9999_future')", url.rpartition("/")[2])
    for verb in ("migrate", "up"):
        assert "9999" in fresh.jarvis(verb, code=None).stderr
    assert "pg_dump" in fresh.jarvis("backup", str(fresh.directory / "copy"), code=1).stderr
