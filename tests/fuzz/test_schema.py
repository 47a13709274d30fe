"""The whole API against its own OpenAPI document: good and bad requests, generated, to a real cluster full of things."""

import os
import shlex
from collections import Counter, defaultdict
from collections.abc import Iterator
from copy import deepcopy
from json import dumps, loads
from pathlib import Path
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import FailureGroup
from schemathesis.core.parameters import ParameterLocation
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from tests.e2e.cluster.harness import Home, home, wait_for

from jarvis.api.webhooks import signature
from jarvis.sdk.client import Client
from jarvis.sdk.functions import Executor

pytestmark = pytest.mark.timeout(3600)
SOAK = bool(os.environ.get("JARVIS_SOAK"))
REQUESTS = 21_000 if SOAK else 2_000
CHECKS = [
    not_a_server_error, status_code_conformance, content_type_conformance, response_headers_conformance,
    response_schema_conformance,
]  # fmt: skip
LEFT_OUT = {"/api/v1/events/stream": "server-sent events have no end; its cursor is that of /events"}
"""Sockets are not in the document, and no route stops the server."""
REACHED = 0.9
VALID: dict[str, Any] = {
    "/workflows": {"steps": [{"id": "only", "command": "true"}]},
    "/schedules": {"name": "made-NUMBER", "cron": "0 3 * * *", "task": {"command": ["true"]}},
    "/schedules/{ident}/backfill": {"begin": "2026-01-01T00:00:00Z", "end": "2026-01-03T00:00:00Z"},
    "/maintenance": {"nodes": ["NODE"], "begin": "2040-01-01T00:00:00Z", "duration": 60},
}
"""What hardly ever comes of chance."""
SECRET = "of sixteen letters or more"


class World:
    """A cluster with one of everything, and the names of what is in it."""

    def __init__(self, made: Home, client: Client, folder: Path) -> None:
        self.made, self.client, self.folder = made, client, folder
        self.backups = self.made_valid = 0
        self.digest = client.put_blob(b"a blob")
        with Executor(client=client) as pool:
            future = pool.submit(pow, 2, 8)
            assert future.result(60) == 256
        self.running = self._many(40, command=["sleep", "1000"], resources={"cpu": 0})
        self.held = self._many(20, command=["true"], hold=True)
        self.waiting = self._many(10, command=["true"], begin="+1h")
        self.ended = [*self._many(10, command=["echo", "said"]), *self._many(5, command=["false"]), str(future.task_id)]
        self.result = str(future.task_id)
        array = str(client.submit(command=["true"], array="0-9").id)
        for ident in [*map(str, self.ended), array]:
            client.wait(ident, 60)
        self.elements = [f"{array}_{i}" for i in range(10)]
        self.suspended = self.running[:10]
        for ident in self.running:
            wait_for(lambda i=ident: client.show(i)["state"] == "running", f"{ident} runs")  # type: ignore[misc]
        for ident in self.suspended:
            client.act(ident, "suspend")
        for ident in self.suspended:
            wait_for(lambda i=ident: client.show(i)["state"] == "suspended", f"{ident} is suspended")  # type: ignore[misc]
        ask = {"steps": [{"id": "ask", "approval": True}, {"id": "after", "command": "true", "depends_on": ["ask"]}]}
        self.live_workflows = [str(client.submit_workflow(ask).id) for _ in range(40)]
        bad = client.submit_workflow({"steps": [{"id": "bad", "command": "false"}]})
        assert bad.wait(60)["state"] == "failed"
        self.ended_workflows = [str(bad.id)]
        self.schedules, self.removable = ["s0", "s1", "s2"], [f"r{number}" for number in range(12)]
        for name in self.schedules + self.removable:
            client.connection.post("/schedules", {"name": name, "every": "1d", "task": {"command": ["true"]}})
        hook = {"name": "hook", "on_webhook": {"secret": SECRET}, "task": {"command": ["true"]}}
        client.connection.post("/schedules", hook)
        self.deliveries = 0
        self.quotas = [f"q{number}" for number in range(12)]
        for project in self.quotas:
            client.connection.request("PUT", f"/quotas/{project}", json_body={"tasks": 1_000_000})
        self.node = client.connection.get("/nodes")["items"][0]
        far = {"nodes": [self.node["name"]], "begin": "2040-01-01T00:00:00Z", "duration": "1h"}
        self.bookings = [str(client.connection.post("/maintenance", far)["id"]) for _ in range(12)]
        self.all = [*self.running, *self.held, *self.waiting, *self.ended, *self.elements, array]

    def _many(self, count: int, **spec: Any) -> list[str]:
        return [str(answer["id"]) for answer in self.client.submit_many([spec] * count)]

    def fitting(self, path: str) -> list[str]:
        """Ids of what the operation is for; all that exists where any will do."""
        if path.startswith("/maintenance"):
            return self.bookings
        last = path.rpartition("/")[2]
        kinds = {
            "release": self.held, "resume": self.suspended, "suspend": self.running[10:], "signal": self.running[10:],
            "retry": self.ended, "result": [self.result], "hold": self.waiting, "requeue": self.running[10:],
        }  # fmt: skip
        return kinds.get(last, self.all)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with home() as made:
        made.jarvis("up", "--cpus", "2")
        with made.client() as client:
            yield World(made, client, tmp_path_factory.mktemp("fuzz"))


FRAMING = frozenset({"content-length", "transfer-encoding", "connection", "upgrade", "host", "expect"})


def tame(case: Any, world: World, choose: Any) -> None:
    """What was generated reaches what exists, harms nothing outside the cluster and answers soon; the rest stays as it is.

    Ids: two of three are of something that exists. Commands do nothing and keep their text. Files are below one folder.
    What frames a message is HTTP's own and not the API's.
    Followed logs have no end, and long polls wait as long as they say: both are asked for a moment.
    """
    path = case.operation.path.removeprefix("/api/v1")
    _tame_names(case.path_parameters or {}, path, world, choose)
    for name in [name for name in case.headers or {} if name.lower() in FRAMING]:
        del case.headers[name]
    _tame_query(case, path, world, choose)
    if case.method == "POST" and path in VALID and choose(2):
        world.made_valid += 1
        case.body = loads(dumps(VALID[path]).replace("NUMBER", str(world.made_valid)))
    body = case.body
    if path == "/maintenance" and isinstance(body, dict) and body.get("nodes") == ["NODE"]:
        body["nodes"] = [world.node["name"]]
    if path == "/backups" and isinstance(body, dict) and isinstance(body.get("path"), str):
        world.backups += 1
        body["path"] = str(world.folder / f"{world.backups}.db") if choose(4) else "no/absolute" + body["path"]
    if path.endswith("/decide") and isinstance(body, dict) and choose(2):
        body["step"] = "ask"
    if path.endswith("/hook") and choose(2):
        _sign(case, world)
    for task in [
        body,
        *(body.get("tasks") or [] if isinstance(body, dict) and isinstance(body.get("tasks"), list) else []),
        *(body.get("steps") or [] if isinstance(body, dict) and isinstance(body.get("steps"), list) else []),
    ]:
        if isinstance(task, dict):
            _tame_task(task, world, choose)


def _tame_names(names: dict[str, Any], path: str, world: World, choose: Any) -> None:
    if "ident" in names and choose(3):
        names["ident"] = _known(path, world, choose)
    if "project" in names and choose(3):
        names["project"] = world.quotas[choose(len(world.quotas))]
    if "digest" in names and choose(3):
        names["digest"] = world.digest


def _tame_query(case: Any, path: str, world: World, choose: Any) -> None:
    query = case.query or {}
    if "follow" in query:
        query["follow"] = "false"
    if path == "/recommend" and choose(3):
        case.query = {"task": world.all[choose(len(world.all))]} if choose(2) else {"name": "made"}
    if "wait" in query:
        query["wait"] = ("0", "0.05s", "later")[choose(3)]


def _sign(case: Any, world: World) -> None:
    world.deliveries += 1
    case.body = dumps(case.body).encode() if isinstance(case.body, dict) else b"{}"
    case.headers["Idempotency-Key"] = str(world.deliveries)
    case.headers["X-Hub-Signature-256"] = signature(SECRET, case.body)


def _known(path: str, world: World, choose: Any) -> str:
    if path.startswith("/nodes"):
        return str(world.node["id"] if choose(2) else world.node["name"])
    if path.startswith("/workflows"):
        last = path.rpartition("/")[2]
        ends = world.live_workflows[20:] if last in ("cancel", "decide") else world.live_workflows[:20]
        found = world.ended_workflows if last == "retry" else ends
    elif path.startswith("/schedules"):
        found = world.removable if path.endswith("}") else ["hook"] if path.endswith("/hook") else world.schedules
    else:
        found = world.fitting(path)
    return found[choose(len(found))]


def _tame_task(task: dict[str, Any], world: World, choose: Any) -> None:
    command = task.get("command")
    if isinstance(command, str) and command:
        task["command"] = f"true {shlex.quote(command)}"
    elif isinstance(command, list) and command:
        task["command"] = ["true", *command]
    for field in ("stdout", "stderr", "stdin"):
        if isinstance(task.get(field), str):
            task[field] = f"{world.folder}/{task[field].replace('/', '_')}"
    if task.get("image") is not None:
        task["pull"] = "never"
    if task.get("array") is not None:
        task["hold"] = True
    if isinstance(task.get("project"), str) and choose(2):
        task.pop("project")


def check(case: Any, response: Any, world: World) -> None:
    try:
        case.validate_response(response, checks=CHECKS)
    except FailureGroup as failures:
        failures.add_note(world.made.logs())
        raise


def bad_body(case: Any) -> bool:
    """Whether its body is against the document; a batch takes such bodies and answers for each member by
    itself, and a validation answers what is wrong with them."""
    part = case.meta.components.get(ParameterLocation.BODY)
    return (
        part is not None
        and part.mode is GenerationMode.NEGATIVE
        and not case.operation.path.endswith(("/batch", "/validate"))
    )


def test_the_api_keeps_to_its_document(world: World) -> None:
    server = world.made.server
    headers = {"Authorization": f"Bearer {server.token}"}
    schema = schemathesis.openapi.from_url(f"{server.url}/openapi.json", headers=headers)
    operations: list[Any] = [found.ok() for found in schema.get_all_operations() if isinstance(found, Ok)]
    fuzzed = [operation for operation in operations if operation.path not in LEFT_OUT]
    statuses: dict[str, Counter[int]] = defaultdict(Counter)
    for mode, share in ((GenerationMode.POSITIVE, 3), (GenerationMode.NEGATIVE, 1)):
        for operation in fuzzed:
            examples = max(REQUESTS * share // (4 * len(fuzzed)), 1)
            fuzz(operation, mode, examples, world, headers, statuses)
    reached = [label for label, seen in statuses.items() if any(200 <= status < 300 for status in seen)]
    total = sum(sum(seen.values()) for seen in statuses.values())
    told = dict(sum(statuses.values(), Counter()))
    print(f"requests={total} operations={len(fuzzed)} reached={len(reached)} {told}")  # noqa: T201 - the figures are the point
    missed = {label: dict(seen) for label, seen in statuses.items() if label not in reached}
    assert len(reached) >= REACHED * len(operations), missed
    assert total >= 0.9 * REQUESTS
    assert world.client.connection.get("/health")["status"] == "ok"


def test_links_lead_from_a_submission_to_what_was_submitted(world: World) -> None:
    server = world.made.server
    headers = {"Authorization": f"Bearer {server.token}"}
    document = requests.get(f"{server.url}/openapi.json", headers=headers, timeout=60).json()
    doors = {o["operationId"]: (m, p) for p, found in document["paths"].items() for m, o in found.items()}
    links = document["paths"]["/api/v1/tasks"]["post"]["responses"]["201"]["links"]
    assert len(links) >= 10
    for link in links.values():
        ident = world.client.submit(command=["true"], hold=True).id
        method, path = doors[link["operationId"]]
        url = server.url + path.replace("{ident}", str(ident))
        assert requests.request(method, url, headers=headers, timeout=60).status_code in (200, 202, 409), path


def fuzz(
    operation: Any, mode: GenerationMode, examples: int, world: World, headers: dict[str, str],
    statuses: dict[str, Counter[int]],
) -> None:  # fmt: skip
    session = requests.Session()
    try:
        strategy = operation.as_strategy(generation_mode=mode)
    except schemathesis.errors.InvalidSchema:
        return

    @settings(
        max_examples=examples, deadline=None, database=None, derandomize=not SOAK, suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],
    )  # fmt: skip
    @given(case=strategy, data=st.data())
    def run(case: Any, data: st.DataObject) -> None:
        given_body = deepcopy(case.body)
        tame(case, world, lambda n: data.draw(st.integers(0, n - 1)))
        response = case.call(headers=headers, session=session, timeout=60)
        statuses[operation.label][response.status_code] += 1
        check(case, response, world)
        if given_body == case.body and bad_body(case):
            assert response.status_code >= 400, f"a bad body was taken: {case.as_curl_command()}"

    run()
