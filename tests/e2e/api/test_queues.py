"""Queues that there are not, at every door that a task comes in by."""

from tests.e2e.api.harness import Running

from jarvis.config.policies import SchedulerSettings, queue_refused


async def test_a_queue_that_the_settings_do_not_name_is_refused(server: Running) -> None:
    settings = SchedulerSettings.model_validate({"queues": {"urgent": {"tier": 1}}})
    server.services.queue_refused = lambda queue: queue_refused(settings, queue)
    client = server.client("alice")
    task = {"command": ["x"], "queue": "urgnt"}
    steps = {"steps": [{"id": "a", **task}]}
    for path, body in (
        ("/tasks", task), ("/plan", task), ("/workflows", {"document": {"name": "w", **steps}}),
        ("/schedules", {"name": "s", "every": "1h", "task": task}),
    ):  # fmt: skip
        answer = await client.post(path, json=body)
        assert answer.status_code == 422, (path, answer.text)
        assert "'urgnt' is not one of default, urgent" in answer.text, (path, answer.text)
    batch = (await client.post("/tasks/batch", json={"tasks": [task, {"command": ["x"], "queue": "urgent"}]})).json()
    assert ["problem" in member for member in batch["results"]] == [True, False]
    assert (await client.post("/tasks", json={"command": ["x"]})).status_code == 201
    assert queue_refused(SchedulerSettings(), "any") is None, "where none is named"
