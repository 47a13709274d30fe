"""Lanes as the agent keeps them: who runs, who follows, and when nobody is handed ahead."""

from tests.unit.worker.test_machine import make

from jarvis.core.task import TaskSpec
from jarvis.worker.lanes import AHEAD_S, DEPTH, OVERHEAD_S, STALLED_S, Lanes
from jarvis.worker.machine import Work
from jarvis.worker.supervisor.server import GATHER

SPEC = TaskSpec(name="t", command=("true",), resources={"cpu": 1000})


def work(number: int) -> Work:
    return Work(make(number), SPEC)


def test_nothing_is_handed_ahead_until_it_is_known_how_long_such_work_takes() -> None:
    lanes = Lanes()
    assert lanes.room(lanes.open(work(1), 0.0)) == 0
    assert lanes.advance(1, 0.1, 0.0) is None
    assert lanes.room(lanes.open(work(2), 0.1)) == min(DEPTH, int(AHEAD_S / OVERHEAD_S))
    lanes.advance(2, 9.0, 9.0)
    assert lanes.room(lanes.open(work(3), 9.0)) == 0, "and what takes long has nobody behind it"


def test_a_lane_that_is_not_filled_lasts_until_the_next_report_and_its_answer() -> None:
    lanes = Lanes()
    ran_s, each_s, answer_s = 0.0004, 0.0006, 0.01
    lanes.advance(lanes.open(work(1), 0.0).ident, 0.01, ran_s)
    lane = lanes.open(work(2), 0.01)
    for number in range(3, 3 + lanes.room(lane)):
        lanes.add(lane, work(number))
        if not lanes.room(lane):
            assert len(lane.queue) * each_s > GATHER + answer_s
            break


def test_the_next_follows_and_the_last_closes_the_lane() -> None:
    lanes = Lanes()
    lane = lanes.open(work(1), 0.0)
    lanes.add(lane, work(2))
    lanes.add(lane, work(3))
    assert lanes.waits(2) and not lanes.waits(1) and lanes.of(3) is lane
    assert lanes.advance(1, 0.01, 0.01) is lane and lane.work.number == 2
    assert lanes.advance(1, 0.02) is None, "what is over is over once"
    assert lanes.advance(2, 0.02) is lane and lane.work.number == 3 and not lanes.some_wait
    assert lanes.advance(3, 0.03) is None and lanes.of(3) is None


def test_what_is_withdrawn_does_not_follow() -> None:
    lanes = Lanes()
    lane = lanes.open(work(1), 0.0)
    for number in (2, 3):
        lanes.add(lane, work(number))
    assert [w.number for w in lanes.withdraw([1, 2, 9])] == [2]
    assert lanes.advance(1, 0.1) is lane and lane.work.number == 3


def test_what_waits_too_long_is_named_and_its_like_is_not_handed_ahead() -> None:
    lanes = Lanes()
    lanes.advance(lanes.open(work(1), 0.0).ident, 0.01, 0.001)
    lane = lanes.open(work(2), 0.01)
    lanes.add(lane, work(3))
    assert lanes.stalled(0.02) == []
    assert lanes.stalled(0.02 + STALLED_S) == [3]
    assert lanes.room(lanes.open(work(4), 1.0)) == 0


def test_an_adopted_lane_goes_on() -> None:
    lanes = Lanes()
    lanes.adopt(7, work(7), [work(8), work(9)], 0.0)
    assert lanes.some_wait
    lane = lanes.advance(7, 0.01, 0.001)
    assert lane is not None and lane.work.number == 8 and lanes.room(lane) <= DEPTH
