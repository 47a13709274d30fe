"""What ``POST /schedules`` refuses, by the field that is wrong, and what it takes once."""

from typing import Any

import pytest
from tests.e2e.api.harness import Running

TASK = {"command": ["true"]}
AT_ONCE = {"name": "round", "steps": [{"id": "a", "sleep": 0}]}


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({}, "rule"),
        ({"every": "1m", "on_webhook": {}}, "rule"),
        ({"on_webhook": {}, "on_workflow": {"name": "a"}}, "on_webhook"),
        ({"on_webhook": {}, "on_file": {"path": "/in/*"}}, "on_file"),
        ({"on_workflow": {"name": "a"}, "catch_up": "all"}, "catch_up"),
        ({"on_workflow": {"name": "a"}, "zone": "UTC"}, "zone"),
        ({"on_workflow": {"name": ""}}, "on_workflow.name"),
        ({"on_workflow": {"name": "a", "state": "running"}}, "on_workflow.state"),
        ({"on_workflow": {"name": "a", "project": "q"}}, "on_workflow.project"),
        ({"on_workflow": {"name": "round"}, "task": None, "workflow": AT_ONCE}, "on_workflow"),
        ({"on_webhook": {"secret": "short"}}, "on_webhook.secret"),
        ({"on_file": {"path": "in/*.csv"}}, "on_file.path"),
        ({"on_file": {"path": "/in/*/x.csv"}}, "on_file.path"),
        ({"on_file": {"path": "/in/*.csv"}}, "on_file.path"),
        ({"on_file": {"path": "/in/*.csv", "node": "n1"}}, "on_file.node"),
        ({"on_webhook": {}, "task": None, "workflow": {**AT_ONCE, "params": {"event": 1}}}, "params.event"),
    ],
)
async def test_what_is_wrong_is_named(server: Running, more: dict[str, Any], field: str) -> None:
    client = server.client("alice")
    answer = await client.post("/schedules", json={"name": "bad", "task": TASK} | more)
    assert answer.status_code == 422, answer.text
    assert [error["path"] for error in answer.json()["errors"]] == [field]
    assert (await client.get("/schedules")).json()["items"] == []


async def test_a_key_makes_one_schedule_and_tells_its_secret_again(server: Running) -> None:
    client, headers = server.client("alice"), {"Idempotency-Key": "k"}
    body = {"name": "hook", "on_webhook": {}, "task": TASK}
    first = await client.post("/schedules", json=body, headers=headers)
    again = await client.post("/schedules", json=body, headers=headers)
    assert (first.status_code, again.status_code, again.headers["idempotent-replayed"]) == (201, 200, "true")
    assert first.json() == again.json()
    secret = first.json()["on_webhook"]["secret"]
    assert len(secret) >= 32
    assert secret not in (await client.get("/schedules")).text + (await client.get("/schedules/hook")).text
    assert (await client.post("/schedules", json=body | {"name": "x"}, headers=headers)).status_code == 409
    assert (await client.post("/schedules", json=body, headers={"Idempotency-Key": "l"})).status_code == 409
    given = {"name": "given", "on_webhook": {"secret": "s" * 16}, "task": TASK}
    assert (await client.post("/schedules", json=given)).json()["on_webhook"]["secret"] is None
    backfill = {"begin": "2026-01-01T00:00:00Z", "end": "2026-01-03T00:00:00Z"}
    assert (await client.post("/schedules/hook/backfill", json=backfill)).status_code == 409
