"""What seldom happens made frequent: sizes and times of the product that some seeds set so that its rare branches are taken often.

Pages of one row, queues that are full at once, batches of one, memories that forget. The product has no code for it: its
constants are set from here, and set back. (The idea is that of FoundationDB's ``BUGGIFY``: Zhou et al., SIGMOD 2021.)
"""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from random import Random
from typing import NamedTuple

EVERY, AT = 4, 3
"""In one seed of so many."""
SHARE = 0.3
"""Of the knobs that such a seed turns."""


class Knob(NamedTuple):
    """A constant of a module, and what it may be instead."""

    module: str
    name: str
    values: tuple[float, ...]


KNOBS = (
    Knob("jarvis.scheduler.scheduler", "PAGE", (1, 2, 17)),
    Knob("jarvis.scheduler.scheduler", "STARTED_S", (0.0, 5.0)),
    Knob("jarvis.scheduler.scheduler", "POLL_S", (0.05, 10.0)),
    Knob("jarvis.scheduler.reactor", "REBUILT_AT_ONCE", (1, 3)),
    Knob("jarvis.scheduler.cycle", "AHEAD_MOST", (1, 4)),
    Knob("jarvis.scheduler.choice", "PULL", (1,)),
    Knob("jarvis.scheduler.choice", "LOOK", (1,)),
    Knob("jarvis.scheduler.pools", "LOG_SPARE", (0,)),
    Knob("jarvis.scheduler.pools", "POOLS_MOST", (1,)),
    Knob("jarvis.scheduler.cluster", "FORETOLD_MOST", (1,)),
    Knob("jarvis.scheduler.leader", "WATCH_S", (0.05, 3.0)),
    Knob("jarvis.bus.buses.cluster", "ENTRY_ITEMS", (1, 2)),
    Knob("jarvis.bus.buses.cluster", "OUT_LIMIT", (4, 16)),
    Knob("jarvis.bus.buses.memory", "INBOX_LIMIT", (4, 16)),
    Knob("jarvis.bus.buses.memory", "WATCHER_LIMIT", (1,)),
    Knob("jarvis.api.gateway", "PAGE", (1, 2)),
    Knob("jarvis.api.gateway", "RESCAN_S", (0.0,)),
    Knob("jarvis.api.gateway", "UNACKED_LIMIT", (1, 3)),
    Knob("jarvis.api.gateway", "BEGIN_ANEW_S", (0.0, 5.0)),
    Knob("jarvis.api.session", "OUT_LIMIT", (8, 32)),
    Knob("jarvis.worker.session", "FRAME_MESSAGES", (1, 2)),
    Knob("jarvis.worker.session", "OUTBOX_LIMIT", (8, 32)),
    Knob("jarvis.worker.session", "CONNECT_S", (1.0,)),
    Knob("jarvis.worker.session", "SHORT_LIVES", (0, 12)),
    Knob("jarvis.worker.machine", "LOOK_PAST", (1,)),
    Knob("jarvis.worker.machine", "MAY_PASS", (0, 1)),
    Knob("jarvis.scheduler.cluster", "PARKED_FROM", (0, 5)),
    Knob("jarvis.scheduler.near", "FEW", (0, 1)),
    Knob("jarvis.scheduler.near", "PARTS_MOST", (1,)),
    Knob("jarvis.scheduler.pools", "PARTS_MOST", (1,)),
)


@contextmanager
def turned(seed: int) -> Iterator[list[str]]:
    """The seed's knobs are turned as long as this lasts; which ones, and to what."""
    random = Random(f"{seed}/knobs")  # noqa: S311 - to be repeated, not to be secret
    before, told = [], []
    try:
        for module, name, values in KNOBS if seed % EVERY == AT else ():
            if random.random() < SHARE:
                held = import_module(module)
                before.append((held, name, getattr(held, name)))
                setattr(held, name, random.choice(values))
                told.append(f"{module}.{name}={getattr(held, name)}")
        yield told
    finally:
        for held, name, value in before:
            setattr(held, name, value)
