"""A crowd of nodes is let in at a bounded rate, and spreads itself."""

import heapq
import random
from collections import Counter

from jarvis.api.admission import BURST, LONGEST_S, RATE, Admission


def test_a_few_are_let_in_at_once() -> None:
    admission = Admission()
    assert [admission.ask(100.0) for _ in range(BURST)] == [0.0] * BURST
    assert 0.0 < admission.ask(100.0) <= LONGEST_S
    assert admission.ask(200.0) == 0.0


def test_a_thousand_that_come_at_once_are_in_within_a_minute() -> None:
    admission, rng = Admission(), random.Random(7)
    come = [(rng.uniform(0.0, 0.5), node) for node in range(1000)]
    heapq.heapify(come)
    let_in: Counter[int] = Counter()
    tries = longest = 0
    while come:
        at, node = heapq.heappop(come)
        tries += 1
        wait = admission.ask(at)
        if wait:
            assert wait <= LONGEST_S, "so that nobody is taken for lost meanwhile"
            heapq.heappush(come, (at + rng.uniform(0.0, wait), node))
        else:
            let_in[int(at)] += 1
            longest = max(longest, int(at))
    assert longest < 60
    assert all(count <= RATE + BURST for count in let_in.values())
    assert max(count for second, count in let_in.items() if second) <= RATE * 1.2
    assert tries < 8000
