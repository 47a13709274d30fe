"""Long lists go in several requests under way at a time: what is acknowledged stays, in its place, and is made once."""

from typing import Any

import pytest
from tests.e2e.cluster.harness import Home, wait_for

from jarvis.sdk.client import Client

pytestmark = pytest.mark.timeout(120)
WRONG = {"command": ["true"], "time_limit": "soon"}


def counts(client: Client) -> dict[str, int]:
    return dict(client.connection.get("/stats")["tasks"])


def listed(client: Client, ids: list[int]) -> list[Any]:
    return [client.show(ident)["spec"]["command"] for ident in ids]


def test_what_was_acknowledged_right_before_a_kill_runs_once(fresh: Home) -> None:
    fresh.jarvis("up", "--cpus", "8")
    specs: list[dict[str, Any]] = [{"command": ["echo", str(n)]} for n in range(240)]
    specs[70] = WRONG
    with fresh.client() as client:
        told = client.submit_many(iter(specs), batch=50, at_once=4, key="once")
        fresh.kill_server()
    assert [n for n, answer in enumerate(told) if "id" not in answer] == [70]
    ids = [answer["id"] for answer in told if "id" in answer]
    assert len(set(ids)) == 239
    assert all(ids[at : at + 49] == sorted(ids[at : at + 49]) for at in (0, 99, 149, 199)), "they rise within a request"
    fresh.jarvis("up", "--cpus", "8")
    with fresh.client() as client:
        again = client.submit_many(specs, batch=50, at_once=1, key="once")
        assert [answer.get("id") for answer in again] == [answer.get("id") for answer in told]
        shown = [specs[n]["command"] for n in (0, 49, 50, 71, 239)]
        assert listed(client, [told[n]["id"] for n in (0, 49, 50, 71, 239)]) == shown
        wait_for(lambda: counts(client).get("succeeded") == 239, "all of them run")
        assert sum(counts(client).values()) == 239
        other = client.submit_many([*specs[:50], WRONG, *specs[:49]], batch=50, key="once")
        assert [answer.get("id") for answer in other[:50]] == [answer["id"] for answer in told[:50]]
        assert {answer["problem"]["code"] for answer in other[51:]} == {"idempotency_conflict"}
        for batch in (0, 10_001):
            with pytest.raises(ValueError, match="batch is 1 to 10,000"):
                client.submit_many(specs, batch=batch)
        assert sum(counts(client).values()) == 239
