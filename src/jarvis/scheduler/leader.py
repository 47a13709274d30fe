"""SHELL: who leads, as this server knows it; and where it may, this server itself, again and again."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress

from jarvis.core.errors import LeadershipHeld, StaleEpoch, StoreUnavailable
from jarvis.scheduler.scheduler import Scheduler
from jarvis.state.coordination import Leader, Leadership

log = logging.getLogger("jarvis.leader")

WATCH_S = 0.5
"""How often a standby looks whether it may lead, unless it knows a better instant or is told."""
DEFECT_S, DEFECT_MOST_S = 5.0, 60.0
"""After a defect ended its lead, and before it stands for the lead again: at first, and at most, as it is doubled each time."""
SOUND_S = 60.0
"""Who led for so long before a defect waits as after the first."""
LEAST_S = 0.05
"""Between two looks, whatever it is told."""


class Election:
    """Lets its scheduler lead whenever nobody else does, unless it only looks who leads (``may_lead`` is false).

    ``leader`` is who leads as far as is known, ``leads`` is true while it is this server; ``on_change`` hears when either is
    another, ``tell`` when others had better look, because this server has begun to lead, or leads no more.
    """

    def __init__(
        self, scheduler: Scheduler, on_change: Callable[[Leader], None] = lambda leader: None,
        tell: Callable[[], None] = lambda: None, *, may_lead: bool = True,
    ) -> None:  # fmt: skip
        self._scheduler, self._on_change, self._may_lead = scheduler, on_change, may_lead
        self._tell = tell
        self.leader: Leader | None = None
        self.leads = False
        self.known = asyncio.Event()
        """Set once there is a leader that this server knows."""
        self._stopping = False
        self._woken = asyncio.Event()

    async def run(self) -> None:
        """Until stopped. Where no lease keeps others out, a leader that was superseded does not try again. After a defect it begins
        anew, with what the store holds: whatever was not committed is said to it again."""
        now, pause = asyncio.get_running_loop().time, DEFECT_S
        while not self._stopping:
            patience, begun = WATCH_S, now()
            self._woken.clear()
            try:
                if not self._may_lead:
                    await self.look()
                else:
                    await self._lead()
                    if not self._scheduler.lease_s:
                        return
            except LeadershipHeld as held:
                patience = min([WATCH_S, *(s for s in (held.left_s, held.early_s) if s > LEAST_S)])
                await self.look()
            except StaleEpoch:
                await self.look()
            except StoreUnavailable as error:
                self._scheduler.heartbeat.last_error = str(error)
                log.warning("the store is away: %s", error)
            except Exception as error:
                patience = DEFECT_S if now() - begun > SOUND_S else pause
                pause = min(2 * patience, DEFECT_MOST_S)
                log.exception("this server leads no more, because of a defect; it may again in %.0f s", patience)
                self._scheduler.give_up(error)
            await self._wait(patience)

    async def _wait(self, patience: float) -> None:
        least = asyncio.get_running_loop().time() + LEAST_S
        with suppress(TimeoutError):
            async with asyncio.timeout(patience):
                await self._woken.wait()
        if not self._stopping:
            await asyncio.sleep(max(least - asyncio.get_running_loop().time(), 0.0))

    def wake(self) -> None:
        """It may be worth a look: somebody says that there is another leader, or none."""
        self._woken.set()

    def stop(self) -> None:
        self._stopping = True
        self._woken.set()
        self._scheduler.stop()

    async def _lead(self) -> None:
        scheduler = self._scheduler
        try:
            await scheduler.start(self._acquired)
            await scheduler.run()
        finally:
            if self.leads:  # if only for a moment: then it must not keep others from leading
                self.leads = False
                if self.leader is not None:
                    self._on_change(self.leader)
                await scheduler.resign()
                self._tell()

    def _acquired(self, leadership: Leadership) -> None:
        """Before the store is read: what nodes and servers say to the new leader from now on waits for it."""
        log.info("this server leads under epoch %d", leadership.epoch)
        self.leads = True
        self._heard_of(Leader(self._scheduler.holder, leadership, self._scheduler.lease_s))
        self._tell()

    @property
    def standby(self) -> bool:
        """Another server leads."""
        return not self.leads and self.leader is not None and self.leader.holder != self._scheduler.holder

    async def look(self) -> None:
        """Who leads, and which nodes there are by now; a leader knows already."""
        if self.leads:
            return
        with suppress(StoreUnavailable):
            leader = await self._scheduler.store.leader_get()
            cluster = await self._scheduler.seen_from_aside(leader.leadership)
            if not self.leads:
                self._scheduler.cluster = cluster
                self._heard_of(leader)

    def _heard_of(self, leader: Leader) -> None:
        before, self.leader = self.leader, leader
        self.known.set()
        if before is None or before.leadership != leader.leadership:
            self._on_change(leader)
