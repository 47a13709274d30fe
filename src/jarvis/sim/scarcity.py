"""Worlds in which things are scarce: licences, booked nodes, tasks that keep apart or together, room for files; and what must hold
in them."""

import asyncio
from collections.abc import Callable, Mapping
from hashlib import sha256
from random import Random
from typing import TYPE_CHECKING

import msgspec

from jarvis.core.attempt import Attempt
from jarvis.core.booking import Booking
from jarvis.core.changes import Changes
from jarvis.core.command import NewCommand
from jarvis.core.errors import StoreUnavailable
from jarvis.core.manifest import Manifest, encode
from jarvis.core.task import Affinity, Task, TaskSpec
from jarvis.scheduler.bookings import booking_args

if TYPE_CHECKING:
    from jarvis.sim.world import World

LICENSES = {"seat": 3, "dongle": 1}
MANIFESTS = [encode(Manifest(left_out=(f"files {number}",))) for number in range(4)]
FILES = {
    sha256(data).hexdigest(): size for data, size in zip(MANIFESTS, (1 << 30, 1 << 30, 4 << 30, 1 << 26), strict=True)
}
"""Pushed sets of files, each with the bytes that it stands for."""
UNLIMITED_S = 3600.0
"""What names no limit is expected to take so long; said here once more, because a judge asks nobody else."""


def scarce(spec: TaskSpec, random: Random) -> TaskSpec:
    """As it was drawn, and asking for what there is little of."""
    licenses = {name: random.randint(1, most) for name, most in LICENSES.items() if random.random() < 0.25}
    keys: tuple[str, ...] = ()
    affinities: tuple[Affinity, ...] = ()
    if random.random() < 0.15:
        affinities = (Affinity("apart", "a", "", random.choice((0, 0, 20))),)
    elif random.random() < 0.1:
        keys, affinities = ("t",), (Affinity("near", "t", "", random.choice((0, 20))),)
    limit = random.uniform(5.0, 20.0) if spec.time_limit is None and random.random() < 0.5 else spec.time_limit
    push = tuple(random.sample(sorted(FILES), random.choice((0, 0, 1, 1, 2))))
    return msgspec.structs.replace(
        spec, licenses=licenses, keys=keys, affinities=affinities, time_limit=limit, push=push
    )


async def book(world: "World", random: Random, count: int) -> None:
    """Somebody plans maintenance and reservations, for a little while each."""
    for _ in range(count):
        await asyncio.sleep(random.expovariate(0.3))
        begin = world.database_now() + random.uniform(0.0, 10.0)
        names = [node.name for node in world.nodes]
        booking = Booking(
            id=0, nodes=tuple(random.sample(names, min(random.randint(1, 2), len(names)))), begin=begin,
            end=begin + random.uniform(0.5, 15.0), project=random.choice(("", "p", "q")),
        )  # fmt: skip
        args = booking_args(booking)
        command = NewCommand(verb="booking_add", user="admin", admin=True, project=booking.project, args=args)
        try:
            await world.ask(lambda manager, command=command: manager.command([command]))  # type: ignore[misc]
        except (ConnectionError, StoreUnavailable):
            continue


class Scarcity:
    """What is in use by what was committed, and whether that may be."""

    def __init__(self, require: Callable[[bool, str], None]) -> None:
        self._require = require
        self.most: dict[str, int] = {}
        self.bookings = self.kept_apart = 0
        self.near = 0
        """Attempts that went where files that they need were already, as the last leader counted them."""
        self._used: dict[str, int] = {}
        self._booked: dict[int, Booking] = {}
        self._live: dict[tuple[int, int, int], tuple[TaskSpec, frozenset[int]]] = {}

    def committed(self, changes: Changes) -> None:
        """Before the attempts of the same commit are made: commands come first in a turn."""
        for ident, booking in changes.bookings.items():
            if booking is None:
                del self._booked[ident]
            else:
                self.bookings += ident not in self._booked
                self._booked[ident] = booking

    def made(self, attempt: Attempt, task: Task, nodes: list[str]) -> None:
        spec = task.spec
        for name, count in spec.licenses.items():
            self._used[name] = used = self._used.get(name, 0) + count
            self.most[name] = max(self.most.get(name, 0), used)
            self._require(used <= LICENSES[name], f"{used} {name} are in use, of {LICENSES[name]}")
        self._check_apart(attempt, spec)
        ends = attempt.assigned_at + (UNLIMITED_S if spec.time_limit is None else spec.time_limit)
        for booking in self._booked.values():
            foreign = set(nodes) & set(booking.nodes) and not booking.admits(task.project, task.user)
            free = booking.end <= attempt.assigned_at or booking.begin >= ends
            self._require(not foreign or free, f"task {task.id} is assigned to {nodes}, which is booked: {booking}")
        self._live[attempt.task, attempt.index, attempt.attempt] = spec, frozenset(attempt.nodes)

    def _check_apart(self, attempt: Attempt, spec: TaskSpec) -> None:
        mine = {a.key for a in spec.affinities if a.kind == "apart"}
        must = {a.key for a in spec.affinities if a.kind == "apart" and not a.weight}
        for other, nodes in self._live.values() if mine else ():
            theirs = {a.key for a in other.affinities if a.kind == "apart"}
            their_must = {a.key for a in other.affinities if a.kind == "apart" and not a.weight}
            clash = nodes & set(attempt.nodes) and (must & theirs or mine & their_must)
            self._require(not clash, f"task {attempt.task} is on nodes {set(nodes)} with one that it is apart from")
        self.kept_apart += bool(must)

    def ended(self, attempt: Attempt) -> None:
        spec, _ = self._live.pop((attempt.task, attempt.index, attempt.attempt))
        for name, count in spec.licenses.items():
            self._used[name] -= count

    def figures(self) -> Mapping[str, int]:
        return {**self.most, "bookings": self.bookings, "kept apart": self.kept_apart, "near": self.near}
