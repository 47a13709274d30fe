"""Every metric, by the names of the brief; read from the state at each scrape, counted from the event feed."""

import re
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import accumulate

from prometheus_client import CollectorRegistry, Counter
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from jarvis.core.event import Event
from jarvis.core.node import NodeState
from jarvis.core.parked import queue_of
from jarvis.core.states import TERMINAL
from jarvis.scheduler.scheduler import Scheduler

_BUCKETS = (0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10, 60, 300, 1800, 3600, 14400, 86400)
_FIGURE = re.compile(r"(cpu|memory|disk|net|load|gpu)[a-z0-9_]{1,24}\Z")
_TERMINAL = frozenset(str(s) for s in TERMINAL)


_DECIDED = re.compile(
    r"(?:# (?:HELP|TYPE) )?jarvis_(?:scheduler_queue_length|scheduler_near_|worker_|resource_utilization_ratio|state_sync_seconds)"
)


def decided(text: str) -> str:
    """Of the figures of a process that decides, as Prometheus reads them, those that nobody else has."""
    return "".join(line for line in text.splitlines(keepends=True) if _DECIDED.match(line))


class Durations(Collector):
    """A histogram of seconds for one thread: nothing is locked, which counts when it is told of each task."""

    def __init__(self, name: str, documentation: str, registry: CollectorRegistry) -> None:
        self._name, self._documentation = name, documentation
        self._counts, self._sum = [0] * (len(_BUCKETS) + 1), 0.0
        registry.register(self)

    def observe(self, seconds: float) -> None:
        self._counts[bisect_left(_BUCKETS, seconds)] += 1
        self._sum += seconds

    def collect(self) -> Iterable[Metric]:
        upper = [*(str(float(bound)) for bound in _BUCKETS), "+Inf"]
        buckets = list(zip(upper, accumulate(self._counts), strict=True))
        yield HistogramMetricFamily(self._name, self._documentation, buckets=buckets, sum_value=self._sum)


class MetricsCollector(Collector):
    """Registers itself; ``observe`` is given each published batch of events."""

    def __init__(self, registry: CollectorRegistry, scheduler: Scheduler, decides: bool = True) -> None:
        """``decides``: whether this process may lead; else what only a leader can tell is left out."""
        self._scheduler = scheduler
        self._submitted = Counter("jarvis_task_submitted", "Tasks accepted.", registry=registry)
        self._finished = Counter("jarvis_task_finished", "Elements ended.", ["state"], registry=registry)
        self._execution = Durations("jarvis_task_execution_seconds", "Start to end.", registry)
        self._placement = Durations("jarvis_scheduler_placement_seconds", "Queued to placed.", registry)
        if decides:
            sync = Durations("jarvis_state_sync_seconds", "Committed to known by the leader.", registry)
            scheduler.on_synced = sync.observe
        self._queued_at: dict[tuple[int, int], float] = {}
        self._started_at: dict[tuple[int, int], float] = {}
        if decides:
            registry.register(self)

    def accepted(self, count: int) -> None:
        """So many tasks were acknowledged."""
        self._submitted.inc(count)

    def observe(self, events: Sequence[Event]) -> None:
        """Follow the elements through their events; what is remembered is bounded by what is live."""
        ended: dict[str, int] = {}
        queued, started = self._queued_at, self._started_at
        for event in events:
            kind, at = event.kind, (event.task, event.index)
            if kind == "queued":
                queued[at] = event.at
            elif kind == "assigned":
                since = queued.pop(at, None)
                if since is not None:
                    self._placement.observe(event.at - since)
                started[at] = event.at
            elif kind == "running":
                started[at] = event.at
            elif kind in _TERMINAL:
                ended[kind] = ended.get(kind, 0) + 1
                queued.pop(at, None)
                since = started.pop(at, None)
                if since is not None:
                    self._execution.observe(event.at - since)
        for kind, count in ended.items():
            self._finished.labels(kind).inc(count)

    def collect(self) -> Iterable[Metric]:
        cluster = self._scheduler.cluster
        queue = GaugeMetricFamily(
            "jarvis_scheduler_queue_length", "Live tasks by queue and state.", labels=["queue", "state"]
        )
        counts: dict[tuple[str, str], int] = {}
        for task in list(cluster.tasks.values()):
            for state, number in (task.counts or {task.state: 1}).items():
                at = (queue_of(task), str(state))
                counts[at] = counts.get(at, 0) + number
        for (name, state_name), number in sorted(counts.items()):
            queue.add_metric([name, state_name], number)
        yield queue
        near, spared = "jarvis_scheduler_near_placements", "jarvis_scheduler_near_bytes"
        yield CounterMetricFamily(near, "Placed where something needed was already.", cluster.holders.placed)
        yield CounterMetricFamily(spared, "Bytes of that, which were not fetched.", cluster.holders.spared)
        yield from self._nodes()

    def _nodes(self) -> Iterable[Metric]:
        cpu = GaugeMetricFamily("jarvis_worker_cpu_usage_ratio", "CPU in use.", labels=["node"])
        memory = GaugeMetricFamily("jarvis_worker_memory_usage_bytes", "Memory in use.", labels=["node"])
        available = GaugeMetricFamily("jarvis_worker_available", "1 when it takes work.", labels=["node"])
        figures: dict[str, list[tuple[str, float]]] = {}
        used: dict[str, int] = {}
        total: dict[str, int] = {}
        for view in list(self._scheduler.cluster.nodes.values()):
            name = [view.node.name]
            cpu.add_metric(name, view.node.health.get("cpu_ratio", 0.0))
            memory.add_metric(name, view.node.health.get("memory_used", 0.0))
            up = view.session is not None and view.node.state is NodeState.READY
            available.add_metric(name, float(up))
            for figure, value in view.node.health.items():
                if _FIGURE.match(figure):  # a node may say anything
                    figures.setdefault(figure, []).append((view.node.name, value))
            for resource, amount in view.node.resources.items():
                total[resource] = total.get(resource, 0) + amount
                used[resource] = used.get(resource, 0) + view.used.get(resource, 0)
        ratio = GaugeMetricFamily("jarvis_resource_utilization_ratio", "Placed of what there is.", labels=["resource"])
        for resource, amount in sorted(total.items()):
            ratio.add_metric([resource], used[resource] / amount if amount else 0.0)
        yield from (cpu, memory, available, ratio)
        for figure, values in sorted(figures.items()):
            family = GaugeMetricFamily(f"jarvis_worker_{figure}", "As the node's heartbeat says.", labels=["node"])
            for node, value in values:
                family.add_metric([node], value)
            yield family
