"""What people do all day, on the real thing."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.e2e.cluster.harness import Home, wait_for

pytestmark = pytest.mark.timeout(180)


def submit(up: Home, *args: str) -> str:
    return up.jarvis("submit", "-q", *args).stdout.strip()


def test_the_brief_s_first_figure_ten_tasks_at_once(up: Home) -> None:
    with up.client() as client:
        begin = time.monotonic()
        answers = client.submit_many([{"command": ["sh", "-c", f"echo {i}"], "name": "ten"} for i in range(10)])
        assert time.monotonic() - begin < 1.0
        for i, answer in enumerate(answers):
            assert client.wait(answer["id"], 30)["state"] == "succeeded"
            assert client.logs(answer["id"]) == f"{i}\n".encode()


@pytest.mark.parametrize(("script", "code"), [
    ("exit 0", 0), ("exit 7", 7), ("kill -TERM $$", 128 + 15), ("echo x >&2; exit 3", 3),
])  # fmt: skip
def test_run_ends_with_the_task_s_code(up: Home, script: str, code: int) -> None:
    done = up.jarvis("run", "--", "sh", "-c", script, code=code)
    assert done.stdout == ("x\n" if "x >&2" in script else "")


@pytest.mark.parametrize(("command", "code", "text"), [
    (["/no/such/program"], 127, "/no/such/program"), (["/etc/passwd"], 126, "/etc/passwd"),
])  # fmt: skip
def test_what_cannot_start_says_why(up: Home, command: list[str], code: int, text: str) -> None:
    assert text in up.jarvis("run", "--", *command, code=code).stderr


def test_a_missing_directory_is_named(up: Home) -> None:
    assert "/no/such/place" in up.jarvis("run", "-D", "/no/such/place", "--", "true", code=125).stderr


def test_a_time_limit_ends_with_124(up: Home) -> None:
    up.jarvis("run", "-t", "1s", "--", "sleep", "60", code=124)


def test_an_array_over_lines_with_its_variables(up: Home, tmp_path: Path) -> None:
    lines = tmp_path / "lines"
    lines.write_text("alpha\nbeta\ngamma\n")
    ident = submit(up, "--each-line", str(lines), "--wait", "--", "sh", "-c", "echo $JARVIS_ARRAY_INDEX $JARVIS_ENTRY")
    assert up.jarvis("logs", f"{ident}_1").stdout == "1 beta\n"
    shown = json.loads(up.jarvis("show", ident, "-o", "json").stdout)
    assert shown["counts"] == {"succeeded": 3}


def test_a_script_brings_its_own_flags(up: Home, tmp_path: Path) -> None:
    script = tmp_path / "job.sh"
    script.write_text(
        "#!/bin/sh\n#JARVIS --name from-script\n#SBATCH --cpus-per-task=2\necho $JARVIS_NAME $JARVIS_CPUS $1\n"
    )
    ident = submit(up, "--wait", str(script), "arg")
    assert up.jarvis("logs", ident).stdout == "from-script 2 arg\n"


def test_specs_from_a_file_and_one_bad_entry_harms_no_other(up: Home, tmp_path: Path) -> None:
    file = tmp_path / "tasks.yaml"
    file.write_text("- {name: good, command: [echo, hi]}\n- {name: bad, command: [echo], colour: red}\n")
    done = up.jarvis("submit", str(file), code=1)
    assert "entry 2" in done.stderr
    assert "colour" in done.stderr
    assert "submitted: [" in done.stderr


def test_dependencies_hold_release_and_why(up: Home) -> None:
    first = submit(up, "--hold", "--", "true")
    second = submit(up, "-d", f"afterok:{first}", "--", "true")
    assert "held" in up.jarvis("why", first).stdout
    assert f"end of task {first}" in wait_for(lambda: up.jarvis("why", second).stdout, "why")
    up.jarvis("release", first)
    assert up.jarvis("wait", first, second).stdout == f"{first} succeeded\n{second} succeeded\n"
    assert up.jarvis("why", first).stdout == f"task {first} is succeeded: attempt 1 ended by exit with exit code 0\n"


def test_what_can_never_fit_is_refused_and_named(up: Home) -> None:
    done = up.jarvis("submit", "-c", "999", "--", "true", code=1)
    assert "cpu" in done.stderr
    assert "999" in done.stderr


def test_why_names_what_is_short(up: Home) -> None:
    blocker = submit(up, "-c", "4", "--", "sleep", "60")
    waiting = submit(up, "-c", "3", "--", "true")
    text = wait_for(lambda: (t := up.jarvis("why", waiting).stdout) and "cpu free" in t and t, "the reason")
    assert "cpu free, wanted 3" in text
    up.jarvis("cancel", blocker)
    up.jarvis("wait", waiting)


def test_retry_makes_a_new_task_that_points_back(up: Home) -> None:
    ident = submit(up, "--", "false")
    up.jarvis("wait", ident, code=1)
    again = up.jarvis("retry", ident).stdout.strip()
    assert json.loads(up.jarvis("show", again, "-o", "json").stdout)["retry_of"] == int(ident)


def test_a_failing_task_is_tried_again(up: Home, tmp_path: Path) -> None:
    counter = tmp_path / "tries"
    script = f"echo x >> {counter}; test $(wc -l < {counter}) -ge 3"
    ident = submit(up, "--retries", "4", "--backoff", "constant", "--wait", "--", "sh", "-c", script)
    assert counter.read_text() == "x\nx\nx\n"
    attempts = json.loads(up.jarvis("show", ident, "-o", "json").stdout)["attempts"]
    assert [a["state"] for a in attempts] == ["failed", "failed", "succeeded"]


def test_large_and_binary_output_comes_back_byte_for_byte(up: Home) -> None:
    with up.client() as client:
        task = client.submit(command=["sh", "-c", "head -c 1000000 /dev/urandom | tee /dev/stderr | md5sum >/dev/null"])
        assert task.wait(60)["state"] == "succeeded"
        assert len(task.logs()) == 1_000_000
        assert client.submit(command=["printf", r"\377\033[31m\0"]).check(30)
    raw = up.jarvis("run", "--", "sh", "-c", "printf 'a\\033[31mb'").stdout
    assert raw == "a\033[31mb"


def test_names_cannot_paint_tables(up: Home) -> None:
    done = up.jarvis("submit", "-n", "evil\033[2J", "--", "true", code=1)
    assert "name" in done.stderr


def test_cancel_ends_what_ignores_the_soft_signal(up: Home) -> None:
    ident = submit(up, "--", "sh", "-c", "trap '' TERM; echo on; while :; do sleep 0.1; done")
    wait_for(lambda: up.jarvis("logs", ident).stdout == "on\n", "it runs")
    up.jarvis("cancel", "--grace", "0.2", ident)
    up.jarvis("wait", ident, "--timeout", "20", code=1)
    assert json.loads(up.jarvis("show", ident, "-o", "json").stdout)["state"] == "cancelled"


def test_nodes_are_told_by_their_names(up: Home) -> None:
    name = up.jarvis("node", "ls", "-o", "name").stdout.strip()
    ident = submit(up, "--", "sleep", "60")

    def lines(*words: str) -> list[list[str]]:
        return [line.split() for line in up.jarvis(*words).stdout.splitlines()]

    wait_for(lambda: any(line[0] == ident and line[-1] == name for line in lines("ls")), "it runs there")
    shown = lines("show", ident)
    assert ["node", name] in shown
    assert shown[-1][:2] == ["1", name], "of its attempt"
    (row,) = lines("node", "ls")[1:]
    used, whole = row[2].split("/")
    assert row[3].split("/")[0] == "0"
    up.jarvis("cancel", ident)
    waiting = [submit(up, "-c", whole, "--", "sleep", "60") for _ in range(2)]
    why = wait_for(
        lambda: [line[-1] for line in lines("ls") if line[0] == waiting[1] and line[-1].startswith("(")],
        "the leader wonders why it waits",
    )
    assert (used, why) == ("1", ["(Resources)"])
    up.jarvis("cancel", *waiting)


def test_drain_and_resume_the_node(up: Home) -> None:
    name = up.jarvis("node", "ls", "-o", "name").stdout.strip()
    up.jarvis("node", "drain", name, "--reason", "new fan")
    ident = submit(up, "--", "true")
    assert "new fan" in wait_for(lambda: (t := up.jarvis("why", ident).stdout) and "new fan" in t and t, "the reason")
    up.jarvis("node", "resume", name)
    up.jarvis("wait", ident)


@pytest.mark.parametrize(("args", "code", "text"), [
    (["show", "999999"], 3, "999999"), (["show", "abc"], 1, "abc"), (["frobnicate"], 2, "No such command"),
    (["sbumit", "x"], 2, "submit"), (["submit", "--mem", "-5", "--", "x"], 1, "memory"), (["submit"], 2, "COMMAND"),
    (["submit", "-d", "afterok:999999", "--", "x"], 1, "999999"), (["submit", "--notify", "a", "--", "x"], 2, "not built yet"),
    (["submit", "-a", "5-1", "--", "x"], 1, "array"), (["submit", "--priority", "urgent", "--", "x"], 1, "priority"),
    (["ls", "-s", "flying"], 2, "flying"), (["wait", "999999"], 3, "999999"), (["logs", "1.5"], 1, "1.5"),
])  # fmt: skip
def test_bad_input_is_told_in_one_clear_message(up: Home, args: list[str], code: int, text: str) -> None:
    done = up.jarvis(*args, code=code)
    assert text in done.stderr
    assert "Traceback" not in done.stderr


def test_a_typo_in_the_settings_names_the_key_and_the_right_one(up: Home, tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("server: {prot: 1}\n")
    done = subprocess.run(
        [sys.executable, "-m", "jarvis.cli", "config", "show"], env=up.env | {"JARVIS_CONFIG": str(file)},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "server.prot" in done.stderr
    assert "did you mean server.port" in done.stderr


def test_backup_of_a_live_server_and_restore(up: Home, tmp_path: Path) -> None:
    ident = submit(up, "--wait", "--", "true")
    up.jarvis("backup", str(tmp_path / "b.db"))
    assert "exists" in up.jarvis("backup", str(tmp_path / "b.db"), code=5).stderr
    other = Home(tmp_path / "other")
    other.jarvis("restore", str(tmp_path / "b.db"))
    rows = sqlite3.connect(tmp_path / "other" / "jarvis.db").execute("SELECT count(*) FROM task WHERE id = ?", (ident,))
    assert rows.fetchone() == (1,)


def test_other_users_cannot_read_the_token(up: Home) -> None:
    for name in ("server.json", "token", "node.token"):
        assert (up.directory / name).stat().st_mode & 0o077 == 0


def test_without_a_server_clients_say_how_to_start_one(fresh: Home) -> None:
    done = fresh.jarvis("ls", code=69)
    assert "jarvis up" in done.stderr


def test_run_needs_no_server_and_leaves_nothing(fresh: Home) -> None:
    assert fresh.jarvis("run", "--", "echo", "alone").stdout == "alone\n"
    assert not fresh.processes()


def test_a_private_cluster_ends_with_its_owner_even_by_kill(fresh: Home) -> None:
    program = (
        "import jarvis, time\n"
        "with jarvis.local() as client:\n"
        "    client.submit(command=['sleep', '600'], name='left')\n"
        "    print('on', flush=True); time.sleep(600)\n"
    )
    env = fresh.env | {"MARK": str(fresh.directory)}
    owner = subprocess.Popen([sys.executable, "-c", program], env=env, stdout=subprocess.PIPE)
    assert owner.stdout is not None
    assert owner.stdout.readline() == b"on\n"
    os.kill(owner.pid, signal.SIGKILL)
    owner.wait()
    owner.stdout.close()
    wait_for(lambda: not fresh.processes(), "everything is gone")


def test_up_again_says_that_it_is_up(up: Home) -> None:
    assert "up already" in up.jarvis("up").stdout


def test_a_port_in_use_is_named(up: Home, fresh: Home) -> None:
    port = up.server.url.rpartition(":")[2]
    assert port in fresh.jarvis("up", "--port", port, code=1).stderr


def test_a_corrupt_database_is_refused_by_name(fresh: Home) -> None:
    fresh.directory.mkdir()
    (fresh.directory / "jarvis.db").write_bytes(b"this is not a database" * 500)
    assert "jarvis.db" in fresh.jarvis("up", code=1).stderr
