"""A workflow in six steps: describe it, validate it, see its order, submit it, let its steps run in order, track it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

import jarvis
from jarvis import Client

DOCUMENT = """
name: three steps
steps:
  - id: load
    depends_on: [transform]
    command: echo load >> ${{ params.file }}
  - id: extract
    command: echo extract >> ${{ params.file }}
  - id: transform
    depends_on: [extract]
    command: echo transform >> ${{ params.file }}
params:
  file: {type: string}
"""


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with jarvis.local(cpus=2) as made:
        yield made


def test_the_flow_of_a_workflow(client: Client, tmp_path: Path) -> None:
    file = tmp_path / "written"
    params = {"file": str(file)}

    # 1. A description with a mistake is refused, and the line of the mistake is told.
    wrong = client.validate_workflow(DOCUMENT.replace("[extract]", "[extrakt]"), params)
    assert [problem["line"] for problem in wrong["problems"]] == [10]

    # 2. A good one is valid.
    plan = client.validate_workflow(DOCUMENT, params)
    assert plan["valid"]

    # 3. Its steps have an order, whatever the order in which they are written.
    assert plan["order"] == ["extract", "transform", "load"]

    # 4. Submitted, it has an id.
    submitted = client.submit_workflow(DOCUMENT, params)
    assert submitted.id > 0

    # 5. Its steps run in that order: each wrote its name when its turn came.
    submitted.wait(timeout=60)
    assert file.read_text().split() == ["extract", "transform", "load"]

    # 6. And it can be seen how each of them went.
    assert {step["path"]: step["state"] for step in submitted.steps()} == dict.fromkeys(plan["order"], "succeeded")


def test_a_step_that_fails_is_tracked(client: Client) -> None:
    steps = [{"id": "breaks", "command": "exit 4"}, {"id": "waits", "command": "true", "depends_on": ["breaks"]}]
    submitted = client.submit_workflow({"steps": steps})
    assert submitted.wait(timeout=60)["state"] == "failed"
    assert {step["path"]: step["state"] for step in submitted.steps()} == {
        "breaks": "failed",
        "waits": "upstream_failed",
    }


def test_more_than_ten_thousand_steps_are_too_many(client: Client) -> None:
    steps = [{"id": f"s{n}", "command": "true", "depends_on": [f"s{n - 1}"] if n else []} for n in range(10_001)]
    found = client.validate_workflow({"steps": steps})
    assert [problem["message"] for problem in found["problems"]] == [
        "steps: a workflow has at most 10,000 steps, inner ones counted"
    ]
