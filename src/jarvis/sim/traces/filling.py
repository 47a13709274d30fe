"""Fills a cluster until it is full: how much of its GPUs can be given away? The protocol of FGD (Weng et al., ATC'23).

Requests arrive one after another in a shuffled order until they ask for a multiple of all GPUs; each is tried once by the real
engine, and dropped if it fits nowhere. Nothing ends. What is usual is learned from the list beforehand, as from a history. Nodes
are shuffled as well: of equal ones the one that came first is taken, which would always be the same where they stand sorted.
"""

import csv
import gzip
import io
import random
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jarvis.core.command import Command, NewCommand
from jarvis.core.errors import InvalidValue
from jarvis.core.inputs import CommandsTaken, Hello, NodeConnected, TasksTaken
from jarvis.core.resources import Resources
from jarvis.core.task import Constraint, Task, TaskSpec
from jarvis.scheduler.cluster import Cluster
from jarvis.scheduler.cycle import Policy
from jarvis.scheduler.policy.fragmentation import GPU_TYPE, Fragmentation, Shape, shape_of
from jarvis.scheduler.reactor import adopt, handle, place
from jarvis.scheduler.turn import Turn

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Request:
    """What somebody asks: resources, and which types of GPU will do (joined by ``|``; "" for any)."""

    resources: Resources
    types: str = ""


@dataclass(frozen=True, slots=True)
class Machine:
    name: str
    resources: Resources
    gpu_type: str = ""


@dataclass(frozen=True, slots=True)
class Filled:
    """Shares of all GPUs given away, in percent: when as much was asked as there is, and at the end; GPUs left then."""

    allocated_at_100: float
    allocated: float
    left: float
    requests: int
    placed: int

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def _rows(path: Path, *columns: str) -> list[dict[str, str]]:
    try:
        raw = path.read_bytes()
        text = (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode("utf-8")
    except (OSError, UnicodeDecodeError, EOFError):
        raise InvalidValue("trace", str(path), "a CSV file that can be read") from None
    rows = list(csv.DictReader(io.StringIO(text)))
    missing = [name for name in columns if not rows or name not in rows[0]]
    if missing:
        raise InvalidValue("trace", str(path), f"a CSV file with the columns {', '.join(columns)}")
    return rows


def _figure(row: dict[str, str], name: str, path: Path) -> int:
    try:
        return int(row[name] or 0)
    except ValueError:
        raise InvalidValue("trace", f"{path}: {name} {row[name]!r}", "a whole number") from None


def read_machines(path: Path) -> list[Machine]:
    """Nodes of Alibaba's cluster-trace-gpu-v2023: sn, cpu_milli, memory_mib, gpu, model."""
    found = []
    for row in _rows(path, "sn", "cpu_milli", "memory_mib", "gpu", "model"):
        cpu, memory, gpus = (_figure(row, name, path) for name in ("cpu_milli", "memory_mib", "gpu"))
        resources = {"cpu": cpu, "memory": memory * MIB} | ({"gpu": gpus * 1000} if gpus else {})
        found.append(Machine(row["sn"], resources, row["model"]))
    return sorted(found, key=lambda machine: machine.name)


def read_requests(path: Path) -> list[Request]:
    """Pods of the same: cpu_milli, memory_mib, num_gpu of gpu_milli each, and gpu_spec in some lists."""
    found = []
    for row in _rows(path, "cpu_milli", "memory_mib", "num_gpu", "gpu_milli"):
        cpu, memory, gpus, each = (_figure(row, n, path) for n in ("cpu_milli", "memory_mib", "num_gpu", "gpu_milli"))
        resources = {name: amount for name, amount in (("cpu", cpu), ("memory", memory * MIB)) if amount}
        if gpus:
            resources["gpu"] = gpus * each
        found.append(Request(resources, row.get("gpu_spec") or ""))
    return found


def arrivals(requests: list[Request], total: int, factor: float, seed: int) -> list[Request]:
    """As many as ask for ``factor`` times all GPUs: drawn again at random, or some left out, and shuffled."""
    chance = random.Random(seed)  # noqa: S311 - an experiment that can be repeated
    chosen = list(requests)
    asked = sum(r.resources.get("gpu", 0) for r in chosen)
    while asked < factor * total:
        chosen.append(chance.choice(requests))
        asked += chosen[-1].resources.get("gpu", 0)
    while chosen and asked - chosen[-1].resources.get("gpu", 0) >= factor * total:
        asked -= chosen.pop(chance.randrange(len(chosen))).resources.get("gpu", 0)
    chance.shuffle(chosen)
    return chosen


class Filling:
    """One cluster being filled."""

    def __init__(self, machines: list[Machine], usual: list[Request], policy: Policy) -> None:
        self.cluster, self.policy = Cluster(1, 1), policy
        adopt(self.cluster, policy)
        turn = Turn(self.cluster, 0.0, "filling")
        for machine in machines:
            labels = {GPU_TYPE: machine.gpu_type} if machine.gpu_type else {}
            hello = Hello(
                version=1,
                software="",
                name=machine.name,
                node=None,
                boot_id="b",
                resources=machine.resources,
                labels=labels,
            )
            handle(turn, NodeConnected("filling", machine.name, hello))
        shapes: dict[Shape, int] = {}
        for request in usual:
            shape = shape_of(request.resources, _constraints(request))
            shapes[shape] = shapes.get(shape, 0) + 1
        self.cluster.shapes = shapes
        self.cluster.fragmentation, self.cluster.shapes_new = Fragmentation(shapes), float("-inf")
        self.total = sum(machine.resources.get("gpu", 0) for machine in machines)

    def fill(self, requests: list[Request]) -> Filled:
        asked = given = placed = 0
        at_100: int | None = None
        for ident, request in enumerate(requests, start=1):
            gpu = request.resources.get("gpu", 0)
            asked += gpu
            if self._try(ident, request):
                given, placed = given + gpu, placed + 1
            if at_100 is None and asked >= self.total:
                at_100 = given
        share = 100 / self.total
        return Filled(
            (given if at_100 is None else at_100) * share,
            given * share,
            (self.total - given) / 1000,
            len(requests),
            placed,
        )

    def queue(self, turn: Turn, first: int, requests: list[Request]) -> None:
        """They wait, numbered from ``first`` on."""
        tasks = []
        for ident, request in enumerate(requests, start=first):
            spec = TaskSpec(name="t", command=("true",), resources=request.resources, constraints=_constraints(request))
            tasks.append(Task(id=ident, uuid="", project="p", user="u", spec=spec, submitted_at=float(ident)))
        handle(turn, TasksTaken("filling", tasks))

    def _try(self, ident: int, request: Request) -> bool:
        turn = Turn(self.cluster, ident / 1000, "filling")
        self.queue(turn, ident, [request])
        plan = place(turn, self.policy)
        if not plan.decisions:
            handle(
                turn,
                CommandsTaken(
                    "filling", [Command(id=ident, at=0.0, body=NewCommand(verb="cancel", user="u", task=ident))]
                ),
            )
        turn.finish()
        return bool(plan.decisions)


def _constraints(request: Request) -> tuple[Constraint, ...]:
    return (Constraint(GPU_TYPE, "=", request.types),) if request.types else ()


def fill(trace: Path, machines: Path, policy: Policy, factor: float, seeds: range) -> list[Filled]:
    """One filling for each seed of the orders of nodes and of arrival."""
    nodes, requests = read_machines(machines), read_requests(trace)
    total = sum(machine.resources.get("gpu", 0) for machine in nodes)
    if not total or not any(request.resources.get("gpu") for request in requests):
        raise InvalidValue("trace", str(trace), "requests for GPUs, and machines that have some")
    return [
        Filling(shuffled(nodes, seed), requests, policy).fill(arrivals(requests, total, factor, seed)) for seed in seeds
    ]


def shuffled(machines: list[Machine], seed: int) -> list[Machine]:
    """By chance of their own: else few nodes and as few requests would always be shuffled alike."""
    return random.Random(f"nodes {seed}").sample(machines, len(machines))  # noqa: S311 - an experiment that can be repeated
