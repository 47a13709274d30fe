"""Random verbs against the memory store and a store on disk at once: every answer and the whole content agree, also reopened."""

import asyncio
import os
import shutil
import tempfile
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from tests.contract.harness import Ticking, attempt, element, event, new
from tests.contract.test_workflows import step, wanted
from tests.servers.postgres import shared

from jarvis.core.changes import Changes
from jarvis.core.command import NewCommand
from jarvis.core.errors import JarvisError
from jarvis.core.ids import SOLO, ElementKey
from jarvis.core.node import Node
from jarvis.core.states import LIVE, TERMINAL, State
from jarvis.core.task import Dependency, NewTask
from jarvis.state.coordination import Leadership, Replica, Token
from jarvis.state.store import Accepted, IdempotencyKey, Store, Submission, TaskFilter
from jarvis.state.stores.memory import MemoryStore
from jarvis.state.stores.postgres import PostgresStore
from jarvis.state.stores.sqlite import SqliteStore
from jarvis.state.workflow_store import WorkflowFilter

SOAK = bool(os.environ.get("JARVIS_SOAK"))
ALL = 10_000
STATES = st.sampled_from(sorted(State))
NAMES = st.sampled_from(["a", "ab", "b", "ü", "a%", "\ud800"])
PICK = st.integers(0, ALL)
WHERE = st.builds(
    TaskFilter,
    states=st.frozensets(STATES, max_size=3),
    project=st.sampled_from([None, None, "p", "q"]),
    projects=st.sampled_from([None, None, frozenset({"p"}), frozenset()]),
    name=st.sampled_from([None, None, "a", "a*", "*", "a%*"]),
    ended_after=st.sampled_from([None, None, 1_800_000_010.0]),
    submitted_before=st.sampled_from([None, None, 1_800_000_010.0]),
)  # fmt: skip


def plain(answer: object) -> object:
    """An answer in a form that compares: sequences as lists, errors by kind."""
    if isinstance(answer, Accepted):
        return ("accepted", list(answer.ids), answer.submitted_at, answer.replayed)
    if isinstance(answer, JarvisError):
        return (type(answer).__name__, getattr(answer, "oldest", None))
    if isinstance(answer, list | tuple | range):
        return [plain(a) for a in answer]
    return answer


def index_of(ident: int, index: int) -> int:
    """A task has either the one element of a task alone or those of an array, and never both."""
    return SOLO if ident % 2 else index


class Stores(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp(prefix="jarvis-model-"))
        self.clock = Ticking()
        self.loop = asyncio.new_event_loop()
        self.memory: Store = MemoryStore(self.clock)
        self.place = self.new_place()
        self.other = self.at_place()
        self.loop.run_until_complete(self.other.open())
        self.lead: Leadership = self.both(lambda s: s.leadership_acquire("first"))
        self.seq = 0

    def new_place(self) -> str:
        """Where the content of the other store is."""
        return str(self.directory)

    def at_place(self) -> Store:
        return SqliteStore(Path(self.place), clock=self.clock)

    def teardown(self) -> None:
        self.loop.run_until_complete(self.other.close())
        self.loop.close()
        shutil.rmtree(self.directory)

    def both(self, verb: Callable[[Store], Coroutine[Any, Any, Any]]) -> Any:
        """Ask both; the answers are the same, or the errors are."""

        async def ask(store: Store) -> Any:
            try:
                return await verb(store)
            except JarvisError as error:
                return error

        expected = self.loop.run_until_complete(ask(self.memory))
        given = self.loop.run_until_complete(ask(self.other))
        assert plain(given) == plain(expected)
        return given

    def commit(self, **changes: Any) -> Any:
        return self.both(lambda s: s.leader_commit(self.lead, Changes(**changes)))

    def some_task(self, pick: int) -> int:
        """A task that there is, or was, or never was."""
        known = [t.id for t in self.both(lambda s: s.task_list(TaskFilter(), None, ALL))]
        return int(known[pick % len(known)]) if known and pick % 7 else pick

    # ------------------------------------------------------------ wishes and facts

    @rule(names=st.lists(st.tuples(NAMES, st.sampled_from("pq"), st.none() | PICK), max_size=3),
          key=st.none() | st.tuples(st.sampled_from("kl"), st.sampled_from("xy")))  # fmt: skip
    def submit(self, names: list[tuple[str, str, int | None]], key: tuple[str, str] | None) -> None:
        tasks: list[NewTask] = []
        for name, project, pick in names:
            after = () if pick is None else (Dependency("afterany", self.some_task(pick)),)
            tasks.append(new(name, project=project, after=after))
        chosen = None if key is None else IdempotencyKey("ann", "p", "/tasks", *key)
        self.both(lambda s: s.task_insert_many([Submission(tasks, chosen), Submission(tasks[:1])]))
        if chosen is not None:
            self.both(lambda s: s.idempotency_get(chosen))

    @rule(pick=PICK, verb=st.sampled_from(["cancel", "hold"]))
    def command(self, pick: int, verb: Any) -> None:
        wish = NewCommand(verb=verb, user="ann", task=self.some_task(pick), args={"grace": 1.5})
        self.both(lambda s: s.command_insert_many([wish, wish]))

    @rule(node=st.integers(0, 3), body=st.binary(max_size=4))
    def report(self, node: int, body: bytes) -> None:
        self.both(lambda s: s.report_insert_many([(node, body)]))
        self.both(lambda s: s.node_seen_many([(node, self.clock.now, {"load1": 0.5})]))

    @rule(label=st.sampled_from("ab"), projects=st.lists(st.sampled_from("pq"), max_size=2))
    def token(self, label: str, projects: list[str]) -> None:
        expires = self.clock.now + 5.0 if len(projects) == 2 else None
        self.both(lambda s: s.token_put(Token(f"hash-{label}", "ann", "user", tuple(projects), label, expires)))

    # ------------------------------------------------------------ the leader

    @rule(first=PICK, more=st.integers(0, 3), table=st.sampled_from(["queued", "held"]))
    def come_to_the_first_state(self, first: int, more: int, table: str) -> None:
        begin = self.some_task(first)
        self.commit(**{table: [(begin, begin + more)]})

    @rule(pick=PICK, state=STATES)
    def move(self, pick: int, state: State) -> None:
        ident = self.some_task(pick)
        for task in self.both(lambda s: s.task_get_many([ident])):
            if task.state not in TERMINAL:
                task.state, task.base, task.counts, task.reason = state, state, {state: 1}, "r"
                task.ended_at = self.clock.now if state in TERMINAL else None
                self.seq += 1
                self.commit(tasks={ident: task}, events=[event(self.seq, ident, self.clock.now, str(state))])

    @rule(pick=PICK, index=st.integers(0, 2), nth=st.integers(1, 2), token=st.integers(76, 77), state=STATES)
    def attempt_new(self, pick: int, index: int, nth: int, token: int, state: State) -> None:
        ident = self.some_task(pick)
        index = index_of(ident, index)
        if any(task.state in TERMINAL for task in self.both(lambda s: s.task_get_many([ident]))):
            return  # what has ended is not tried again
        if any(e.attempt > nth for e in self.both(lambda s: s.element_get_many([ElementKey(ident, index)]))):
            return  # attempts are numbered upwards, and which is the last is read from that
        row = element(ident, State.ASSIGNED, index, nth=nth, lost_on=(1,) if nth == 2 else ())
        tried = attempt(ident, index=index, nth=nth, token=token, result=b"r")
        also = {(ident, index, nth): attempt(ident, index=index, nth=nth, token=77, state=state)}
        self.commit(
            elements={row.key: row}, attempts_new={(ident, index, nth): tried}, attempts=also if token % 2 else {}
        )

    @rule(pick=PICK, index=st.integers(0, 2), nth=st.integers(1, 2), token=st.integers(76, 77), state=STATES)
    def attempt_goes_on(self, pick: int, index: int, nth: int, token: int, state: State) -> None:
        ident = self.some_task(pick)
        index = index_of(ident, index)
        changed = attempt(ident, index=index, nth=nth, token=token, state=state, exit_code=3, message="m")
        rows = self.both(lambda s: s.element_get_many([ElementKey(ident, index)]))
        for row in rows:
            row.state = state
        self.commit(elements={row.key: row for row in rows}, attempts={(ident, index, nth): changed})

    @rule(ident=st.integers(1, 3), gone=st.booleans())
    def node(self, ident: int, gone: bool) -> None:
        self.commit(**({"nodes_removed": [ident]} if gone else {"nodes": {ident: Node(id=ident, name=f"n{ident}")}}))

    @rule(ident=st.integers(1, 9))
    def settle(self, ident: int) -> None:
        self.commit(commands_done={ident: ""}, reports_done=[ident])

    @rule(bump=st.booleans())
    def leader(self, bump: bool) -> None:
        if bump:
            self.both(lambda s: s.incarnation_bump("model"))
            self.commit(queued=[(1, ALL)])
        self.lead = self.both(lambda s: s.leadership_acquire("next"))

    @rule(lease=st.sampled_from([0.0, 5.0, 30.0]), verb=st.sampled_from(["acquire", "renew", "release", "stale"]))
    def lease(self, lease: float, verb: str) -> None:
        """Whoever asks; a lease that was won is given back, for the other rules to go on under."""
        if verb == "acquire":
            won = self.both(lambda s: s.leadership_acquire("third", lease))
            self.lead = won if isinstance(won, Leadership) else self.lead
        elif verb == "renew":
            self.both(lambda s: s.leadership_renew(self.lead, lease))
        elif verb == "stale":
            self.both(lambda s: s.leadership_renew(Leadership(self.lead.incarnation, self.lead.epoch - 1), lease))
        self.both(lambda s: s.leader_get())
        self.both(lambda s: s.leadership_release(self.lead))

    @rule(name=st.sampled_from("ab"), url=st.sampled_from("xy"))
    def replica(self, name: str, url: str) -> None:
        self.both(lambda s: s.replica_seen(Replica(name, url, "1", "api", 3, 7)))
        self.both(lambda s: s.node_seen_many([(1, self.clock.now, {}), (2, self.clock.now, {})], name))
        self.both(lambda s: s.secret_keep(name, url.encode()))

    @rule(label=st.sampled_from("ab"))
    def take_token(self, label: str) -> None:
        self.both(lambda s: s.token_take(f"hash-{label}"))

    # ------------------------------------------------------------ workflows

    @rule(
        name=NAMES,
        project=st.sampled_from("pq"),
        key=st.none() | st.tuples(st.sampled_from("kl"), st.sampled_from("xy")),
    )
    def submit_workflow(self, name: str, project: str, key: tuple[str, str] | None) -> None:
        chosen = None if key is None else IdempotencyKey("ann", "p", "/workflows", *key)
        self.both(lambda s: s.workflow_insert(wanted(name, project), chosen))
        self.both(lambda s: s.task_ids_reserve(2))

    @rule(pick=PICK, path=st.sampled_from(["a", "a[2]", "a[10]", "a/x", "ü"]), state=STATES)
    def workflow_goes_on(self, pick: int, path: str, state: State) -> None:
        known = self.both(lambda s: s.workflow_list(WorkflowFilter(), None, ALL))
        for workflow in known[pick % len(known) : pick % len(known) + 1] if known else []:
            workflow.state, workflow.wish = state, "pause"
            workflow.ended_at = self.clock.now if state in TERMINAL else None
            row = step(workflow.id, path, state, output=b"1", started_at=self.clock.now)
            self.commit(workflows={workflow.id: workflow}, steps={(workflow.id, path): row})
            self.both(lambda s, i=workflow.id: s.step_list(i, "a", 2))  # type: ignore[misc]

    # ------------------------------------------------------------ time and maintenance

    @rule(seconds=st.sampled_from([1.0, 10.0, 4 * 86400.0]))
    def wait(self, seconds: float) -> None:
        self.clock.now += seconds

    @rule(age=st.sampled_from([0.0, 5.0, 1e6]), limit=st.integers(1, 3))
    def retain(self, age: float, limit: int) -> None:
        self.both(lambda s: s.task_delete_ended(self.clock.now - age, limit))
        self.both(lambda s: s.workflow_delete_ended(self.clock.now - age, limit))
        self.both(lambda s: s.event_delete_before(self.clock.now - age, limit))
        self.both(lambda s: s.space_return())

    @rule()
    def reopen(self) -> None:
        self.loop.run_until_complete(self.other.close())
        self.other = self.at_place()
        self.loop.run_until_complete(self.other.open())

    # ------------------------------------------------------------ questions

    @rule(where=WHERE, before=st.none() | PICK, limit=st.integers(1, 3))
    def list(self, where: TaskFilter, before: int | None, limit: int) -> None:
        self.both(lambda s: s.task_list(where, before, limit))

    @rule(after=st.integers(0, 30), limit=st.integers(1, 3), pick=st.none() | PICK)
    def events(self, after: int, limit: int, pick: int | None) -> None:
        task = None if pick is None else self.some_task(pick)
        self.both(lambda s: s.event_list(after, limit, task))

    @rule(pick=PICK, after=st.integers(-2, 2), states=st.frozensets(STATES, max_size=4), limit=st.integers(1, 2))
    def pages(self, pick: int, after: int, states: frozenset[State], limit: int) -> None:
        ident = self.some_task(pick)
        self.both(lambda s: s.element_list(ident, states, after, limit))
        self.both(lambda s: s.task_list_live(ident, limit))
        self.both(lambda s: s.task_list_submitted(limit))
        self.both(lambda s: s.command_list_open(limit))
        self.both(lambda s: s.report_list_open(limit))

    @invariant()
    def all_is_the_same(self) -> None:
        """The full listing."""
        tasks = self.both(lambda s: s.task_list(TaskFilter(), None, ALL))
        ids = [t.id for t in tasks]
        rows = self.both(lambda s: s.element_get_many([ElementKey(t, i) for t in ids for i in range(SOLO, 3)]))
        for row in rows:
            self.both(lambda s, at=row.key: s.attempt_list(at))  # type: ignore[misc]
        workflows = self.both(lambda s: s.workflow_list(WorkflowFilter(), None, ALL))
        for workflow in workflows:
            self.both(lambda s, i=workflow.id: s.step_list(i, "", ALL))  # type: ignore[misc]
            self.both(lambda s, i=workflow.id: s.step_counts(i))  # type: ignore[misc]
        self.both(lambda s: s.workflow_list_live(0, ALL))
        self.both(lambda s: s.workflow_list_submitted(ALL))
        self.both(lambda s: s.outcome_list(ids))
        self.both(lambda s: s.element_list_live(ids))
        self.both(lambda s: s.attempt_list_current(ids))
        self.both(lambda s: s.attempt_list_ended(ids))
        self.both(lambda s: s.task_list(TaskFilter(states=LIVE), None, ALL))
        for verb in ("event_last_seq", "event_oldest_seq", "node_list", "node_next_id", "token_list", "node_replicas"):
            self.both(lambda s, verb=verb: getattr(s, verb)())  # type: ignore[misc]
        for pages in ("command_list_open", "report_list_open"):
            self.both(lambda s, pages=pages: getattr(s, pages)(ALL))  # type: ignore[misc]
        self.both(lambda s: s.replica_list(3.0))
        oldest = self.both(lambda s: s.event_oldest_seq())
        self.both(lambda s: s.event_list(oldest, ALL))
        memory, other = (self.loop.run_until_complete(s.counts()) for s in (self.memory, self.other))
        assert (other.tasks_by_state, other.events) == (memory.tasks_by_state, memory.events)


class PostgresStores(Stores):
    """The same, on a server."""

    def new_place(self) -> str:
        return shared().database()

    def at_place(self) -> Store:
        return PostgresStore(self.place, clock=self.clock)


@pytest.mark.timeout(7200 if SOAK else 300)
@pytest.mark.parametrize(("stores", "examples"), [(Stores, 30), (PostgresStores, 12)])
def test_all_stores_answer_alike(stores: type[Stores], examples: int) -> None:
    run_state_machine_as_test(
        stores,
        settings=settings(
            max_examples=examples * (100 if SOAK else 1), stateful_step_count=60 if SOAK else 30, deadline=None,
            database=None, suppress_health_check=list(HealthCheck),
            phases=[Phase.generate] + [Phase.shrink] * SOAK,
        ),
    )  # fmt: skip
