"""What a server says of the process that decides for it."""

import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from jarvis.config.settings import load
from jarvis.scheduler_process import SchedulerProcess

OK = {"status": "ok", "detail": "0 entries queued"}
ILL = {"status": "degraded", "detail": "arrivals ended on a defect 3 s ago: KeyError: 1"}
DOWN = {"status": "down", "detail": "no decision for 9 s"}


@pytest.mark.parametrize(
    ("queue", "api", "told"),
    [
        (OK, {"status": "ok", "detail": "answers"}, OK),
        (OK, ILL, ILL),
        (DOWN, ILL, {"status": "degraded", "detail": "no decision for 9 s"}),
    ],
)
async def test_its_queue_is_told_before_a_loop_of_it_that_ended_on_a_defect(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, queue: dict[str, Any], api: dict[str, Any], told: dict[str, Any]
) -> None:
    async def ask(*_: object) -> object:
        answer = json.dumps({"checks": {"scheduler_queue": {**queue, "since": ""}, "api": {**api, "since": ""}}})
        return SimpleNamespace(json=lambda: json.loads(answer))

    monkeypatch.setattr(SchedulerProcess, "_ask", ask)
    settings, _ = load({"state_dir": str(tmp_path)}, environ={})
    assert await SchedulerProcess(settings, "s1", None).check() == told


async def test_what_could_not_be_started_leaves_no_pipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, pipe = list[int](), os.pipe

    def recorded() -> tuple[int, int]:
        ends = pipe()
        made.extend(ends)
        return ends

    monkeypatch.setattr(os, "pipe", recorded)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "none"))
    settings, _ = load({"state_dir": str(tmp_path)}, environ={})
    with pytest.raises(FileNotFoundError):
        await SchedulerProcess(settings, "s1", None).run()
    assert len(made) >= 2
    for end in made:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(end)
