"""SHELL: looks for files that schedules wait for, on the machine of the leader, and lets nodes look on theirs.

A file counts when two looks find it the same, so that it is not taken half written. Which of them make runs is decided in the
leader's turn, which knows the ones that did already. So a node has nothing to remember: what it told nobody is there at the
next look.
"""

import asyncio
from collections.abc import Callable, Sequence

from jarvis.bus.bus import Bus
from jarvis.core.effects import Look, ToNode
from jarvis.core.inputs import FilesSeen
from jarvis.core.schedule import OnFile, Stamp
from jarvis.scheduler.cluster import Cluster
from jarvis.scheduler.schedules import Schedules
from jarvis.utils.directory_listing import listed

LOOK_S = 1.0


class Arrivals:
    """Runs beside a scheduler and looks while that one leads."""

    def __init__(
        self, schedules: Schedules, bus: Bus, allowed: Sequence[str], leads: Callable[[], bool],
        cluster: Callable[[], Cluster],
    ) -> None:  # fmt: skip
        self._schedules, self._bus, self._allowed, self._leads, self._cluster = schedules, bus, allowed, leads, cluster
        self._before: dict[int, dict[str, Stamp]] = {}

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(LOOK_S)
            if self._leads():
                await self.look()
            else:
                self._before.clear()

    async def look(self) -> None:
        """Once into each directory."""
        known = self._schedules.known
        waiting = {s.id: s.rule.on for s in known.values() if isinstance(s.rule.on, OnFile) and not s.paused}
        self._before = {ident: found for ident, found in self._before.items() if ident in waiting}
        for ident, on in waiting.items():
            try:
                if on.node:
                    self._ask(ident, on)
                else:
                    self._compare(
                        ident, await asyncio.to_thread(listed, on.directory, on.pattern, self._allowed, "server.watch")
                    )
            except OSError as error:
                self._tell(ident, frozenset(), {}, str(error))

    def _ask(self, ident: int, on: OnFile) -> None:
        """Raises OSError when there is nobody who could look."""
        cluster = self._cluster()
        view = cluster.nodes.get(cluster.node_names.get(on.node, 0))
        if view is None or view.session is None:
            raise OSError(f"node {on.node} is not connected" if view else f"there is no node {on.node} any more")
        look = Look(
            schedule=ident, directory=on.directory, pattern=on.pattern, seen=self._schedules.marks.get(ident, "")
        )
        self._bus.dispatch([ToNode(view.node.id, look, f"files-{ident}")])

    def _compare(self, ident: int, found: dict[str, Stamp]) -> None:
        before, self._before[ident] = self._before.get(ident, {}), found
        self._tell(ident, frozenset(found), {name: stamp for name, stamp in found.items() if before.get(name) == stamp})

    def _tell(self, ident: int, present: frozenset[str], settled: dict[str, Stamp], problem: str = "") -> None:
        """The leader's turn, if it would not say that it knows."""
        schedule = self._schedules.known.get(ident)
        if schedule is None:
            return
        if schedule.problem != problem or any(schedule.files.get(name) != stamp for name, stamp in settled.items()):
            self._bus.offer(FilesSeen(f"files-{ident}", ident, present, settled, problem=problem))
