"""PURE: when a task may be considered: dependencies, begin time, holds; and what its end means to those who wait for it."""

from collections.abc import Sequence

from jarvis.core.ids import ElementKey
from jarvis.core.states import HELD_BY_USER, LIVE, TERMINAL, State
from jarvis.core.task import Dependency, Task
from jarvis.scheduler.timer import Timer
from jarvis.scheduler.turn import Turn


def on_task_taken(turn: Turn, task: Task, ended: dict[int, State]) -> None:
    """A row in state ``submitted`` enters memory. One that is known already (a hint said it before) changes nothing, and one
    whose hint came before that of what it depends on is left to the poll, which takes them in order."""
    cluster = turn.cluster
    if task.id in cluster.tasks or task.state is not State.SUBMITTED:
        return
    after = task.spec.after
    if after and any(d.task not in cluster.tasks and ended.get(d.task) in LIVE for d in after):
        return
    cluster.tasks[task.id] = task
    cluster.ledger.count_task(task.project, task.user, 1)
    if task.spec.array is not None:
        task.base, task.counts = State.SUBMITTED, {State.SUBMITTED: task.size}
    if task.spec.deadline is not None:
        cluster.add_timer(Timer(task.spec.deadline, "deadline", task.id))
    if not after or _wait_for(turn, task, ended):
        place_in_line(turn, task)


def _wait_for(turn: Turn, task: Task, ended: dict[int, State]) -> bool:
    """Note what it waits for; False when a dependency can no longer be met and the task is over."""
    waits = set()
    for dependency in task.spec.after:
        if dependency.task in turn.cluster.tasks:
            waits.add(dependency.task)
            turn.cluster.dependents.setdefault(dependency.task, set()).add(task.id)
        elif not satisfied(dependency, ended.get(dependency.task)):
            fail_upstream(turn, task)
            return False
    if waits:
        turn.cluster.waits_for[task.id] = waits
    return True


def satisfied(dependency: Dependency, end: State | None) -> bool:
    """Whether an ended task meets the condition; one that is gone meets only ``afterany``."""
    if dependency.kind == "afterany":
        return True
    return end is not None and (end is State.SUCCEEDED) is (dependency.kind == "afterok")


def fail_upstream(turn: Turn, task: Task) -> None:
    turn.cluster.waits_for.pop(task.id, None)
    move_pending(turn, task, State.UPSTREAM_FAILED, "DependencyNeverSatisfied")


def place_in_line(turn: Turn, task: Task) -> None:
    """Held, waiting or queued, whichever comes first."""
    spec = task.spec
    if spec.hold and task.state is State.SUBMITTED:
        if spec.array is None and task.id not in turn.cluster.by_task:
            turn.begin(task, State.HELD, HELD_BY_USER)
            task.base = State.HELD
            add_to_ranges(turn.changes.held, (task,))
        else:
            move_pending(turn, task, State.HELD, HELD_BY_USER)
        return
    state, reason = what_next(turn, task)
    if state is State.QUEUED:
        enqueue(turn, task)
    else:
        move_pending(turn, task, state, reason)


def move_pending(turn: Turn, task: Task, after: State, reason: str = "", released: bool = False) -> None:
    """Move what has no row of its own, then the elements that have one, as far as they wait. What is held is only moved by
    its release, or when it can never run."""
    over = after in TERMINAL
    before = task.base if task.spec.array is not None else task.state
    waits = before in (State.SUBMITTED, State.WAITING) or (before is State.HELD and (released or over))
    if ElementKey(task.id) not in turn.cluster.elements and before is not after and waits:
        turn.move_base(task, after, reason)
    for index in sorted(turn.cluster.by_task.get(task.id, ())):
        element = turn.cluster.elements[ElementKey(task.id, index)]
        moves = element.state is State.WAITING or (element.state is State.HELD and over)
        if moves and element.state is not after and task.id in turn.cluster.tasks:
            turn.move(task, element, after, reason)


def enqueue(turn: Turn, task: Task, released: bool = False) -> None:
    """Into the task queue. The common case, a fresh task with nothing to say, costs a range instead of a row."""
    if task.spec.array is None and task.state is State.SUBMITTED:
        turn.begin(task, State.QUEUED)
        add_to_ranges(turn.changes.queued, (task,))
    else:
        move_pending(turn, task, State.QUEUED, released=released)
    turn.cluster.foretell((task,), turn.now)
    turn.cluster.enqueue(task, task.next_position, is_range=task.spec.array is not None)
    if task.spec.array is not None:
        for position in turn.cluster.named_ahead.get(task.id, ()):
            turn.cluster.enqueue(task, position)


def add_to_ranges(ranges: list[tuple[int, int]], tasks: Sequence[Task]) -> None:
    """These rows come to their first state, with nothing else to say: ``queued`` or ``held`` of the turn's changes."""
    first, last = ranges.pop() if ranges else (tasks[0].id, tasks[0].id - 1)
    for task in tasks:
        if task.id != last + 1:
            ranges.append((first, last))
            first = task.id
        last = task.id
    ranges.append((first, last))


def ready_again(turn: Turn, task: Task) -> None:
    """Released: it waits for whatever it still has to wait for, else it is queued."""
    state, reason = what_next(turn, task)
    if state is State.QUEUED:
        enqueue(turn, task, released=True)
    else:
        move_pending(turn, task, state, reason, released=True)


def what_next(turn: Turn, task: Task) -> tuple[State, str]:
    """What an element of it does that nobody holds any more: it waits for what it still has to wait for, or is queued."""
    if task.id in turn.cluster.waits_for:
        return State.WAITING, "Dependency"
    if task.spec.begin is not None and task.spec.begin > turn.now:
        turn.cluster.add_timer(Timer(task.spec.begin, "begin", task.id))
        return State.WAITING, "BeginTime"
    return State.QUEUED, ""


def on_tasks_ended(turn: Turn) -> None:
    """Look at everything that waited for the tasks that ended in this turn, and for those that end because of it."""
    while turn.ended_tasks:
        task = turn.ended_tasks.pop()
        for waiting_id in sorted(turn.cluster.dependents.pop(task.id, ())):
            waiting = turn.cluster.tasks.get(waiting_id)
            if waiting is not None:
                _dependency_ended(turn, waiting, task)


def _dependency_ended(turn: Turn, waiting: Task, ended: Task) -> None:
    if any(d.task == ended.id and not satisfied(d, ended.state) for d in waiting.spec.after):
        fail_upstream(turn, waiting)
        return
    waits = turn.cluster.waits_for.get(waiting.id, set())
    waits.discard(ended.id)
    if not waits:
        turn.cluster.waits_for.pop(waiting.id, None)
        if _waits(turn, waiting):
            place_in_line(turn, waiting)


def on_begin(turn: Turn, task: Task) -> None:
    if task.id not in turn.cluster.waits_for and _waits(turn, task):
        enqueue(turn, task)


def _waits(turn: Turn, task: Task) -> bool:
    """Whether anything of it is in state ``waiting``."""
    return task.state is State.WAITING or task.base is State.WAITING or bool(task.counts.get(State.WAITING))
