"""What a class is found to take less than before may go where it could not: behind what waits on a node for more room.

Nowhere else does it matter that an estimate fell: what goes ahead of room to a full node begins when something ends there, and
then the node is looked at in any case.
"""

import pytest
from tests.unit.scheduler.harness import Case

from jarvis.scheduler.task_queue import class_of

LONG, SHORT = 10.0, 0.01
AHEAD = 0.1
"""Seconds of work that may be ahead of room, for each that runs at a time."""


@pytest.mark.parametrize("cpus", [8, 9, 12])
def test_what_turns_out_to_be_short_passes_what_waits_on_a_node_for_room(cpus: int) -> None:
    """The second node has a cpu free, and in its backlog a task that wants more. What takes long does not go behind that, what is
    short does, and its agent starts it at once; that it is short is learned on the first node alone."""
    case = Case()
    case.node("first", cpus=1)
    case.node("second", cpus=cpus)
    case.node("largest, and full", cpus=20)
    case.started(case.submit(cpus=20))
    case.ends(case.submit(cpus=4), wall=SHORT)
    case.started(case.submit(cpus=cpus - 1))
    while case.attempt(case.submit(cpus=4)).node != 2:
        pass
    short = case.submit(cpus=1)
    case.ends(short, wall=LONG)
    of = class_of(case.tasks[short].spec)
    tasks = [case.submit(cpus=1) for _ in range(30)]
    for ended in tasks:
        before = case.cluster.estimates[of]
        if before <= AHEAD * cpus:
            break
        assert {case.attempt(key).node for key in case.cluster.attempts if key.task in tasks} <= {1, 3}
        case.ends(ended, wall=SHORT)
        case.wait(1.0)
    assert 2 in {case.attempt(key).node for key in case.cluster.attempts if key.task in tasks}
