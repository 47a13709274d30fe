"""What the API needs of the rest of the server, given by the wiring; nothing here knows an adapter."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from prometheus_client import CollectorRegistry

from jarvis import __version__
from jarvis.bus.bus import Bus
from jarvis.core.errors import JarvisError, StoreUnavailable
from jarvis.core.ids import ElementKey
from jarvis.core.permissions import Principal
from jarvis.core.task import TaskSpec
from jarvis.state.blob_store import BlobStore
from jarvis.state.manifests import RecentManifests
from jarvis.state.state_manager import StateManager
from jarvis.state.store import Store
from jarvis.utils.clock import Clock
from jarvis.utils.keeper import Keeper

if TYPE_CHECKING:
    from jarvis.api.membership import Membership
    from jarvis.api.peers import Peers

MIB = 1024 * 1024

HealthCheck = Callable[[], Awaitable[Mapping[str, Any]]]
"""Answers ``{"status": "ok" | "degraded" | "down" | "not_configured", "detail": …}``; raising means down."""


class Authenticator(Protocol):
    """Finds the principal of an API token, or of the membership that a node's certificate names."""

    async def principal(self, token: str) -> Principal | None: ...
    async def member(self, member: str, fresh: bool = True) -> Principal | None: ...


@dataclass(frozen=True, slots=True)
class ApiSettings:
    """What an administrator may turn. ``allowed_hosts`` adds to the loopback names; without a port any port goes."""

    allowed_hosts: tuple[str, ...] = ()
    body_limit: int = MIB
    batch_limit: int = 8 * MIB
    blob_limit: int = 1024 * MIB
    default_user: str = "jarvis"
    default_project: str = "default"
    max_wait_s: float = 60.0
    watch: tuple[str, ...] = ()
    """Directories below which schedules may wait for files."""
    heartbeat_flush_s: float = 1.0
    report_after_s: float | None = None
    """How long the leader may leave a fact unacknowledged before it is written into the store; None where the leader is in
    this process."""


class Why(Protocol):
    """Explains a pending element from the leader's memory; another server's question is never passed on again."""

    async def __call__(self, key: ElementKey, asked_by_peer: bool = False) -> dict[str, Any] | None: ...


async def _why_unknown(key: ElementKey, asked_by_peer: bool = False) -> dict[str, Any] | None:
    return None


class Plan(Protocol):
    """Says of a task that nobody submitted whether it would start now, wait, or never run; or what it should ask for."""

    async def __call__(
        self, project: str, user: str, spec: TaskSpec, asked_by_peer: bool = False
    ) -> dict[str, Any]: ...


class Ask(Protocol):
    """Asks the leader's memory."""

    async def __call__(self, asked_by_peer: bool = False) -> dict[str, Any]: ...


class AskOfTasks(Protocol):
    """Asks the leader's memory about tasks."""

    async def __call__(self, tasks: Sequence[int], asked_by_peer: bool = False) -> dict[str, Any]: ...


class AskOfNode(Protocol):
    """Asks the leader's memory about a node."""

    async def __call__(self, node: int, asked_by_peer: bool = False) -> dict[str, Any]: ...


async def _nothing_known(node: int, asked_by_peer: bool = False) -> dict[str, Any]:
    raise StoreUnavailable("nobody leads here")


async def _no_words(tasks: Sequence[int], asked_by_peer: bool = False) -> dict[str, Any]:
    raise StoreUnavailable("nobody leads here")


async def _no_answer(asked_by_peer: bool = False) -> dict[str, Any]:
    raise StoreUnavailable("nobody leads here")


async def _no_plan(project: str, user: str, spec: TaskSpec, asked_by_peer: bool = False) -> dict[str, Any]:
    raise StoreUnavailable("nobody leads here")


def _fits(spec: TaskSpec) -> JarvisError | None:
    return None


def _known(queue: str) -> JarvisError | None:
    return None


def _within(project: str, user: str, spec: TaskSpec, more: int) -> JarvisError | None:
    return None


async def _all_known() -> None:
    return


async def _no_more() -> str:
    return ""


@dataclass(slots=True)
class Services:
    """One per server process.

    ``why`` explains a pending element from the leader's memory; ``node_fits`` refuses what can never run
    on the nodes that are known here, which ``look_for_nodes`` brings up to date; ``queue_refused`` a
    queue that there is not; ``quota_allows`` what its owner may never have,
    or has too many of; ``licenses`` lists those of the cluster, ``holds`` what a node holds of what tasks need, ``used`` what of
    each node is in use, ``reasons`` why queued tasks wait, in a word each; ``more_metrics`` are
    those of a process that decides for this one;
    ``incarnation`` is the current life of the database, the first half of an event cursor; ``replica`` the name of this
    server among several, empty where there is one, and ``peers`` the others; ``keeper`` keeps the loops of this process
    running; ``membership`` lets nodes in, where this server listens beyond its machine.
    """

    store: Store
    blobs: BlobStore
    state_manager: StateManager
    bus: Bus
    clock: Clock
    authenticator: Authenticator
    why: Why = _why_unknown
    plan: Plan = _no_plan
    recommend: Plan = _no_plan
    licenses: Ask = _no_answer
    holds: AskOfNode = _nothing_known
    used: Ask = _no_answer
    reasons: AskOfTasks = _no_words
    node_fits: Callable[[TaskSpec], JarvisError | None] = _fits
    queue_refused: Callable[[str], JarvisError | None] = _known
    quota_allows: Callable[[str, str, TaskSpec, int], JarvisError | None] = _within
    queues: Callable[[], list[dict[str, Any]]] = list
    weights: Callable[[], dict[str, float]] = dict
    """Of projects, as the settings have them: a quota may say otherwise."""
    look_for_nodes: Callable[[], Awaitable[None]] = _all_known
    incarnation: Callable[[], int] = lambda: 1
    more_metrics: Callable[[], Awaitable[str]] = _no_more
    health_checks: dict[str, HealthCheck] = field(default_factory=dict)
    settings: ApiSettings = field(default_factory=ApiSettings)
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)
    version: str = __version__
    replica: str = ""
    keeper: Keeper = field(default_factory=Keeper)
    peers: "Peers | None" = None
    membership: "Membership | None" = None
    manifests: RecentManifests = field(init=False)

    def refused(self, spec: TaskSpec) -> JarvisError | None:
        """Why nothing like this may be submitted, whoever asks."""
        return self.queue_refused(spec.queue) or self.node_fits(spec)

    def __post_init__(self) -> None:
        self.manifests = RecentManifests(self.blobs)
