"""Tasks through the door: submitting, reading, and everything that cannot be meant."""

import asyncio
import hashlib
import time
from typing import Any

import httpx2 as httpx
import msgspec
import pytest
from tests.e2e.api.harness import Running

from jarvis.api.schemas.task_in import TaskFast, TaskIn
from jarvis.api.schemas.task_rules import to_spec
from jarvis.core.changes import Changes
from jarvis.core.errors import NeverFits, OverQuota
from jarvis.core.inputs import TasksTaken
from jarvis.core.states import State
from jarvis.core.task import TaskSpec

DIGEST = hashlib.sha256(b"body").hexdigest()
GOOD: list[dict[str, Any]] = [
    {"command": ["echo", "hi"]},
    {"command": "echo $HOME", "resources": {"cpu": "500m", "memory": "512Mi", "gpu": 1, "licence": 2}},
    {"image": "python:3.13", "command": ["python"], "mounts": ["/data:/data:ro"]},
    {"function": {"code": DIGEST, "python": "3.12", "args": "aGk="}},
    {"command": ["x"], "array": "0-99:2%10", "entries": DIGEST, "priority": "high"},
    {"command": ["x"], "begin": "+10m", "deadline": "2100-01-01T00:00:00Z", "time_limit": "1h30m"},
    {
        "command": ["x"],
        "retry": {"max_attempts": 3, "backoff_strategy": "linear", "retryable_errors": ["oom", "exit:75"]},
    },
    {"command": ["x"], "constraints": ["zone=a", "gpu!=old", "ssd"], "env": {"A": "ü"}, "priority": -5},
]
BAD: list[tuple[str, int]] = [
    ("", 422),
    ("{", 400),
    ("[]", 422),
    ("null", 422),
    ('{"command": ["x"], "wat": 1}', 422),
    ('{"command": []}', 422),
    ('{"command": ["a\\u0000b"]}', 422),
    ('{"command": ["\\ud800"]}', 400),
    ('{"command": "x", "name": "a\\u001b[31m"}', 422),
    ('{"command": "x", "name": ""}', 422),
    ('{"command": "x", "priority": 1e400}', 422),
    ('{"command": "x", "priority": ' + "9" * 5000 + "}", 422),
    ('{"command": "x", "priority": true}', 422),
    ('{"command": "x", "resources": {"cpu": ' + "9" * 400 + "}}", 422),
    ('{"command": "x", "resources": {"cpu": "' + "9" * 5000 + 'm"}}', 422),
    ('{"command": "x", "resources": {"memory": "' + "9" * 400 + '"}}', 422),
    ('{"command": "x", "resources": {"cpu": NaN}}', 422),
    ('{"command": "x", "resources": {"cpu": -1}}', 422),
    ('{"command": "x", "resources": {"CPU": 1}}', 422),
    ('{"command": "x", "array": "9-0"}', 422),
    ('{"command": "x", "array": "0-99999999"}', 422),
    ('{"command": "x", "array": "' + "1" * 6000 + '"}', 422),
    ('{"command": "x", "after": ["afterok:99999999999999999999"]}', 422),
    ('{"command": "x", "after": ["afterok:7777"]}', 422),
    ('{"command": "x", "begin": "yesterday"}', 422),
    ('{"command": "x", "begin": 1e300}', 422),
    ('{"command": "x", "deadline": "2001-01-01T00:00:00Z"}', 422),
    ('{"command": "x", "time_limit": "-5s"}', 422),
    ('{"command": "x", "time_limit": 0}', 422),
    ('{"command": "x", "env": {"A=B": "1"}}', 422),
    ('{"command": "x", "env": {"A": "\\u0000"}}', 422),
    ('{"command": "x", "script": "nope"}', 422),
    ('{"command": "x", "retry": {"max_attempts": 0}}', 422),
    ('{"command": "x", "retry": {"retryable_errors": ["sunspots"]}}', 422),
    ('{"command": "x", "project": "a\\nb"}', 422),
    ('{"command": "x", "function": {"code": "' + DIGEST + '", "python": "3.12"}}', 422),
    ('{"function": {"code": "' + DIGEST + '", "python": "3.12", "args": "!"}}', 422),
    ('{"image": "", "command": ["x"]}', 422),
    ('{"command": ' + "[" * 100_000 + "]" * 100_000 + "}", 400),
]


@pytest.mark.parametrize("given", GOOD, ids=",".join)
def test_both_readers_mean_the_same(given: dict[str, Any]) -> None:
    data = msgspec.json.encode(given)
    fast = to_spec(msgspec.json.decode(data, type=TaskFast), 1e9)
    assert fast == to_spec(TaskIn.model_validate_json(data), 1e9)


def test_both_readers_have_the_same_fields() -> None:
    assert list(TaskIn.model_fields) == list(TaskFast.__struct_fields__)


@pytest.mark.parametrize("given", GOOD, ids=",".join)
async def test_good_tasks_are_taken(server: Running, given: dict[str, Any]) -> None:
    alice = server.client("alice")
    await alice.put("/blobs", content=b"body")
    made = await alice.post("/api/v1/tasks", json=given)
    assert made.status_code == 201, made.text
    shown = (await alice.get(made.headers["location"])).json()
    assert shown["state"] == "submitted"
    assert shown["owner"] == {"user": "alice", "project": "red"}
    assert shown["submitted_at"].endswith("Z")


async def test_bad_input_never_breaks_the_server(server: Running) -> None:
    alice = server.client("alice")
    for body, status in BAD:
        for path, sent in (("/tasks", body), ("/tasks/batch", f'{{"tasks": [{body}]}}')):
            answer = await alice.post(path, content=sent.encode("utf-8", "surrogatepass"))
            assert answer.status_code < 500, (path, sent[:100], answer.text)
            if path == "/tasks":
                assert answer.status_code in (status, 400 if status == 422 else status), (sent[:100], answer.text[:300])
                assert answer.json()["code"]
            elif answer.status_code == 200:
                assert "problem" in answer.json()["results"][0], sent[:100]
    for raw in (b"\xff\xfe", b'{"command": "\xff"}', b"\x00"):
        for path in ("/tasks", "/tasks/batch", "/tasks/1/cancel", "/nodes/1/drain"):
            assert 400 <= (await alice.post(path, content=raw)).status_code < 500


async def test_odd_paths_and_queries_are_refused(server: Running) -> None:
    alice = server.client("alice")
    idents = ("x", "-1", "1_", "_1", "9" * 30, "9" * 5000, "1_" + "9" * 30, "%00", "%ff", "1%0a", "٣", "1.5")
    for ident in idents:
        for path in (f"/tasks/{ident}", f"/tasks/{ident}/logs", f"/nodes/{ident}", f"/blobs/{ident}"):
            assert 400 <= (await alice.get(path)).status_code < 500, path
    queries = (
        "limit=0", "limit=x", "limit=" + "9" * 5000, "cursor=-5", "cursor=%00", "state=nope", "name=%00", "user=%00",
        "project=%ed%a0%80", "submitted_after=soon", "ended_after=1e999",
    )  # fmt: skip
    for query in queries:
        assert (await alice.get(f"/tasks?{query}")).status_code == 422 or "%ed" in query, query
    for query in ("after=x", "after=1", "after=9.9", "after=" + "9" * 40 + ".1", "limit=-1"):
        assert (await alice.get(f"/events?{query}")).status_code in (410, 422), query


async def test_too_large_a_body_is_refused(server: Running) -> None:
    alice = server.client("alice")
    assert (await alice.post("/tasks", content=b"x" * (1024 * 1024 + 1))).status_code == 413

    async def endless() -> Any:
        for _ in range(40):
            yield b" " * 65536

    assert (await alice.post("/tasks", content=endless())).status_code == 413


async def test_a_problem_names_the_field(server: Running) -> None:
    alice = server.client("alice")
    body = (await alice.post("/tasks", json={"command": ["x"], "resources": {"memory": "lots"}})).json()
    assert body["errors"][0]["path"] == "resources.memory"
    assert body["hint"]
    body = (await alice.post("/tasks", json={"command": ["x"], "retry": {"max_attempts": "many"}})).json()
    assert body["errors"][0]["path"] == "retry.max_attempts"
    batch = (
        await alice.post("/tasks/batch", json={"tasks": [{"command": ["x"], "retry": {"max_attempts": "many"}}]})
    ).json()
    assert batch["results"][0]["problem"]["errors"][0]["path"] == "retry.max_attempts"


async def test_what_never_fits_is_refused(server: Running) -> None:
    server.services.node_fits = lambda spec: NeverFits("gpu", "8", "4") if spec.resources.get("gpu") else None
    answer = await server.client("alice").post("/tasks", json={"command": ["x"], "resources": {"gpu": 8}})
    assert (answer.status_code, answer.json()["code"]) == (422, "never_fits")


async def test_before_it_refuses_a_standby_looks_who_has_joined(server: Running) -> None:
    looks = []

    async def look() -> None:
        looks.append(1)
        server.services.node_fits = lambda spec: NeverFits("gpu", "8", "4") if spec.resources["gpu"] == 8000 else None

    server.services.node_fits = lambda spec: NeverFits("gpu", "8", "2")
    server.services.look_for_nodes = look
    members = [{"command": ["x"], "resources": {"gpu": amount}} for amount in (4, 8, 8)]
    answer = (await server.client("alice").post("/tasks/batch", json={"tasks": members})).json()
    assert [member.get("problem", {}).get("code") for member in answer["results"]] == [None, "never_fits", "never_fits"]
    assert len(looks) == 1


async def test_an_idempotency_key_makes_one_task(server: Running) -> None:
    alice = server.client("alice")
    key = {"Idempotency-Key": "k1"}
    first = await alice.post("/tasks", json={"command": ["x"]}, headers=key)
    again = await alice.post("/tasks", json={"command": ["x"]}, headers=key)
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json() == again.json()
    other = await alice.post("/tasks", json={"command": ["y"]}, headers=key)
    assert (other.status_code, other.json()["code"]) == (409, "idempotency_conflict")
    batch = {"tasks": [{"command": ["x"]}, {"wat": 1}, {"command": ["z"], "after": [str(first.json()["id"])]}]}
    one = (await alice.post("/tasks/batch", json=batch, headers=key)).json()
    two = (await alice.post("/tasks/batch", json=batch, headers=key)).json()
    assert [r.get("id") for r in one["results"]] == [r.get("id") for r in two["results"]]
    assert one["accepted"] == 2
    assert (
        await alice.post("/tasks", json={"command": ["x"]}, headers={"Idempotency-Key": "x" * 300})
    ).status_code == 422


async def test_an_atomic_batch_is_all_or_nothing(server: Running) -> None:
    alice = server.client("alice")
    answer = await alice.post("/tasks/batch", json={"tasks": [{"command": ["x"]}, {"command": []}], "atomic": True})
    assert answer.status_code == 422
    assert (await alice.get("/tasks")).json()["items"] == []
    good = await alice.post("/tasks/batch", json={"tasks": [{"command": ["x"]}] * 3, "atomic": True})
    assert [r["id"] for r in good.json()["results"]] == [t["id"] for t in (await alice.get("/tasks")).json()["items"]][
        ::-1
    ]


async def test_a_batch_reads_members_as_they_are_read_alone(server: Running) -> None:
    """Whatever stood before them: those that resemble the one before are read by a shorter way."""
    alice = server.client("alice")
    members: list[dict[str, Any]] = [
        {"command": ["/bin/echo", "1"], "resources": {"memory": 1024}, "time_limit": 60},
        {"command": ["printf", "2"], "resources": {"memory": 1024}, "time_limit": 60},
        {"command": ["printf", "2"], "resources": {"memory": 1024.0}, "time_limit": 60},
        {"command": "sleep 1", "resources": {"memory": 1024}, "time_limit": 60.0},
        {"command": ["a\0b"], "resources": {"memory": 1024}, "time_limit": 60},
        {"command": [], "resources": {"memory": 1024}, "time_limit": 60},
        {"command": ["x"], "resources": {"memory": 1024}, "time_limit": 60, "name": "other"},
        {"command": ["y"], "resources": {"memory": 1024}, "time_limit": 60, "name": "other", "output_limit": 7},
        {"command": ["z"], "resources": {"memory": 1024}, "time_limit": 60, "name": "other", "output_limit": 7.0},
    ]
    together = (await alice.post("/tasks/batch", json={"tasks": members})).json()["results"]
    for member, told in zip(members, together, strict=True):
        alone = await alice.post("/tasks", json=member)
        assert ("id" in told) == (alone.status_code == 201), member
        if "id" in told:
            one, other = await server.store.task_get_many([told["id"], alone.json()["id"]])
            assert one.spec == other.spec
        else:
            assert told["problem"]["code"] == alone.json()["code"]


async def test_a_batch_has_no_more_tasks_than_its_owner_may_have(server: Running) -> None:
    """However much alike they are."""

    def allows(project: str, user: str, spec: TaskSpec, more: int) -> OverQuota | None:
        return OverQuota("QuotaTasks", f"user {user} may have 3") if more >= 3 else None

    server.services.quota_allows = allows
    for members in ([{"command": ["x"]}] * 5, [{"command": ["x", str(n)]} for n in range(5)]):
        told = (await server.client("alice").post("/tasks/batch", json={"tasks": members})).json()
        assert [one.get("problem", {}).get("code") for one in told["results"]] == [None] * 3 + ["over_quota"] * 2
        assert told["accepted"] == 3


def three_each(server: Running) -> None:
    """Play the leader with a quota: a user may have three tasks that have not ended."""

    def allows(project: str, user: str, spec: TaskSpec, more: int) -> OverQuota | None:
        live = sum(task.user == user and task.ended_at is None for task in server.store._tasks.values())
        return OverQuota("QuotaUser", f"user {user} may have 3") if live + more >= 3 else None

    server.services.quota_allows = allows


async def test_a_request_that_was_accepted_is_accepted_again_though_its_tasks_fill_the_quota(server: Running) -> None:
    three_each(server)
    alice, key = server.client("alice"), {"Idempotency-Key": "k"}
    first = [
        await alice.post("/tasks", json={"command": ["x", str(n)]}, headers={"Idempotency-Key": str(n)})
        for n in range(3)
    ]
    assert [answer.status_code for answer in first] == [201, 201, 201]
    again = await alice.post("/tasks", json={"command": ["x", "2"]}, headers={"Idempotency-Key": "2"})
    assert (again.status_code, again.json()) == (200, first[2].json())
    assert again.headers["Idempotent-Replayed"] == "true"
    new = await alice.post("/tasks", json={"command": ["x", "3"]}, headers={"Idempotency-Key": "3"})
    assert (new.status_code, new.json()["code"]) == (429, "over_quota")
    other = await alice.post("/tasks", json={"command": ["y"]}, headers={"Idempotency-Key": "2"})
    assert other.status_code == 409
    assert (await alice.post("/tasks", json={"command": ["x"]}, headers=key)).status_code == 429


async def test_a_batch_that_was_accepted_in_part_gets_its_first_answer_again(server: Running) -> None:
    three_each(server)
    alice, key = server.client("alice"), {"Idempotency-Key": "k"}
    members = [{"command": ["x", str(n)]} for n in range(2)] + [
        {"command": ["x"], "image": 5},
        *[{"command": ["y"]}] * 3,
    ]
    first = (await alice.post("/tasks/batch", json={"tasks": members}, headers=key)).json()
    codes = [one.get("problem", {}).get("code") for one in first["results"]]
    assert codes == [None, None, "invalid_value", None, "over_quota", "over_quota"]
    again = (await alice.post("/tasks/batch", json={"tasks": members}, headers=key)).json()
    assert [one.get("id") for one in again["results"]] == [one.get("id") for one in first["results"]]
    assert [one.get("problem", {}).get("code") for one in again["results"]] == codes


async def test_what_was_refused_at_first_is_no_more_accepted_under_the_same_key(server: Running) -> None:
    three_each(server)
    alice, key = server.client("alice"), {"Idempotency-Key": "k"}
    others = [(await alice.post("/tasks", json={"command": ["z"]})).json()["id"] for _ in range(2)]
    body = {"tasks": [{"command": ["x"]}] * 2}
    first = (await alice.post("/tasks/batch", json=body, headers=key)).json()["results"]
    assert first[1]["problem"]["code"] == "over_quota"
    for ident in others:
        await end(server, ident)
    again = (await alice.post("/tasks/batch", json=body, headers=key)).json()["results"]
    assert (again[0]["id"], again[1]["problem"]["code"]) == (first[0]["id"], "conflict")


async def test_all_or_nothing_of_a_batch_is_told_again_too(server: Running) -> None:
    three_each(server)
    alice, key = server.client("alice"), {"Idempotency-Key": "k"}
    body = {"atomic": True, "tasks": [{"command": ["x", str(n)]} for n in range(3)]}
    first = (await alice.post("/tasks/batch", json=body, headers=key)).json()
    again = await alice.post("/tasks/batch", json=body, headers=key)
    assert (again.status_code, first["accepted"]) == (200, 3)
    assert [one["id"] for one in again.json()["results"]] == [one["id"] for one in first["results"]]
    new = await alice.post("/tasks/batch", json=body)
    assert (new.status_code, new.json()["accepted"]) == (422, 0)


async def test_an_array_is_one_task_of_its_owner_and_trying_again_is_another(server: Running) -> None:
    three_each(server)
    alice = server.client("alice")
    ids = [(await alice.post("/tasks", json={"command": ["x"], "array": "0-99"})).json()["id"] for _ in range(3)]
    assert (await alice.post("/tasks", json={"command": ["x"], "array": "0-99"})).status_code == 429
    await end(server, ids[0], State.FAILED)
    again = await alice.post(f"/tasks/{ids[0]}/retry", headers={"Idempotency-Key": "r"})
    assert again.status_code == 201
    assert (await alice.post(f"/tasks/{ids[0]}/retry")).status_code == 429
    same = await alice.post(f"/tasks/{ids[0]}/retry", headers={"Idempotency-Key": "r"})
    assert (same.status_code, same.json()["id"]) == (200, again.json()["id"])


async def test_pages_cover_everything_once(server: Running) -> None:
    alice = server.client("alice")
    await alice.post("/tasks/batch", json={"tasks": [{"command": ["x"], "name": f"n{i % 2}"} for i in range(25)]})
    seen, cursor = [], None
    while True:
        page = (await alice.get("/tasks", params={"limit": 10} | ({"cursor": cursor} if cursor else {}))).json()
        seen += [t["id"] for t in page["items"]]
        if (cursor := page["next"]) is None:
            break
    assert len(seen) == len(set(seen)) == 25
    assert seen == sorted(seen, reverse=True)
    assert (
        len((await alice.get("/tasks", params={"name": "n0", "state": "active", "user": "me"})).json()["items"]) == 13
    )


async def end(server: Running, ident: int, state: State = State.SUCCEEDED) -> None:
    """Play the leader: the task ends."""
    task = (await server.store.task_get_many([ident]))[0]
    task.state, task.base, task.ended_at = state, state, server.services.clock.now()
    task.counts = {state: task.size}
    await server.commit(Changes(tasks={ident: task}), kind="task.ended", task=ident)


async def test_a_long_poll_answers_when_the_task_ends(server: Running) -> None:
    alice = server.client("alice")
    ident = (await alice.post("/tasks", json={"command": ["x"]})).json()["id"]
    started = time.monotonic()
    assert (await alice.get(f"/tasks/{ident}?wait=0.2s")).json()["state"] == "submitted"
    assert 0.15 < time.monotonic() - started < 2
    waiting = asyncio.create_task(alice.get(f"/tasks/{ident}?wait=8s"))
    await asyncio.sleep(0.1)
    started = time.monotonic()
    await end(server, ident)
    assert (await waiting).json()["state"] == "succeeded"
    assert time.monotonic() - started < 1


async def test_wishes_are_stored_and_vain_ones_refused(server: Running) -> None:
    alice = server.client("alice")
    ident = (await alice.post("/tasks", json={"command": ["x"]})).json()["id"]
    for verb in ("hold", "requeue", "cancel"):
        assert (await alice.post(f"/tasks/{ident}/{verb}")).status_code == 202
    assert [c.body.verb for c in await server.store.command_list_open(10)] == ["hold", "requeue", "cancel"]
    for verb in ("release", "signal", "suspend", "resume", "retry"):
        assert (await alice.post(f"/tasks/{ident}/{verb}")).status_code == 409, verb
    assert (await alice.post(f"/tasks/{ident}/signal", json={"signal": "NOPE"})).status_code == 422
    await end(server, ident)
    assert (await alice.delete(f"/tasks/{ident}")).status_code == 409


async def test_a_retry_is_a_new_task_of_what_failed(server: Running) -> None:
    alice = server.client("alice")
    ident = (await alice.post("/tasks", json={"command": ["x"], "array": "0-9"})).json()["id"]
    await end(server, ident, State.CANCELLED)
    again = (await alice.post(f"/tasks/{ident}/retry")).json()["id"]
    shown = (await alice.get(f"/tasks/{again}")).json()
    assert (shown["retry_of"], shown["size"]) == (ident, 10)
    assert (await alice.get(f"/tasks/{ident}_3")).json()["state"] == "cancelled"
    assert (await alice.get(f"/tasks/{ident}_10")).status_code == 404


async def test_a_dependency_on_what_one_may_not_see_is_refused(server: Running) -> None:
    alice, eve = server.client("alice"), server.client("eve")
    ident = (await alice.post("/tasks", json={"command": ["x"]})).json()["id"]
    hidden = await eve.post("/tasks", json={"command": ["x"], "after": [f"afterok:{ident}"]})
    missing = await eve.post("/tasks", json={"command": ["x"], "after": ["afterok:7777"]})
    assert hidden.status_code == missing.status_code == 422
    assert hidden.json()["detail"] == missing.json()["detail"].replace("7777", str(ident))
    batch = await eve.post(
        "/tasks/batch", json={"tasks": [{"command": ["x"], "after": [str(ident)]}, {"command": "y"}]}
    )
    assert ["id" in r for r in batch.json()["results"]] == [False, True]
    assert (await alice.post("/tasks", json={"command": ["x"], "after": [str(ident)]})).status_code == 201


# ------------------------------------------------------------ calls of one function


async def calls(server: Running, task: object, args: object, who: str = "alice", **headers: str) -> httpx.Response:
    code = (await server.client(who).put("/blobs", content=b"code")).json().get("digest", "0" * 64)
    if isinstance(task, dict) and isinstance(task.get("function"), dict):
        task["function"].setdefault("code", code)
    body = msgspec.msgpack.encode({"task": msgspec.json.encode(task), "args": args})
    return await server.client(who).post("/tasks/calls", content=body, headers=headers)


def function(**more: object) -> dict[str, object]:
    return {"name": "f", "function": {"python": "3.11"}, **more}


async def test_an_instant_that_calls_have_in_common_counts_from_when_each_request_is_made(server: Running) -> None:
    task, deadlines = function(deadline="+1h"), set[float | None]()
    for _ in range(2):
        ids = msgspec.msgpack.decode((await calls(server, task, [b""])).content)
        deadlines |= {t.spec.deadline for t in await server.store.task_get_many(ids)}
        await asyncio.sleep(0.002)
    assert len(deadlines) == 2


async def test_a_call_is_answered_when_the_leader_has_decided(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jarvis.api.routes.tasks.DECIDED_S", 60.0)
    answered = asyncio.create_task(calls(server, function(), [b""]))
    async with asyncio.timeout(10):
        while not (inputs := await server.bus.take(0.2)):
            pass
        await asyncio.sleep(0.05)
        assert not answered.done()
        taken = next(item for item in inputs if isinstance(item, TasksTaken))
        await server.commit(Changes(), kind="assigned", task=taken.tasks[0].id)
        assert msgspec.msgpack.decode((await answered).content) == [taken.tasks[0].id]


async def test_many_calls_of_a_function_are_many_tasks(server: Running) -> None:
    answer = await calls(server, function(priority="high"), [b"a", b"b", b""], **{"Idempotency-Key": "k"})
    ids = msgspec.msgpack.decode(answer.content)
    assert (answer.status_code, len(set(ids))) == (200, 3)
    tasks = await server.store.task_get_many(ids)
    assert [t.spec.function.args for t in tasks if t.spec.function] == [b"a", b"b", b""]
    assert {(t.spec.name, t.spec.priority, t.user, t.project) for t in tasks} == {("f", 500, "alice", "red")}
    assert len({t.uuid for t in tasks}) == 3
    again = await calls(server, function(priority="high"), [b"a", b"b", b""], **{"Idempotency-Key": "k"})
    assert msgspec.msgpack.decode(again.content) == ids
    other = await calls(server, function(), [b"a"], **{"Idempotency-Key": "k"})
    assert (other.status_code, other.json()["code"]) == (409, "idempotency_conflict")


@pytest.mark.parametrize(
    ("task", "args", "status", "detail"),
    [
        (function(), [], 422, "args"),
        (function(), [b"x" * 65_537], 422, "args"),
        (function(), ["text"], 400, "Expected `bytes`"),
        (function(bogus=1), [b""], 422, "bogus"),
        (function(array="0-3"), [b""], 422, "task"),
        (function(after=["afterok:999"]), [b""], 422, "after"),
        ({"command": ["true"]}, [b""], 422, "task"),
        ({"name": "f", "function": {"python": "3.11", "args": "YQ=="}}, [b""], 422, "task"),
        ({"name": "f", "function": {"python": "3.11", "code": "0" * 64}}, [b""], 422, "function.code"),
        ([1], [b""], 422, "Expected `object`"),
    ],
)
async def test_calls_that_cannot_be_meant_leave_nothing(
    server: Running, task: object, args: object, status: int, detail: str
) -> None:
    answer = await calls(server, task, args)
    assert (answer.status_code, detail in answer.json()["detail"]) == (status, True), answer.text
    assert (await server.store.counts()).tasks_by_state == {}


async def test_calls_into_a_project_of_others_are_refused(server: Running) -> None:
    assert (await calls(server, function(project="blue"), [b""])).status_code == 403
    assert (await calls(server, function(), [b""], "node")).status_code == 403


async def test_calls_are_counted_one_by_one_against_the_quota_of_their_owner(server: Running) -> None:
    three_each(server)
    key = {"Idempotency-Key": "k"}
    many = await calls(server, function(), [b"a"] * 4, **key)
    assert (many.status_code, many.json()["code"]) == (429, "over_quota")
    some = await calls(server, function(), [b"a"] * 3, **key)
    assert some.status_code == 200
    assert (await calls(server, function(), [b"a"] * 3, **key)).content == some.content
    assert (await calls(server, function(), [b"a"])).status_code == 429
    assert (await calls(server, function(), [b"a"] * 2, **key)).status_code == 409
