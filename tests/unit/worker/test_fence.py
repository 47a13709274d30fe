"""The fence counts from the sending of what the leader answered, and from nothing else."""

from jarvis.worker.fence import ASKED_MOST, Fence


def test_it_is_closed_until_a_session_begins() -> None:
    fence = Fence(7)
    assert fence.until < 0
    assert fence.is_stale(0.0, 4.0)
    assert fence.welcomed(100.0, 30.0, 2.0)
    assert (fence.until, fence.grace_s) == (130.0, 2.0)
    assert not fence.is_stale(103.0, 4.0)


def test_an_answer_extends_it_from_when_the_question_was_sent() -> None:
    fence = Fence(7)
    fence.welcomed(0.0, 75.0, 5.0)
    first, second = fence.ask(10.0), fence.ask(12.0)
    assert fence.answered(second)
    assert fence.until == 87.0
    assert not fence.answered(first), "the older one comes late"
    assert fence.until == 87.0
    assert not fence.answered(second), "and the same one twice"


def test_answers_to_others_extend_nothing() -> None:
    fence, before = Fence(1000), Fence(7)
    fence.welcomed(0.0, 75.0, 5.0)
    assert not fence.answered(before.ask(50.0)), "of the agent before"
    asked = fence.ask(50.0)
    fence.welcomed(60.0, 75.0, 5.0)
    assert not fence.answered(asked), "of the session before"
    assert fence.until == 135.0


def test_what_is_never_answered_is_forgotten() -> None:
    fence = Fence(0)
    asked = [fence.ask(float(at)) for at in range(ASKED_MOST + 1)]
    assert not fence.answered(asked[0])
    assert fence.answered(asked[1])
