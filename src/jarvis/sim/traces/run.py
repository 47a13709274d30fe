"""What ``jarvis sim`` does: a trace, a policy and nodes in, figures out."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from jarvis.config.policies import PRESETS, SchedulerSettings, policy_of
from jarvis.config.sources import SettingsError
from jarvis.core.errors import InvalidValue
from jarvis.core.resources import Resources, parse_resources
from jarvis.sim.traces.cost import check
from jarvis.sim.traces.formats import read
from jarvis.sim.traces.replay import CHECKPOINTING, History, Replay, Workers
from jarvis.sim.traces.report import USUAL, Figures, Foresight, Terms, figures, foresight, mean_of
from jarvis.sim.traces.workload import Recorded, Workload, cut, drawn_starts


@dataclass(frozen=True, slots=True)
class Question:
    """What is to be found out. ``draws`` sequences of ``count`` tasks, drawn by ``seed``; 0: all from ``start`` on."""

    trace: Path | Workload
    policy: SchedulerSettings
    nodes: tuple[tuple[int, Resources], ...] = ()
    kind: str = ""
    start: int = 0
    count: int | None = None
    draws: int = 0
    seed: int = 1
    single: bool = False
    workers: Workers = CHECKPOINTING
    terms: Terms = USUAL


@dataclass(slots=True)
class Answer:
    """Figures of each sequence, and their mean."""

    mean: Figures
    each: list[Figures] = field(default_factory=list)
    dropped: int = 0
    foresight: Foresight | None = None
    """Of the last sequence, as ``history``."""
    history: History = field(default_factory=History, compare=False)


def answer(question: Question, told: Callable[[int, int], None] = lambda done, total: None) -> Answer:
    """Replay the sequences one after another; ``told`` how many of how many are done."""
    trace = question.trace
    workload = read(trace, question.kind) if isinstance(trace, Path) else trace
    nodes = list(question.nodes) or workload.nodes
    check(question.terms.prices, nodes)
    sequences = _sequences(question, workload.items)
    policy = policy_of(question.policy)
    found: list[Figures] = []
    history = History()
    for done, items in enumerate(sequences):
        told(done, len(sequences))
        history = Replay(items, nodes, policy, question.single, question.workers).run()
        found.append(figures(history, question.terms))
    return Answer(mean_of(found), found, workload.dropped, foresight(history), history)


def _sequences(question: Question, items: list[Recorded]) -> list[list[Recorded]]:
    if not items:
        named = str(question.trace) if isinstance(question.trace, Path) else "this workload"
        raise InvalidValue("trace", named, "one with at least one task that ran")
    if not question.draws:
        count = len(items) - question.start if question.count is None else question.count
        return [cut(items, question.start, count)]
    count = question.count or 1024
    if len(items) < 2 * count + 2:
        raise InvalidValue("count", count, f"less than half of the {len(items)} tasks of the trace")
    return [cut(items, start, count) for start in drawn_starts(question.seed, question.draws, count, len(items))]


def policy_from(given: str) -> SchedulerSettings:
    """The scheduler's section by the name of a preset or from a YAML file, in which it may stand below ``scheduler``."""
    data: Any = {"preset": given}
    if given not in PRESETS:
        data = _from_file(Path(given))
    try:
        return SchedulerSettings.model_validate(data)
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, p['loc'])) or 'scheduler'}: {p['msg']}" for p in error.errors())
        raise SettingsError(f"the policy {given}: {problems}") from None


def _from_file(path: Path) -> Any:
    import yaml

    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InvalidValue("policy", str(path), f"a YAML file, or one of {', '.join(sorted(PRESETS))}") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SettingsError(f"the policy {path}: {' '.join(str(error).split())}") from None
    if isinstance(data, dict) and set(data) == {"scheduler"}:
        data = data["scheduler"]
    return data or {}


_NODES = re.compile(r"(?:(\d+)x)?(.+)\Z")


def nodes_from(given: str) -> tuple[int, Resources]:
    """``4x cpu=64,memory=256Gi`` or in short ``4x64``: so many nodes with so much."""
    match = _NODES.match(given.replace(" ", ""))
    count, rest = (int(match.group(1) or 1), match.group(2)) if match is not None else (0, "")
    if rest.isdigit():
        rest = f"cpu={rest}"
    pairs = [part.partition("=") for part in rest.split(",")]
    if count < 1 or any(not value for _, _, value in pairs):
        raise InvalidValue("nodes", given, "nodes like 4x64 or 4xcpu=64,memory=256Gi,gpu=8")
    return count, parse_resources({name: value for name, _, value in pairs})
