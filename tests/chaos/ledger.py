"""Judges of fault tests: what clients were told, and what the tasks themselves wrote, never the cluster's own word.

A client keeps every request with its answer and both instants. A task appends lines to a file outside of Jarvis when it begins
and when it ends. Source of the rules: Kingsbury's Jepsen and etcd's robustness tests keep such histories; per key they are checked
here for what a linearizable register of one task allows.
"""

import itertools
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path

TERMINAL = {"succeeded", "failed", "cancelled", "timeout", "expired", "lost"}


def script(file: Path, seconds: float) -> list[str]:
    """A command whose attempts write down: task, attempt, token, what, when."""
    line = f'echo "$JARVIS_TASK_ID $JARVIS_ATTEMPT $JARVIS_FENCING_TOKEN %s $(date +%s.%N)" >> {file}'
    begin, end = line.replace("%s", "begin", 1), line.replace("%s", "end", 1)
    return ["sh", "-c", f"{begin}; sleep {seconds:g}; {end}"]


@dataclass(slots=True)
class Run:
    """One attempt as its own process saw it. ``end`` is None when it was cut short."""

    task: int
    attempt: int
    token: int
    begin: float
    end: float | None = None


@dataclass(slots=True)
class Effects:
    """All that tasks wrote."""

    runs: dict[tuple[int, int], Run] = field(default_factory=dict)
    repeated: list[tuple[int, int]] = field(default_factory=list)
    """Attempts that began twice."""

    @classmethod
    def read(cls, file: Path) -> "Effects":
        found = cls()
        for line in file.read_text().splitlines() if file.exists() else ():
            task, attempt, token, what, at = line.split()
            key = (int(task), int(attempt))
            if what == "end":
                found.runs[key].end = float(at)
            elif key in found.runs:
                found.repeated.append(key)
            else:
                found.runs[key] = Run(*key, int(token), float(at))
        return found

    def of(self, task: int) -> list[Run]:
        return [run for (ident, _), run in sorted(self.runs.items()) if ident == task]

    def lost(self, acknowledged: list[int]) -> list[int]:
        """Tasks of which no attempt came to its end."""
        done = {task for (task, _), run in self.runs.items() if run.end is not None}
        return [task for task in acknowledged if task not in done]

    def attempts_of(self) -> Counter[int]:
        return Counter(task for task, _ in self.runs)

    def again(self) -> list[int]:
        """Tasks that ran more than once: allowed after the loss of a node alone."""
        return [task for task, count in self.attempts_of().items() if count > 1]

    def overlaps(self) -> list[int]:
        """Tasks of which two attempts ran at the same time."""
        found = []
        for task in self.again():
            runs = self.of(task)
            if any(a.end is None or b.begin < a.end for a, b in itertools.pairwise(runs)):
                found.append(task)
        return found

    def tokens_that_fell(self) -> list[int]:
        """Tasks of which a later attempt has no higher token."""
        return [
            task for task in self.again()
            if any(a.token >= b.token for a, b in zip(self.of(task), self.of(task)[1:], strict=False))
        ]  # fmt: skip


@dataclass(slots=True)
class Request:
    """``answer``: an id, a state, or None when there was none or a refusal."""

    what: str
    key: str
    begun: float
    ended: float
    answer: str | int | None


def violations(history: list[Request]) -> list[str]:
    """What no register of one task per key could have answered."""
    found = []
    ids: dict[str, set[object]] = defaultdict(set)
    acknowledged: dict[str, float] = {}
    shows: dict[str, list[Request]] = defaultdict(list)
    for request in history:
        if request.what == "submit" and request.answer is not None:
            ids[request.key].add(request.answer)
            name = str(request.answer)
            acknowledged[name] = min(acknowledged.get(name, request.ended), request.ended)
        elif request.what == "show" and request.answer is not None:
            shows[request.key].append(request)
    found += [f"key {key} was answered with {sorted(map(str, told))}" for key, told in ids.items() if len(told) > 1]
    for task, seen in shows.items():
        seen.sort(key=lambda request: request.ended)
        found += [
            f"task {task} was acknowledged and then not there"
            for request in seen if request.answer == "absent" and request.begun > acknowledged.get(task, float("inf"))
        ]  # fmt: skip
        over = [request for request in seen if request.answer in TERMINAL]
        first = min(over, key=lambda request: request.ended, default=None)
        if first is not None:
            later = {request.answer for request in seen if request.begun > first.ended}
            found += (
                [f"task {task} was {first.answer} and then {sorted(map(str, later))}"] if later - {first.answer} else []
            )
    return found
