"""A gang is never partial: random clusters, requests, ends, losses, commands and leaders."""

from random import Random

import pytest
from tests.unit.scheduler.gang_harness import Gangs, successor

from jarvis.core.inputs import Known
from jarvis.core.retry import RetryPolicy
from jarvis.scheduler.cycle import Policy
from jarvis.scheduler.policy.backfill import Backfill


@pytest.mark.parametrize("seed", range(40))
def test_a_gang_is_never_partial(seed: int) -> None:
    """Random clusters, random requests, random ends, losses and commands; the invariants are derived anew after each step."""
    random = Random(seed)
    backfill = random.choice(("none", "skip", "easy", "conservative"))
    case = Gangs(Policy(balancer=random.choice(("least_loaded", "bin_pack", "spread")), backfill=Backfill(backfill)))
    case.nodes(random.randint(2, 6), cpus=random.choice((2, 4)))
    for _ in range(60):
        _something(case, random)
    for attempt in list(case.cluster.attempts.values()):
        assert len({p.node for p in attempt.placements}) == case.cluster.tasks[attempt.task].spec.nodes


def _something(case: Gangs, random: Random) -> None:
    case.now += random.choice((0.0, 1.0, 30.0))
    gangs = [a for a in case.cluster.attempts.values() if a.ranks]
    roll = random.random()
    if roll < 0.35 or not gangs:
        case.submit(
            cpus=random.choice((1, 1, 2)), nodes=random.choice((1, 2, 2, 3)), time_limit=random.choice((None, 60.0)),
            retry=RetryPolicy(max_attempts=2, base=1.0),
        )  # fmt: skip
        return
    attempt = random.choice(gangs)
    task, alive = attempt.task, [at for at, rank in enumerate(attempt.ranks) if rank.cause is None]
    rank = random.choice(alive)
    if roll < 0.55:
        case.rank_started(task, rank)
    elif roll < 0.75:
        case.rank_ends(task, rank, random.choice((0, 0, 0, 1)))
    elif roll < 0.8:
        case.rank_returned(task, rank)
    elif roll < 0.88:
        case.command(random.choice(("cancel", "hold", "requeue", "suspend", "resume")), task)
    elif roll < 0.93:
        case.lose(attempt.ranks[rank].node)
        case.able(cpus=4)
    elif roll < 0.96:
        _another_leader(case, random)
    else:
        single = [a for a in case.cluster.attempts.values() if not a.ranks]
        if single:
            case.ends(single[0].task)


def _another_leader(case: Gangs, random: Random) -> None:
    """It reads the rows and hears every node, of which some do not know what they were just told, or have been started anew."""
    case.cluster = successor(case)
    for view in list(case.cluster.nodes.values()):
        known = []
        for number, placed in view.placed.items():
            if placed.begun or random.random() < 0.7:
                token = case.cluster.attempts[placed.key].token
                known.append(Known(number, token, "running" if placed.begun else "assigned"))
        boot = "another" if random.random() < 0.1 else view.node.boot_id
        case.node(view.node.name, labels=view.node.labels, known=[] if boot == "another" else known, boot=boot)
