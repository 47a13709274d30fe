"""Bad input as users meet it: one clear message that names the field or file, and nothing half done."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
from tests.e2e.cluster.harness import Home, wait_for

from jarvis.sdk.client import Client
from jarvis.sdk.errors import ClientError

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def client(up: Home) -> Iterator[Client]:
    with up.client() as made:
        yield made


def post(up: Home, path: str, **kwargs: Any) -> httpx.Response:
    headers = {"Authorization": f"Bearer {up.server.token}"} | kwargs.pop("headers", {})
    return httpx.post(f"{up.server.url}{path}", headers=headers, timeout=30, **kwargs)


def count(client: Client) -> int:
    return sum(client.connection.get("/stats")["tasks"].values())


TRUE = {"command": ["true"]}
# What is sent beside a good command, the field that must be named, and a word of what to do.
FIELDS: list[tuple[str, dict[str, Any], str, str]] = [
    ("an unknown field", {"colour": "red"}, "colour", "not permitted"),
    ("a misspelt resource's unit", {"resources": {"memory": "4 gigs"}}, "resources.memory", "4 gigs"),
    ("a unit of another kind", {"resources": {"cpu": "2G"}}, "resources.cpu", "2G"),
    ("negative cores", {"resources": {"cpu": -1}}, "resources.cpu", "-1"),
    ("negative memory", {"resources": {"memory": "-5G"}}, "resources.memory", "-5G"),
    ("an absurd amount", {"resources": {"memory": 10**30}}, "resources.memory", "10000000"),
    ("an amount of many digits", {"resources": {"cpu": "9" * 400}}, "resources.cpu", "999"),
    ("not a number", {"resources": {"cpu": "NaN"}}, "resources.cpu", "nan"),
    ("more than any node has", {"resources": {"cpu": 999}}, "resources.cpu", "999"),
    ("a kind that no node has", {"resources": {"tpu": 1}}, "resources.tpu", "tpu"),
    ("a bad name of a resource", {"resources": {"GPU!": 1}}, "resources", "GPU!"),
    ("a dependency on nothing", {"after": ["afterok:999999"]}, "after", "999999"),
    ("a dependency that is no id", {"after": ["afterok:x"]}, "after.0", "afterok:ID"),
    ("a dependency of unknown kind", {"after": ["whenever:1"]}, "after.0", "afterany:ID"),
    ("a duration without sense", {"time_limit": "soon"}, "time_limit", "1h30m"),
    ("no time at all", {"time_limit": 0}, "time_limit", "longer than nothing"),
    ("a deadline in the past", {"deadline": 1}, "deadline", "to come"),
    ("an instant without an offset", {"begin": "2030-01-01T00:00:00"}, "begin", "offset"),
    ("an empty array", {"array": ""}, "array", "array"),
    ("an array backwards", {"array": "9-1"}, "array", "9-1"),
    ("a huge array", {"array": f"0-{2**40}"}, "array", "1,000,000"),
    ("a huge index", {"array": f"{2**40}"}, "array", "2**31"),
    ("entries without an array", {"entries": "0" * 64}, "entries", "array"),
    ("a priority of another world", {"priority": "urgent"}, "priority", "critical"),
    ("a balancer that is not there", {"balancer": "fair"}, "balancer", "bin_pack"),
    ("an unknown policy", {"on_lost": "cry"}, "on_lost", "rerun"),
    ("a retry of nothing", {"retry": {"max_attempts": 0}}, "retry.max_attempts", "greater"),
    ("a class of failures that is not", {"retry": {"retryable_errors": ["bad luck"]}}, "retry.retryable_errors", "exit:N"),
    ("an escape in a name", {"name": "evil\x1b[2J"}, "name", "control"),
    ("a turned name", {"name": "a\u202eb"}, "name", "control"),
    ("a line in a name", {"name": "a\nb"}, "name", "control"),
    ("an empty name", {"name": ""}, "name", "1 to 200"),
    ("a long name", {"name": "n" * 201}, "name", "1 to 200"),
    ("a queue with an escape", {"queue": "q\x1b]0;x\x07"}, "queue", "control"),
    ("NUL in an argument", {"command": ["echo", "a\x00b"]}, "command.1", "NUL"),
    ("NUL in a shell's text", {"command": "echo \x00"}, "command", "NUL"),
    ("NUL in the environment", {"env": {"X": "\x00"}}, "env.X", "NUL"),
    ("a name that no variable has", {"env": {"A B": "x"}}, "env", "A B"),
    ("NUL in a path", {"cwd": "/tmp/\x00"}, "cwd", "NUL"),
    ("an empty path", {"stdout": ""}, "stdout", "path"),
    ("no command", {"command": []}, "command", "script"),
    ("an empty text", {"command": ""}, "command", "script"),
    ("a command of numbers", {"command": [1, 2]}, "command", "string"),
    ("two kinds of work", {"function": {"code": "0" * 64, "python": "3.11"}}, "function", "one kind"),
    ("a script that is no digest", {"command": None, "script": "job.sh"}, "script", "/blobs"),
    ("a label without sense", {"constraints": ["a b c"]}, "constraints.0", "label=value"),
    ("a mount without an image", {"mounts": ["/a:/b"]}, "image", "image"),
    ("a project with an escape", {"project": "\x1b[31m"}, "project", "control"),
]  # fmt: skip


@pytest.mark.parametrize(("sent", "field", "words"), [case[1:] for case in FIELDS], ids=[case[0] for case in FIELDS])
def test_a_bad_field_is_named_alone_and_in_a_batch_that_goes_on(
    up: Home, client: Client, sent: dict[str, Any], field: str, words: str
) -> None:
    before = count(client)
    answer = post(up, "/tasks", json=TRUE | sent)
    told = answer.json()
    assert answer.status_code == 422, told
    assert answer.headers["content-type"] == "application/problem+json"
    assert told["errors"][0]["path"].startswith(field)
    assert words in told["detail"] + told.get("hint", ""), told
    assert told["detail"].replace("\n", "").isprintable()
    good, bad, also = client.submit_many([TRUE, TRUE | sent, TRUE])
    assert "id" in good and "id" in also
    assert field in str(bad["problem"]["errors"][0]["path"] or bad["problem"]["detail"]), bad
    assert count(client) == before + 2, "nothing half done"


BODIES: list[tuple[str, bytes, int, str]] = [
    ("nothing", b"", 422, "command"),
    ("not JSON", b"{command: true}", 400, "JSON"),
    ("cut off", b'{"command": ["tr', 400, "JSON"),
    ("not UTF-8", b'{"command": ["\xff\xfe"]}', 400, "UTF-8"),
    ("a list", b"[]", 422, "object"),
    ("deeply nested", b"[" * 100_000, 400, "JSON"),
    ("half of a pair", b'{"command": ["\\ud800"]}', 400, "JSON"),
    ("a huge command", b'{"command": ["' + b"x" * 900_000 + b'"]}', 413, "/blobs"),
    ("larger than any body", b'{"command": ["' + b"x" * 2_000_000 + b'"]}', 413, "large"),
]


@pytest.mark.parametrize(("body", "status", "words"), [case[1:] for case in BODIES], ids=[case[0] for case in BODIES])
def test_a_bad_body_is_told(up: Home, client: Client, body: bytes, status: int, words: str) -> None:
    before = count(client)
    answer = post(up, "/tasks", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == status, answer.text
    assert words in answer.json()["detail"] + answer.json().get("hint", "")
    assert count(client) == before


def test_the_same_key_with_another_body_is_refused(up: Home, client: Client) -> None:
    key = {"Idempotency-Key": "once"}
    first = post(up, "/tasks", json=TRUE, headers=key)
    before = count(client)
    again = post(up, "/tasks", json=TRUE, headers=key)
    assert (again.status_code, again.json()["id"]) == (200, first.json()["id"])
    other = post(up, "/tasks", json={"command": ["false"]}, headers=key)
    assert other.status_code == 409
    assert "key" in other.json()["detail"].lower()
    assert count(client) == before
    told = up.jarvis("submit", "--idempotency-key", "twice", "--", "true")
    assert told.returncode == 0
    assert "key" in up.jarvis("submit", "--idempotency-key", "twice", "--", "false", code=5).stderr.lower()


def test_a_request_that_no_node_can_meet_now_waits_and_says_why(up: Home) -> None:
    """The node has the label's kind of machine no more than the next one: labels may come, so it waits."""
    ident = up.jarvis("submit", "-q", "-C", "rack=7", "--", "true").stdout.strip()
    told = wait_for(lambda: (text := up.jarvis("why", ident).stdout) and "rack" in text and text, "the reason")
    assert "rack=7" in told
    up.jarvis("cancel", ident)


def test_output_that_is_no_text_comes_back_as_it_is(up: Home, client: Client) -> None:
    raw = b"\xff\xfe\x00\x1b[31m\xc3("
    task = client.submit(command=["printf", r"\377\376\000\033[31m\303("])
    assert task.wait(60)["state"] == "succeeded"
    assert task.logs() == raw
    shown = subprocess.run(
        [sys.executable, "-m", "jarvis.cli", "logs", str(task.id)],
        env=up.env,
        capture_output=True,
        timeout=60,
        check=True,
    )
    assert shown.stdout == raw


def test_nothing_that_others_name_reaches_a_terminal_raw(up: Home, client: Client) -> None:
    """What cannot be refused, because the file system or a program says it, is shown escaped."""
    task = client.submit(command=["/no/such/\x1b[2Jprogram"])
    assert task.wait(60)["state"] == "failed"
    for args in (["show", str(task.id)], ["ls", "--all"], ["why", str(task.id)], ["events", "--limit", "50"]):
        done = up.jarvis(*args, code=None)
        assert "\x1b" not in done.stdout + done.stderr, args


LINES: list[tuple[str, list[str], int, list[str]]] = [
    ("a missing program", ["run", "--", "/no/such/program"], 127, ["/no/such/program"]),
    ("a directory as program", ["run", "--", "/tmp"], 126, ["/tmp"]),
    ("a missing directory", ["run", "-D", "/no/such/place", "--", "true"], 125, ["/no/such/place"]),
    ("a file as directory", ["run", "-D", "/etc/passwd", "--", "true"], 125, ["/etc/passwd"]),
    ("a missing spec file", ["submit", "/no/such/tasks.yaml"], 2, ["/no/such/tasks.yaml"]),
    ("a missing list of entries", ["submit", "--each-line", "/no/such/lines", "--", "true"], 2, ["/no/such/lines"]),
    ("a flag that is not there", ["submit", "--cpsu", "2", "--", "true"], 2, ["--cpsu", "--cpus"]),
    ("memory without sense", ["submit", "--mem", "lots", "--", "true"], 1, ["memory", "lots"]),
    ("a time without sense", ["submit", "-t", "soon", "--", "true"], 2, ["time", "soon", "2h30m"]),
    ("cores without sense", ["submit", "-c", "many", "--", "true"], 2, ["--cpus", "many"]),
    ("an output format that is not there", ["ls", "-o", "xml"], 2, ["xml", "json"]),
    ("a signal that is not there", ["signal", "-s", "NOPE", "1"], 1, ["NOPE"]),
    ("a node that is not there", ["node", "show", "nowhere"], 3, ["nowhere"]),
    ("a backup into nowhere", ["backup", "/no/such/place/b.db"], 1, ["/no/such/place"]),
    ("a restore from nowhere", ["restore", "/no/such/b.db"], 2, ["/no/such/b.db"]),
    ("an id beyond all", ["show", "9" * 30], 3, ["999"]),
]


@pytest.mark.parametrize(("args", "code", "words"), [case[1:] for case in LINES], ids=[case[0] for case in LINES])
def test_a_bad_line_is_told_in_one_clear_message(up: Home, args: list[str], code: int, words: list[str]) -> None:
    done = up.jarvis(*args, code=code)
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr, done.stderr


FILES: list[tuple[str, str, str, list[str]]] = [
    ("a field of another task system", "tasks.yaml", "- {command: [echo], colour: red}\n", ["colour"]),
    ("the second of two", "tasks.yaml", "- {command: [echo], n: 1}\n- {command: []}\n", ["entry 2", "command"]),
    ("not YAML", "tasks.yaml", "- {command: [echo\n", ["tasks.yaml"]),
    ("not JSON", "tasks.json", '[{"command": ', ["tasks.json"]),
    ("neither task nor list", "tasks.yaml", "just words\n", ["tasks.yaml"]),
    ("an object of Python", "tasks.yaml", "!!python/object/apply:os.system [id]\n", ["tasks.yaml"]),
    ("a flag in a script", "job.sh", "#!/bin/sh\n#JARVIS --cpsu 2\ntrue\n", ["--cpsu", "job.sh"]),
]


@pytest.mark.parametrize(("name", "text", "words"), [case[1:] for case in FILES], ids=[case[0] for case in FILES])
def test_a_bad_file_is_named(up: Home, client: Client, tmp_path: Path, name: str, text: str, words: list[str]) -> None:
    before = count(client)
    (tmp_path / name).write_text(text)
    done = up.jarvis("submit", str(tmp_path / name), code=None)
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr, done.stderr
    assert count(client) == before


def test_a_file_that_may_not_be_run(up: Home, tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.write_text("#!/bin/sh\ntrue\n")
    assert str(plain) in up.jarvis("run", "--", str(plain), code=126).stderr
    broken = tmp_path / "broken"
    broken.write_text("#!/no/such/shell\n")
    broken.chmod(0o755)
    assert "Traceback" not in up.jarvis("run", "--", str(broken), code=127).stderr


def test_a_script_of_bytes(up: Home, tmp_path: Path) -> None:
    script = tmp_path / "job"
    script.write_bytes(b"#!/bin/sh\n# \xff\xfe\necho ran\n")
    ident = up.jarvis("submit", "-q", "--wait", str(script)).stdout.strip()
    assert up.jarvis("logs", ident).stdout == "ran\n"


SETTINGS: list[tuple[str, str, list[str]]] = [
    ("a typo in a key", "server: {prot: 1}\n", ["server.prot", "did you mean server.port"]),
    ("a typo in a section", "sevrer: {port: 1}\n", ["sevrer", "server"]),
    ("a port beyond all", "server: {port: 99999}\n", ["server.port"]),
    ("a word for a number", "server: {port: many}\n", ["server.port"]),
    ("not YAML", "server: {port\n", ["c.yaml"]),
    ("a list", "- server\n", ["c.yaml"]),
]


@pytest.mark.parametrize(("text", "words"), [case[1:] for case in SETTINGS], ids=[case[0] for case in SETTINGS])
@pytest.mark.parametrize("command", [["config", "show"], ["up"]])
def test_bad_settings_are_named(fresh: Home, tmp_path: Path, command: list[str], text: str, words: list[str]) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(text)
    fresh.env["JARVIS_CONFIG"] = str(file)
    done = fresh.jarvis(*command, code=1)
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr, done.stderr
    assert not fresh.directory.exists() or not any(fresh.directory.glob("*.db"))
    fresh.env["JARVIS_CONFIG"] = str(tmp_path / "none.yaml")


def test_a_bad_setting_in_the_environment_is_named(fresh: Home) -> None:
    fresh.env["JARVIS_SERVER__PORT"] = "many"
    assert "server.port" in fresh.jarvis("config", "show", code=1).stderr
    del fresh.env["JARVIS_SERVER__PORT"]


def test_a_port_of_another_program_is_named(fresh: Home) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = str(other.getsockname()[1])
        done = fresh.jarvis("up", "--port", port, code=1)
        assert port in done.stderr
        assert "Traceback" not in done.stderr
    assert not fresh.processes()


def test_a_state_directory_that_cannot_be_is_named(fresh: Home, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    fresh.env["JARVIS_HOME"] = str(file / "below")
    done = fresh.jarvis("up", code=1)
    fresh.env["JARVIS_HOME"] = str(fresh.directory)
    assert str(file) in done.stderr
    assert "Traceback" not in done.stderr


def test_a_server_that_is_not_there_or_not_ours(up: Home, fresh: Home) -> None:
    fresh.env |= {"JARVIS_URL": "http://127.0.0.1:1", "JARVIS_TOKEN": "x"}
    assert "127.0.0.1:1" in fresh.jarvis("ls", code=69).stderr
    fresh.env |= {"JARVIS_URL": up.server.url, "JARVIS_TOKEN": "wrong"}
    assert "token" in fresh.jarvis("ls", code=4).stderr
    for name in ("JARVIS_URL", "JARVIS_TOKEN"):
        del fresh.env[name]


def test_a_shell_that_was_told_another_address_is_warned(up: Home) -> None:
    up.env["JARVIS_URL"] = "http://127.0.0.1:1"
    told = up.jarvis("up")
    assert up.server.url in told.stdout
    assert "http://127.0.0.1:1," in told.stderr and "jarvis up --env" in told.stderr
    up.env["JARVIS_URL"] = up.server.url
    assert up.jarvis("up").stderr == ""
    del up.env["JARVIS_URL"]


def test_the_library_names_the_field_too(client: Client) -> None:
    with pytest.raises(ClientError, match=r"resources\.memory"):
        client.submit(command=["true"], resources={"memory": "much"})
    with pytest.raises(ClientError, match="999999"):
        client.submit(command=["true"], after=["999999"])


def test_after_all_of_this_the_cluster_is_well(up: Home, client: Client) -> None:
    assert client.connection.get("/health")["status"] == "ok"
    assert client.submit(command=["true"]).check(60)
    assert os.fsencode("Traceback") not in (up.directory / "server.log").read_bytes()
