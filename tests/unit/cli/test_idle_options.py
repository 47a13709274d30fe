"""Options that would change nothing beside others are refused, by name, before anything is done."""

from pathlib import Path
from typing import Any, cast

import click
import pytest
from click.testing import CliRunner

from jarvis.cli.options import task_fields
from jarvis.cli.sim import sim
from jarvis.cli.submit import specs_of, submit


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (
            "--machines {trace} --price node=1 --projects --nodes 4x64",
            "--nodes, --price, --projects: without effect beside --machines, which fills nodes and runs nothing.",
        ),
        ("--machines {trace} --lose --picture {trace}.svg", "--lose, --picture: without effect beside --machines"),
        ("--arrive 2", "--arrive: goes with --machines."),
        ("--save {trace}.jsonl", "--save: goes with --trace last-week and the like."),
        ("--draws 2 --from 7", "--from: without effect beside --draws, which begin where --seed says."),
        ("--seed 7", "--seed: goes with --draws."),
    ],
)
def test_sim(tmp_path: Path, line: str, told: str) -> None:
    trace = tmp_path / "trace.swf"
    trace.touch()
    found = CliRunner().invoke(sim, ["--trace", str(trace), *line.format(trace=trace).split()])
    assert found.exit_code == 2
    assert told in found.output


def test_what_ran_here_has_no_format() -> None:
    found = CliRunner().invoke(sim, ["--trace", "last-week", "--kind", "swf"])
    assert "--kind: for files, not for what ran here." in found.output


def meant(*line: str) -> list[dict[str, Any]]:
    """The specs of such a line, without a server."""
    context = submit.make_context("submit", list(line))
    options = dict(context.params)
    command, each_line = options.pop("command"), options.pop("each_line")
    for name in ("wait", "progress", "quiet", "idempotency_key"):
        options.pop(name)
    with context:
        return specs_of(cast("Any", None), command, each_line, options)


def test_a_file_of_tasks_says_itself_what_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JARVIS_PUSH_LIMIT", "1M")
    file = tmp_path / "tasks.yaml"
    file.write_text("- {command: [a]}\n- {command: [b]}\n")
    assert [spec["command"] for spec in meant(str(file))] == [["a"], ["b"]]
    for line in (("--priority", "high", "-c", "2"), ("--each-line", str(file)), ("--hold",), ("--push", ".")):
        with pytest.raises(click.UsageError, match="for commands and scripts, not for the tasks of") as error:
            meant(*line, str(file))
        assert ("--cpus, --priority: " if len(line) > 2 else f"{line[0]}: ") in error.value.message


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"gpus": "1", "gres": "gpu:2"}, "--gpus and --gres say the same"),
        ({"entrypoint": "sh -c"}, "--entrypoint goes with --container"),
    ],
)
def test_submit(given: dict[str, str], told: str) -> None:
    with pytest.raises(click.UsageError, match=told):
        task_fields(given, {}, "/")
