"""What every policy of another package promises, as a search for what breaks it.

``problems(policy)`` calls it many times with made-up tasks and nodes: with equal arguments it must answer the same, whatever the
order of the calls, the clock and chance say, and leave its arguments as they are. Answers are compared between processes, too:
``digest(policy)`` must be the same whatever the seed of Python's hashes is.
"""

import copy
import hashlib
import math
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain
from os import environ
from typing import Any

from jarvis.core.task import Constraint, TaskSpec
from jarvis.policies import AnyPolicy, FilterPolicy, OrderPolicy, UnknownPolicy, found, load
from jarvis.scheduler.load_balancer import Candidate
from jarvis.scheduler.policy.order import Order
from jarvis.scheduler.policy.plugged import NodeFacts
from jarvis.scheduler.task_queue import PlacementClass, class_of

CASES = 300
GIB = 1 << 30
_CLOCKS = ("time", "monotonic", "perf_counter", "time_ns", "monotonic_ns", "perf_counter_ns")
_OUTSIDE = ("open", "socket.connect", "subprocess.Popen", "os.system", "os.listdir", "os.scandir")
Arguments = tuple[Any, ...]


class _Outside:
    """Notes what is reached outside of the arguments while it looks. What Python tells its hooks cannot be untold."""

    def __init__(self) -> None:
        self.looks = False
        self.reached: set[str] = set()
        sys.addaudithook(self._note)

    def _note(self, event: str, arguments: Arguments) -> None:
        if self.looks and event in _OUTSIDE:
            self.reached.add(event)

    @contextmanager
    def at(self, seed: int) -> Iterator[None]:
        """Another time and other chance."""
        random.seed(seed)
        clocks = {name: getattr(time, name) for name in _CLOCKS}
        try:
            for name in _CLOCKS:
                setattr(time, name, lambda: seed * 1_000_003)
            self.looks = True
            yield
        finally:
            self.looks = False
            for name, clock in clocks.items():
                setattr(time, name, clock)


_outside = _Outside()


def problems(policy: AnyPolicy, cases: int = CASES, seed: int = 0) -> list[str]:
    """What it does that a policy must not; empty when nothing was found."""
    call, made = _function(policy), list(_cases(policy, cases, seed))
    said: list[str] = []
    kept = copy.deepcopy(made)
    with _outside.at(1):
        once = [_asked(call, arguments) for arguments in made]
    if made != kept:
        said.append("it changes its arguments")
    with _outside.at(2):
        again = [_asked(call, arguments) for arguments in reversed(copy.deepcopy(kept))][::-1]
    said += sorted({f"it raises {answer}" for answer in once if isinstance(answer, Exception)}, key=str)
    wrong = [answer for answer in once if not isinstance(answer, Exception) and not _meant(policy, answer)]
    if wrong:
        wanted = "a text" if isinstance(policy, FilterPolicy) else "a finite number"
        said.append(f"it answers {wrong[0]!r}, which is not {wanted}: nothing can be sorted by it")
    differs = next((n for n, pair in enumerate(zip(once, again, strict=True)) if repr(pair[0]) != repr(pair[1])), None)
    if differs is not None:
        said.append(
            f"it answers {once[differs]!r} and then {again[differs]!r} to the same arguments: {kept[differs]!r:.300}"
        )
    if _outside.reached:
        said.append(f"it reaches outside of its arguments: {', '.join(sorted(_outside.reached))}")
        _outside.reached.clear()
    return said


def problems_of(name: str, cases: int = CASES) -> list[str]:
    """Of an installed one by its name, between processes, too; raises :class:`UnknownPolicy`."""
    said = problems(_installed(name), cases)
    digests = {_digest_elsewhere(name, cases, hashes) for hashes in ("1", "2")}
    if not said and len(digests) > 1:
        said.append("it answers otherwise in another process: it depends on the order of a set, or on id() or hash()")
    return said


def digest(policy: AnyPolicy, cases: int = CASES, seed: int = 0) -> str:
    """Of all its answers."""
    call = _function(policy)
    answers = [repr(_asked(call, arguments)) for arguments in _cases(policy, cases, seed)]
    return hashlib.sha256("\n".join(answers).encode()).hexdigest()


def _digest_elsewhere(name: str, cases: int, hashes: str) -> str:
    code = f"from jarvis.policies import contract as c; print(c.digest(c._installed({name!r}), {cases}))"
    env = {**environ, "PYTHONHASHSEED": hashes}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
    return done.stdout.strip() or done.stderr.strip()[-300:]


def _installed(name: str) -> AnyPolicy:
    for point in found():
        if point.name == name:
            return load(point)[1]
    there = ", ".join(point.name for point in found()) or "none"
    raise UnknownPolicy(f"no installed package has a policy {name}; there are {there}")


def _function(policy: AnyPolicy) -> Callable[..., object]:
    if isinstance(policy, OrderPolicy):
        return policy.rank
    return policy.refuse if isinstance(policy, FilterPolicy) else policy.score


def _asked(call: Callable[..., object], arguments: Arguments) -> object:
    try:
        return call(*arguments)
    except Exception as error:  # noqa: BLE001 - whatever a policy raises is told
        return error


def _meant(policy: AnyPolicy, answer: object) -> bool:
    if isinstance(policy, FilterPolicy):
        return isinstance(answer, str)
    return isinstance(answer, int | float) and math.isfinite(answer)


# ---------------------------------------------------------------- made-up tasks and nodes


def _cases(policy: AnyPolicy, count: int, seed: int) -> Iterator[Arguments]:
    chance = random.Random(seed)  # noqa: S311 - made-up cases, the same each time
    make = (
        _order_case
        if isinstance(policy, OrderPolicy)
        else _filter_case
        if isinstance(policy, FilterPolicy)
        else _score_case
    )
    return (make(chance) for _ in range(count))


def _resources(chance: random.Random) -> dict[str, int]:
    found = {"cpu": chance.choice([0, 100, 1000, 64_000])}
    return found | chance.choice(
        [{}, {"memory": 4 * GIB}, {"gpu": 500}, {"gpu": 8000, "memory": 512 * GIB}, {"licence": 1000}]
    )


def _spec(chance: random.Random) -> TaskSpec:
    return TaskSpec(
        name=chance.choice(["a", "train", "ü" * 100]), command=("true",), resources=_resources(chance),
        queue=chance.choice(["default", "urgent"]), priority=chance.choice([-500, 0, 0, 1000]),
        time_limit=chance.choice([None, 0.5, 60.0, 864_000.0]), deadline=chance.choice([None, None, 2e9]),
        constraints=chance.choice([(), (Constraint("zone", "=", "a"),)]),
    )  # fmt: skip


def _order_case(chance: random.Random) -> Arguments:
    order = Order("other", chance.choice([0.0, 0.01]), chance.choice([math.inf, 3600.0]))
    return order, _spec(chance), chance.choice([0.0, 1.7e9, 1.7e9 + chance.random()]), chance.choice([None, 0.0, 30.0])


def _score_case(chance: random.Random) -> Arguments:
    capacity = {"cpu": 64_000, "memory": 512 * GIB, "gpu": 8000}
    used = {name: chance.randrange(total + 1) for name, total in capacity.items()}
    gpus = tuple(chance.choice([0, 500, 1000]) for _ in range(8))
    return (
        Candidate(
            chance.randrange(1, 100), chance.choice([capacity, {"cpu": 1000}, {}]), chance.choice([used, {}]),
            chance.choice([0, 0, 3]), chance.randrange(3), chance.randrange(9), chance.randrange(9), _resources(chance), gpus,
            chance.choice(["", "A100"]),
        ),
    )  # fmt: skip


def _filter_case(chance: random.Random) -> tuple[NodeFacts, PlacementClass]:
    labels = dict(
        chain.from_iterable(d.items() for d in ({"zone": chance.choice("ab")}, chance.choice([{}, {"queue": "x"}])))
    )
    taints = chance.choice([(), ("gpu",)])
    return NodeFacts(chance.choice(["n1", "n2"]), _resources(chance), labels, taints), class_of(_spec(chance))
