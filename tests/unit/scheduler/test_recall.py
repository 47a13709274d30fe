"""What ended before a leader led: the newest, a page at a time, learned in the order in which it ended."""

from jarvis.core.attempt import Attempt, Usage
from jarvis.core.changes import Changes
from jarvis.core.ids import SOLO
from jarvis.core.states import Cause, State
from jarvis.core.task import NewTask, TaskSpec
from jarvis.scheduler.policy.prediction import WINDOW, Predictor
from jarvis.scheduler.recall import PAGE, Recall
from jarvis.state.store import Accepted, Submission
from jarvis.state.stores.memory import MemoryStore

COUNT = 2 * PAGE + 50


async def history() -> tuple[MemoryStore, list[int]]:
    """Tasks that ended in the order of their submission, each after as many seconds as its place says; the last one lives."""
    store = MemoryStore(lambda: 0.0)
    lead = await store.leadership_acquire("a")
    new = [
        NewTask(uuid="u", project="p", user="ann", spec=TaskSpec(name="t", command=("x",))) for _ in range(COUNT + 1)
    ]
    (answer,) = await store.task_insert_many([Submission(tuple(new))])
    assert isinstance(answer, Accepted)
    changes = Changes()
    for place, task in enumerate(await store.task_get_many(answer.ids[:-1])):
        task.state, task.ended_at = State.SUCCEEDED, 10.0 * place
        changes.tasks[task.id] = task
        changes.attempts_new[task.id, SOLO, 1] = Attempt(
            task=task.id, index=SOLO, attempt=1, token=1, node=1, number=place + 1, assigned_at=0.0, state=State.SUCCEEDED,
            cause=Cause.EXIT, ended_at=10.0 * place, usage=Usage(wall_s=float(place)),
        )  # fmt: skip
    await store.leader_commit(lead, changes)
    return store, list(answer.ids)


async def recalled(most: int) -> tuple[Predictor, int]:
    store, _ = await history()
    recall, predictor, steps = Recall(store, most), Predictor(), 0
    assert [recall.is_pending] == [False], "only when it is asked to"
    recall.begin()
    while recall.is_pending:
        before = predictor.ends
        await recall.advance(predictor)
        assert predictor.ends - before <= PAGE
        steps += 1
    return predictor, steps


async def test_all_of_it_a_page_at_a_time() -> None:
    predictor, steps = await recalled(10 * PAGE)
    assert (predictor.ends, steps) == (COUNT, 6)
    needs = predictor.needs([("p", "ann", "t")], 1.0, 1)
    assert needs is not None
    assert needs.seconds == COUNT - 1
    least = predictor.needs([("p", "ann", "t")], 0.0, 1)
    assert least is not None
    assert least.seconds == COUNT - WINDOW, "what ended last is what is remembered"


async def test_no_more_than_is_asked_for() -> None:
    predictor, _ = await recalled(PAGE + 10)
    assert predictor.ends == PAGE + 10
    assert (await recalled(0))[0].ends == 0
