"""What servers agree on, on every store: leases and epochs, replicas, secrets, tokens that end or are used once."""

import pytest
from tests.contract.harness import Ticking

from jarvis.core.changes import Changes
from jarvis.core.errors import LeadershipHeld, StaleEpoch
from jarvis.core.node import Node
from jarvis.state.coordination import TAKEOVERS, Leader, Leadership, Replica, Takeover, Token
from jarvis.state.store import Store


async def test_a_lease_keeps_others_out_until_it_ends(store: Store, clock: Ticking) -> None:
    first = await store.leadership_acquire("a", 10.0)
    for holder in ("b", "a"):
        with pytest.raises(LeadershipHeld) as caught:
            await store.leadership_acquire(holder, 10.0)
        assert (caught.value.holder, round(caught.value.left_s, 3)) == ("a", 10.0)
    clock.now += 9.0
    await store.leadership_renew(first, 10.0)
    clock.now += 9.0
    with pytest.raises(LeadershipHeld):
        await store.leadership_acquire("b", 10.0)
    clock.now += 1.0
    assert await store.leadership_acquire("b", 10.0) == Leadership(first.incarnation, first.epoch + 1)


async def test_who_was_superseded_neither_renews_nor_releases(store: Store, clock: Ticking) -> None:
    old = await store.leadership_acquire("a", 1.0)
    clock.now += 1.0
    new = await store.leadership_acquire("b", 10.0)
    with pytest.raises(StaleEpoch):
        await store.leadership_renew(old, 10.0)
    await store.leadership_release(old)
    assert await store.leader_get() == Leader("b", new, 10.0)
    with pytest.raises(StaleEpoch):
        await store.leader_commit(old, Changes())


async def test_an_expired_lease_is_renewed_while_nobody_took_it(store: Store, clock: Ticking) -> None:
    lead = await store.leadership_acquire("a", 1.0)
    clock.now += 5.0
    assert (await store.leader_get()).left_s == pytest.approx(-4.0)
    await store.leader_commit(lead, Changes())
    await store.leadership_renew(lead, 10.0)
    with pytest.raises(LeadershipHeld):
        await store.leadership_acquire("b", 10.0)


async def test_a_release_lets_the_next_lead_at_once(store: Store) -> None:
    lead = await store.leadership_acquire("a", 10.0)
    await store.leadership_release(lead)
    assert (await store.leadership_acquire("b", 10.0)).epoch == lead.epoch + 1


async def test_takeovers_are_told_with_their_cause_and_the_last_ones_kept(store: Store, clock: Ticking) -> None:
    lead = await store.leadership_acquire("a", 10.0)
    first = clock.now
    clock.now += 5.0
    await store.leadership_renew(lead, 10.0)
    clock.now += 12.0
    lead = await store.leadership_acquire("b", 10.0)
    await store.leadership_release(lead)
    clock.now += 1.5
    lead = await store.leadership_acquire("c", 10.0)
    e = lead.epoch
    assert await store.takeover_list(10) == [
        Takeover(e, "c", clock.now, "handed over", 1.5),
        Takeover(e - 1, "b", clock.now - 1.5, "the lease had ended", 12.0),
        Takeover(e - 2, "a", first, "the first leader", 0.0),
    ]
    await store.leadership_release(lead)
    for _ in range(TAKEOVERS):
        await store.leadership_acquire("d")
    told = await store.takeover_list(1000)
    assert len(told) == TAKEOVERS
    assert {(t.holder, t.cause) for t in told} == {("d", "started")}
    assert len(await store.takeover_list(3)) == 3


async def test_replicas_are_listed_while_they_are_seen(store: Store, clock: Ticking) -> None:
    await store.replica_seen(Replica("b", "https://b", "1"))
    clock.now += 10.0
    await store.replica_seen(Replica("a", "https://a", "1", "scheduler", 4, 9))
    assert [r.name for r in await store.replica_list(10.0)] == ["a", "b"]
    assert await store.replica_list(9.0) == [Replica("a", "https://a", "1", "scheduler", 4, 9, clock.now)]
    await store.replica_seen(Replica("b", "https://b2", "2", "api"))
    assert await store.replica_list(1.0) == [
        Replica("a", "https://a", "1", "scheduler", 4, 9, clock.now), Replica("b", "https://b2", "2", "api", 0, 0, clock.now),
    ]  # fmt: skip
    clock.now += 3600.0
    await store.replica_seen(Replica("c", "https://c", "1"))
    assert [r.name for r in await store.replica_list(1e9)] == ["c"], "who was not seen for an hour is forgotten"


async def test_a_nodes_session_is_where_it_was_last_heard(store: Store, lead: Leadership) -> None:
    nodes = {n: Node(id=n, name=f"n{n}") for n in (1, 2, 3)}
    await store.leader_commit(lead, Changes(nodes=nodes))
    await store.node_seen_many([(1, 5.0, {}), (2, 5.0, {}), (9, 5.0, {})], "a")
    await store.node_seen_many([(2, 6.0, {})], "b")
    await store.node_seen_many([(3, 6.0, {})])
    assert await store.node_replicas() == {1: "a", 2: "b"}
    await store.leader_commit(lead, Changes(nodes={1: nodes[1]}, nodes_removed=[2]))
    assert await store.node_replicas() == {1: "a"}


async def test_the_first_secret_under_a_name_is_everybodys(store: Store) -> None:
    assert await store.secret_keep("ca", b"first") == b"first"
    assert await store.secret_keep("ca", b"second") == b"first"
    assert await store.secret_keep("bus", b"\x00") == b"\x00"


async def test_a_token_is_taken_once(store: Store) -> None:
    token = Token("h", "node", "node", (), "join")
    await store.token_put(token)
    assert await store.token_take("h") == token
    assert await store.token_take("h") is None
    assert await store.token_list() == []


async def test_a_token_ends_at_its_time(store: Store, clock: Ticking) -> None:
    lasting, ending = Token("a", "ann", "user"), Token("b", "ann", "user", expires_at=clock.now + 5.0)
    await store.token_put(lasting)
    await store.token_put(ending)
    clock.now += 4.0
    assert await store.token_list() == [lasting, ending]
    clock.now += 1.0
    assert await store.token_list() == [lasting]
    assert await store.token_take("b") is None
