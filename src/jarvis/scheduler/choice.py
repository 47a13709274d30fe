"""PURE: where an element goes: the best node of its class's pool as it stands at this point of the cycle, and reservations.

Overlays hold what the cycle has placed so far; the cluster itself is not changed.
"""

from bisect import bisect_right
from heapq import heappop, heappush, heapreplace
from itertools import islice

from jarvis.core.gpus import Room, pick, without
from jarvis.core.ids import ElementKey
from jarvis.core.resources import Resources
from jarvis.core.task import Task
from jarvis.scheduler.cluster import Cluster, NodeView
from jarvis.scheduler.load_balancer import EXACT, IMPROVES, OF_STATE, OF_USE, SCORES, Candidate, share_of
from jarvis.scheduler.near import Near
from jarvis.scheduler.outlook import Changed, Outlook, Starts, soonest, when
from jarvis.scheduler.policy.affinity import STEP, STEP_OF_RANDOM, Around
from jarvis.scheduler.policy.backfill import NEVER, Horizon
from jarvis.scheduler.policy.bookings import MARGIN_S, booked, in_the_way
from jarvis.scheduler.policy.fragmentation import GPU_TYPE, Standing
from jarvis.scheduler.policy.gangs import best_nodes, earliest_together
from jarvis.scheduler.pools import ANYTHING, Limits, Pool, Search
from jarvis.scheduler.refusals import Refusals
from jarvis.scheduler.task_queue import PlacementClass

Owner = tuple[str, str]
"""Project and user."""
LOOK = 4
"""Nodes whose score is found to have changed, before the best of them is taken."""
AT_ONCE = 8
"""Nodes with the least in use, looked at before all of them are searched."""
PULL = 64
"""Nodes that changed, looked at before each choice."""
RESERVE_NODES = 512
"""Nodes asked for their earliest start of what does not fit anywhere."""
EVERYTHING = 1 << 60


class Choice:
    """Chooses nodes for one cycle."""

    def __init__(self, cluster: Cluster, now: float, seed: int, limits: Limits) -> None:
        self.cluster, self.nodes, self.pools = cluster, cluster.nodes, cluster.pools
        self.now, self.seed = now, seed
        self.ahead_seconds, self.ahead_most, self.extra, _ = limits
        self.used: dict[int, Resources] = {}
        self.ahead: dict[tuple[int, PlacementClass], int] = {}
        self.allowed: dict[tuple[int, PlacementClass], int] = {}
        self.gpus: dict[int, Room] = {}
        self.scores: dict[int, float] = {}
        """What the balancers that look at use alone say of a node that this cycle has not changed since."""
        self.standings: dict[int, Standing] = {}
        """How nodes that this cycle has not changed since stand for balancers that look at GPUs."""
        self.moved: list[int] = []
        """The nodes that the cycle used, in order."""
        self.turns: dict[int, int] = {}
        self.same_task: dict[tuple[int, int], int] = {}
        self.spread: dict[tuple[PlacementClass, int], Pool] = {}
        self.horizons: dict[int, Horizon] = {}
        """Of nodes on which something is reserved or kept."""
        self.placed: dict[int, list[tuple[float, Resources]]] = {}
        self.outlook = cluster.outlook or Outlook(cluster.nodes, now)
        self.changed = Changed(self.outlook, self.used, self.placed, self.horizons)
        self.kept: dict[int, list[Resources]] = {}
        """Node → what is kept there for what others were stopped for."""
        self.too_long = False
        """The last choice failed only because every node with room keeps it for a reservation."""
        self._refused: dict[PlacementClass, float] = {}
        self._full = Refusals(cluster, limits.ahead_seconds)
        self.booked = booked(cluster.bookings, cluster.node_names, now) if cluster.bookings else {}
        self.around = Around(cluster.carriers, cluster.nodes)
        self.near = Near(cluster.holders, limits.locality)

    # ------------------------------------------------------------ pools

    def pool(self, placement_class: PlacementClass, balancer: str) -> Pool:
        if self.cluster.outlook is not None and self.moved:
            self.pools.is_untouched = False
        return self.pools.pool(placement_class, balancer, self.nodes, self.score, self.cluster.carriers.version)

    def may_find(self, pool: Pool) -> bool:
        """Whether some node has room for the class, or may be given work ahead."""
        if not pool.is_open:
            return False
        return pool.balancer == "spread" or self.best(pool, ANYTHING) is not None

    def _spread_pool(self, pool: Pool, task: int) -> Pool:
        at = (pool.placement_class, task)
        own = self.spread.get(at)
        if own is None:
            own = self.spread[at] = Pool(pool.placement_class, pool.balancer, pool.group, self.pools.log)
            own.order = sorted((self.score(own, node, task, 0), node) for node in pool.group.members)
            own.cursor = len(self.pools.log)
        return own

    # ------------------------------------------------------------ the best node

    def choose(self, pool: Pool, task: Task, until: float, latest: float = NEVER) -> tuple[int, bool] | None:
        """The best node with room, and whether it is assigned ahead of room there; None when there is none. ``until``: when it is
        expected to end; ``latest``: when its limit ends it."""
        self.too_long = False
        refused = self._refused.get(pool.placement_class)
        if refused is not None and until >= refused:
            self.too_long = True
            return None
        if pool.balancer == "spread":
            pool = self._spread_pool(pool, task.id)
        search = Search(task.id, until, False, [], (task.project, task.user), latest)
        found = self.best(pool, search)
        if found is not None and self.near.any_holds:
            found = self.near.better(self, pool, task, found, search)
        if self.too_long and not self.booked:  # bookings depend on who asks
            self._refused[pool.placement_class] = min(until, self._refused.get(pool.placement_class, NEVER))
        return found

    def choose_gang(self, pool: Pool, task: Task, until: float, latest: float) -> tuple[int, ...] | None:
        """The best nodes with room now, one for each rank; None when there are not enough. Nothing is assigned ahead."""
        self.too_long = False
        refused = self._refused.get(pool.placement_class)
        if refused is not None and until >= refused:
            self.too_long = True
            return None
        owner = task.project, task.user
        room = [node for node in pool.group.members if self._fits_now(self.nodes[node], pool)]
        free = [node for node in room if not self._is_spoken_for(node, pool.need, until, latest, owner)]
        nodes = best_nodes(free, pool.nodes, self.near.score_of(self, pool, task))
        self.too_long = nodes is None and len(room) >= pool.nodes
        if self.too_long and not self.booked:
            self._refused[pool.placement_class] = min(until, self._refused.get(pool.placement_class, NEVER))
        return nodes

    def takes(self, pool: Pool, task: Task, nodes: tuple[int, ...], until: float, latest: float) -> bool:
        """Whether it may begin now on just these nodes, one rank on each."""
        if len(nodes) != pool.nodes or not pool.group.members.issuperset(nodes):
            return False
        owner = task.project, task.user
        return all(
            self._fits_now(self.nodes[node], pool) and not self._is_spoken_for(node, pool.need, until, latest, owner)
            for node in nodes
        )

    def _fits_now(self, view: NodeView, pool: Pool) -> bool:
        used, capacity = self.used.get(view.node.id) or view.used, view.node.resources
        if view.ahead or any(used.get(name, 0) + amount > capacity.get(name, 0) for name, amount in pool.need.items()):
            return False
        if not self.suits(pool, view.node.id):
            return False
        return not pool.gpu or pick(self.gpus_of(view.node.id), pool.gpu) is not None

    def _is_spoken_for(self, node: int, need: Resources, until: float, latest: float, owner: Owner) -> bool:
        if node in self.booked and self._runs_into(node, owner, latest):
            return True
        return node in self.horizons and not self._leaves_reserved(node, need, until)

    def best(self, pool: Pool, search: Search) -> tuple[int, bool] | None:
        """The best node, and whether it is assigned ahead of room there."""
        where = self._full.where(pool)
        if where is not None:
            return self._among(where, pool, search)
        if pool.is_plain:
            found = self._at_once(pool, search)
            if found is not None:
                return found
        exact = pool.wishes or pool.balancer in EXACT
        while True:
            self._catch_up(pool, search.task, EVERYTHING if exact else PULL)
            found = self._first(pool, search, EVERYTHING if exact else LOOK)
            if found is not None or pool.cursor >= len(self.pools.log):
                break
        for entry in search.aside:
            heappush(pool.heap, entry)
        if found is None:
            self._full.note(pool, is_first=not self.moved, kept=[node for _, node in search.aside])
        self.too_long = found is None and bool(search.aside)
        return found

    def _among(self, nodes: tuple[int, ...], pool: Pool, search: Search) -> tuple[int, bool] | None:
        """The best of these; there is room nowhere else."""
        room = [node for node in nodes if self._room(self.nodes[node], pool) is False]
        free = [node for node in room if search.peek or not self._is_kept(pool, search, node, ahead=False)]
        self.too_long = bool(room) and not free
        if not room:
            pool.close()
        return (min(free, key=lambda node: (self.score(pool, node, search.task), node)), False) if free else None

    def _at_once(self, pool: Pool, search: Search) -> tuple[int, bool] | None:
        """The best node with room for now, if it is among the first of all that suit."""
        members, near = pool.group.members, pool.group.near
        use = self._use if near is None else lambda node: self._use(node) - near[node]
        pool.group.ranking.catch_up(self.moved, self.pools.log, members, use)
        for node in pool.group.ranking.first(AT_ONCE, members, use):
            if self._room(self.nodes[node], pool) is False and not self._is_kept(pool, search, node, ahead=False):
                return node, False
        return None

    def _use(self, node: int) -> float:
        """How much of what it has is in use: the score of plain pools."""
        score = self.scores.get(node)
        if score is None:
            view = self.nodes[node]
            score = self.scores[node] = share_of(self.used.get(node) or view.used, view.node.resources)
        return score

    def _first(self, pool: Pool, search: Search, look: int) -> tuple[int, bool] | None:
        """Down the heap: spent entries and full nodes go, changed ones are put where they belong now."""
        heap, best, members = pool.heap, pool.best, pool.group.members
        seen: tuple[float, int, bool] | None = None
        while True:
            if pool.at < len(pool.order):
                self._draw(pool)
            if not heap:
                return None if seen is None else seen[1:]
            score, node = heap[0]
            if best.get(node) != score:
                heappop(heap)
                continue
            room = self._room(self.nodes[node], pool) if node in members else None
            if room is None:
                heappop(heap)
                del best[node]
                continue
            if search.peek:
                return node, room
            if self._is_kept(pool, search, node, ahead=room):
                search.aside.append(heappop(heap))
                continue
            current = self.score(pool, node, search.task, self.ahead_count(node, pool.placement_class))
            if current <= score:
                return node, room
            best[node] = current
            heapreplace(heap, (current, node))
            if seen is None or current < seen[0]:
                seen = current, node, room
            look -= 1
            if not look:
                return seen[1:]

    def _is_kept(self, pool: Pool, search: Search, node: int, *, ahead: bool) -> bool:
        """Whether its room is spoken for, as far as this search goes."""
        if ahead and node in self.horizons:
            return True
        latest = search.latest + MARGIN_S if ahead else search.latest
        return self._is_spoken_for(node, pool.need, search.until, latest, search.owner)

    def _leaves_reserved(self, node: int, need: Resources, until: float) -> bool:
        horizon = self.horizons[node]
        if not self.extra and until >= horizon.taken_from:
            return False
        return horizon.fits(need, self.now, until)

    def _runs_into(self, node: int, owner: Owner, latest: float) -> bool:
        return in_the_way(self.booked[node], owner, self.now, latest) is not None

    def books_out(self, node: int, task: Task, seconds: float) -> bool:
        """Whether a task would run into a time that is not its own, if it started there now."""
        return node in self.booked and self._runs_into(node, (task.project, task.user), self.now + seconds)

    def _draw(self, pool: Pool) -> None:
        """Take over what the shared order has before the heap."""
        heap, order, best = pool.heap, pool.order, pool.best
        while pool.at < len(order) and (not heap or order[pool.at] < heap[0]):
            entry = order[pool.at]
            pool.at += 1
            node = entry[1]
            if pool.is_plain and (node not in pool.group.members or self._room(self.nodes[node], pool) is None):
                continue
            if node not in best:
                best[node] = entry[0]
                heappush(heap, entry)

    def _catch_up(self, pool: Pool, task: int, most: int) -> None:
        """Take in nodes that changed since this pool last looked."""
        log, last = self.pools.log, self.pools.last
        at, end = pool.cursor, len(log)
        members, best = pool.group.members, pool.best
        while at < end and most:
            node = log[at]
            if last[node] == at and node in members and self._room(self.nodes[node], pool) is not None:
                score = self.score(pool, node, task, self.ahead_count(node, pool.placement_class))
                if best.get(node) != score:
                    best[node] = score
                    heappush(pool.heap, (score, node))
                most -= 1
            at += 1
        pool.cursor = at

    # ------------------------------------------------------------ room and score

    def _room(self, view: NodeView, pool: Pool) -> bool | None:
        """False: fits now; True: may be assigned ahead; None: neither."""
        node = view.node.id
        if pool.affine and self.around.refusal(view, pool.placement_class) is not None:
            return None
        if not view.ahead:
            used = self.used.get(node) or view.used
            capacity = view.node.resources
            for name, amount in pool.need.items():
                if used.get(name, 0) + amount > capacity.get(name, 0):
                    break
            else:
                if not pool.gpu or pick(self.gpus_of(node), pool.gpu) is not None:
                    return False
        if not self.ahead_seconds or view.stuck or not self._full.may_go_ahead(pool.placement_class):
            return None
        allowed = self.ahead_allowed(view, pool.placement_class)
        return True if self.ahead_count(node, pool.placement_class) < allowed else None

    def ahead_count(self, node: int, placement_class: PlacementClass) -> int:
        """So many of the class are ahead of room there, as the cycle stands."""
        if self.ahead:
            count = self.ahead.get((node, placement_class))
            if count is not None:
                return count
        ahead = self.nodes[node].ahead
        return ahead.get(placement_class, 0) if ahead else 0

    def ahead_allowed(self, view: NodeView, placement_class: PlacementClass) -> int:
        """So many of them may be."""
        at = (view.node.id, placement_class)
        allowed = self.allowed.get(at)
        if allowed is None:
            capacity = view.node.resources
            slots = min((capacity.get(n, 0) // a for n, a in placement_class.resources if a), default=1)
            seconds = self.ahead_seconds * max(slots, 1)
            allowed = min(self.ahead_most, int(seconds / max(self.cluster.estimates[placement_class], 1e-6)))
            if not view.node.could_hold(placement_class.need):
                allowed = 0
            self.allowed[at] = allowed
        return allowed

    def score(self, pool: Pool, node: int, task: int = 0, ahead: int = 0) -> float:
        wish = self._wish(pool, node) if pool.is_led and not ahead else 0.0
        balancer = pool.balancer
        if balancer in OF_STATE and not ahead:
            return self._score_of_state(pool, node) - wish
        if ahead or balancer not in OF_USE:
            return SCORES[balancer](self._candidate(pool, node, task, ahead)) - wish
        return (self._use(node) if balancer == "least_loaded" else -self._use(node)) - wish

    def _score_of_state(self, pool: Pool, node: int) -> float:
        """Many nodes are alike, and come back to how they stood: what decides is asked once."""
        standing = self.standings.get(node)
        if standing is None:
            view = self.nodes[node]
            used, has = self.used.get(node) or view.used, view.node.resources
            free = has.get("cpu", 0) - used.get("cpu", 0), has.get("gpu", 0) - used.get("gpu", 0)
            state = free, self.gpus_of(node), view.node.labels.get(GPU_TYPE, "")
            standing = self.standings[node] = self.cluster.fragmentation.standing(state)
        score = standing.scores.get(pool.gpu_shape)
        if score is None:
            score = standing.scores[pool.gpu_shape] = SCORES[pool.balancer](self._candidate(pool, node, 0, 0))
        return score

    def _wish(self, pool: Pool, node: int) -> float:
        """Wishes choose among nodes with room, and let nothing wait behind others."""
        near = 0.0 if pool.group.near is None else pool.group.near[node]
        if not pool.wishes:
            return near
        step = STEP_OF_RANDOM if pool.balancer == "random" else STEP
        return step * self.around.wished(self.nodes[node], pool.placement_class) + near

    def _candidate(self, pool: Pool, node: int, task: int, ahead: int) -> Candidate:
        view = self.nodes[node]
        turn = self.turns.get(node, 0) + (view.node.next_number if pool.balancer == "round_robin" else 0)
        same = self.same_task.get((node, task), 0)
        used = self.used.get(node) or view.used
        if pool.balancer not in EXACT:
            return Candidate(node, view.node.resources, used, ahead, same, turn, self.seed)
        room, usual = self.gpus_of(node), self.cluster.fragmentation
        free = after = room.useful
        if pool.gpu:
            after = without(room, pick(room, pool.gpu) or ()).useful
        return Candidate(
            node, view.node.resources, used, ahead, same, turn, self.seed, pool.need, free,
            view.node.labels.get(GPU_TYPE, ""), usual.lost, usual.hungry, after,
        )  # fmt: skip

    def gpus_of(self, node: int) -> Room:
        """What is free on each of its GPUs, as the cycle stands."""
        gpus = self.gpus.get(node)
        if gpus is None:
            gpus = self.gpus[node] = self.nodes[node].gpus
        return gpus

    # ------------------------------------------------------------ what the cycle has placed

    def account(self, pool: Pool, task: Task, node: int, is_ahead: bool, until: float, *, count: int = 1) -> None:
        """So many of the class went there, more than one only where nothing but amounts changes (``place_following``)."""
        need = pool.need
        if is_ahead:
            self.ahead[node, pool.placement_class] = self.ahead_count(node, pool.placement_class) + count
        else:
            self.moved.append(node)
            self.scores.pop(node, None)
            self.standings.pop(node, None)
            used = self.used.get(node)
            if used is None:
                used = self.used[node] = dict(self.nodes[node].used)
            for name, amount in need.items():
                used[name] = used.get(name, 0) + count * amount
            if pool.gpu:
                room = self.gpus_of(node)
                self.gpus[node] = without(room, pick(room, pool.gpu) or ())
            if until != NEVER:
                ends = self.placed.setdefault(node, [])
                at = bisect_right(ends, until, key=when)
                ends[at:at] = [(until, need)] * count
            if node in self.horizons:
                self.horizons[node].take(need, self.now, until)
            elif self.changed.seen:
                self.changed.seen.pop(node, None)
        if pool.affine:
            for better in self.around.add(pool.placement_class, node):
                self.pools.touch(better)
        if pool.balancer in IMPROVES:
            self.pools.touch(node)
        elif pool.balancer != "least_loaded":
            self.turns[node] = self.turns.get(node, 0) + 1
            self.same_task[node, task.id] = self.same_task.get((node, task.id), 0) + 1

    # ------------------------------------------------------------ reservations

    def ever_fits(self, pool: Pool) -> bool:
        large = (self.nodes[n].node.could_hold(pool.need) for n in pool.group.members)
        return sum(islice(filter(None, large), pool.nodes)) == pool.nodes

    def reserve(
        self, pool: Pool, key: ElementKey, seconds: float, owner: Owner = ("", "")
    ) -> tuple[int, float, tuple[int, ...]] | None:
        """The node and instant of the earliest start that the expected ends and bookings allow, and the nodes of a gang's other
        ranks; from then on that room is spoken for."""

        def earliest(node: int, after: float = 0.0) -> float:
            return self._earliest(node, pool.need, seconds, owner, after)

        if pool.nodes > 1:
            found = earliest_together(self._reservable(pool, key), pool.nodes, earliest)
        else:
            one = soonest(self._could_begin(pool, key), earliest)
            found = None if one is None else (one[0], (one[1],))
        if found is None:
            return None
        start, nodes = found
        self.changed.forget_unreserved(self.kept, nodes)
        for node in nodes:
            self.changed.horizon(node).take(pool.need, start, start + seconds)
        return nodes[0], start, nodes[1:]

    def _could_begin(self, pool: Pool, key: ElementKey) -> Starts:
        if pool.affine or key in self.cluster.reservations:
            return self.outlook.starts(pool.need, self._reservable(pool, key))
        return self.outlook.starts_of(pool.placement_class, lambda: self._reservable(pool, key))

    def _earliest(self, node: int, need: Resources, seconds: float, owner: Owner, after: float = 0.0) -> float:
        if node not in self.booked and not self.changed.is_it(node):
            return max(self.outlook.first(node, need), after)
        horizon, bookings = self.changed.look(node), self.booked.get(node, ())
        start = horizon.earliest(need, seconds, after)
        while start != NEVER and (other := in_the_way(bookings, owner, start, start + seconds)) is not None:
            start = horizon.earliest(need, seconds, other.end)
        return start

    def keep(self, node: int, need: Resources, seconds: float) -> None:
        """Nobody else is given this room on the node, from now on; where GPUs are among it, none of its GPUs."""
        if "gpu" in need or "gpu_memory" in need:
            has = self.nodes[node].node.resources
            need = need | {name: has[name] for name in ("gpu", "gpu_memory") if name in has}
        self.changed.horizon(node).take(need, self.now, self.now + seconds)
        self.kept.setdefault(node, []).append(need)
        self._refused.clear()

    def give_back(self, node: int, seconds: float) -> None:
        """What was kept first on a node is no longer."""
        _, *rest = self.kept.pop(node)
        self.horizons.pop(node)
        self._refused.clear()
        for need in rest:
            self.keep(node, need, seconds)

    def _reservable(self, pool: Pool, key: ElementKey) -> list[int]:
        """The nodes that it had before, else those that are large enough."""
        members = pool.group.members
        before = self.cluster.reservations.get(key)
        if before is not None:
            nodes = [before[0], *self.cluster.reserved_others.get(key, ())]
            if members.issuperset(nodes) and len(nodes) == pool.nodes:
                return nodes
        return self.large(pool)[: RESERVE_NODES + pool.nodes - 1]

    def large(self, pool: Pool) -> list[int]:
        """The nodes on which it would fit if they were empty of all but those that it keeps near to or apart from."""
        large = sorted(n for n in pool.group.members if self.nodes[n].node.could_hold(pool.need))
        return [node for node in large if self.suits(pool, node)] if pool.affine else large

    def suits(self, pool: Pool, node: int) -> bool:
        return not pool.affine or self.around.refusal(self.nodes[node], pool.placement_class) is None
