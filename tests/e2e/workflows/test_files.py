"""Files that steps of a workflow leave for those that follow."""

from pathlib import Path

import pytest

from jarvis.sdk.client import Client
from jarvis.sdk.errors import ClientError

PATIENCE = 60.0
HANDED_ON = """
name: files
params: {source: {type: string}}
steps:
  - id: build
    push: ["${{ params.source }}"]
    command: mkdir dist; cat text text > dist/twice; echo no > other
    artifacts: [dist]
  - id: use
    depends_on: build
    push: ["${{ params.source }}", "${{ steps.build.artifacts }}"]
    command: printf '"%s"' "$(cat text dist/twice | tr -d '\\n'; ls | wc -l)" > $JARVIS_OUTPUT
output: "${{ steps.use.output }}"
"""


def test_a_later_step_is_sent_what_an_earlier_one_left(client: Client, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("a\n")
    handle = client.submit_workflow(HANDED_ON, {"source": client.push(tmp_path / "text")})
    assert handle.result(PATIENCE) == "aaa2"
    build = next(step for step in handle.steps() if step["path"] == "build")
    assert [item["path"] for item in client.artifacts(build["task"])["items"]] == ["dist/twice"]
    again = client.workflow(client.connection.post(f"/workflows/{handle.id}/retry", {"again": ["use"]})["id"])
    assert again.result(PATIENCE) == "aaa2", "a re-run takes the files over"


def test_each_element_of_a_fan_out_has_its_own(client: Client, tmp_path: Path) -> None:
    steps = [
        {
            "id": "make", "for_each": ["a", "b", "c"], "artifacts": ["made/*"],
            "command": "mkdir made; [ ${{ item }} = c ] || echo ${{ item }} > made/${{ item }}",
        },
        {
            "id": "all", "depends_on": "make", "push": ["${{ steps.make.artifacts }}"],
            "command": "printf '\"%s\"' $(cat made/* | tr -d '\\n') > $JARVIS_OUTPUT",
        },
        {
            "id": "each", "depends_on": "make", "for_each": [1, 0], "push": ["${{ steps.make.artifacts[item] }}"],
            "command": "printf '\"%s\"' $(ls made) > $JARVIS_OUTPUT",
        },
        {
            "id": "loop", "depends_on": "make", "until": "iteration == 2", "artifacts": ["i"],
            "command": "echo $JARVIS_ITERATION > i",
        },
        {
            "id": "last", "depends_on": "loop", "push": ["${{ steps.loop.artifacts }}"],
            "command": "cat i > $JARVIS_OUTPUT",
        },
    ]  # fmt: skip
    output = {"all": "${{ steps.all.output }}", "each": "${{ steps.each.output }}", "last": "${{ steps.last.output }}"}
    handle = client.submit_workflow({"name": "fan", "steps": steps, "output": output})
    assert handle.result(PATIENCE) == {"all": "ab", "each": ["b", "a"], "last": 1}
    tasks = {step["path"]: step["task"] for step in handle.steps()}
    assert [path.name for path in client.get_artifacts(tasks["make[1]"], tmp_path / "b")] == ["b"]


def test_files_of_a_step_that_left_none_fail_the_step_that_asks(client: Client) -> None:
    steps = [
        {"id": "a", "command": "true"},
        {"id": "b", "depends_on": "a", "command": "true", "push": ["${{ steps.a.artifacts }}"]},
    ]
    handle = client.submit_workflow({"name": "none", "steps": steps})
    handle.wait(PATIENCE)
    found = {step["path"]: step for step in handle.steps()}
    assert found["b"]["state"] == "failed"
    assert "not the artifacts of a step" in found["b"]["reason"]


@pytest.mark.parametrize(
    ("step", "word"),
    [
        ({"push": ["x"]}, "push.0"), ({"push": ["ab" * 32]}, "push.0"), ({"artifacts": ["../x"]}, "artifacts.0"),
        ({"push": ["${{ steps.nobody.artifacts }}"]}, "nobody"), ({"push": "${{ steps.a.artifacts }}"}, "push"),
        ({"artifacts": ["x"], "cwd": "/tmp"}, "cwd"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_refused(client: Client, step: dict[str, object], word: str) -> None:
    with pytest.raises(ClientError, match=word):
        client.submit_workflow({"name": "bad", "steps": [{"id": "a", "command": "true", **step}]})
