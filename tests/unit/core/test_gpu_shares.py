"""Which GPUs a request gets, by example."""

import pytest

from jarvis.core.gpus import NO_ROOM, Ask, Room, Share, ask_of, could_hold, devices, pick, room_of, with_back, without

GB = 1 << 30


@pytest.mark.parametrize(
    ("parts", "wanted", "shares"),
    [
        ((400, 1000, 1000), 2000, ((1, 1000, 0), (2, 1000, 0))),
        ((1000, 700, 400), 300, ((2, 300, 0),)),
        ((1000, 1000, 500), 1500, ((0, 1000, 0), (2, 500, 0))),
        ((1000, 400), 1500, None),
        ((400, 400), 1000, None),
        ((400, 400), 500, None),
    ],
)
def test_whole_ones_are_untouched_and_a_rest_leaves_the_least(
    parts: tuple[int, ...], wanted: int, shares: tuple[tuple[int, int, int], ...] | None
) -> None:
    unknown = (0,) * len(parts)
    assert pick(Room(parts, unknown, unknown), Ask(wanted, 0)) == shares


def test_a_share_by_memory_takes_those_bytes_where_they_leave_the_least() -> None:
    room = Room((1000, 1000), (20 * GB, 8 * GB), (24 * GB, 8 * GB))
    assert pick(room, Ask(0, 6 * GB)) == (Share(1, 0, 6 * GB),)
    assert pick(room, Ask(0, 16 * GB)) == (Share(0, 0, 16 * GB),)
    assert pick(room, Ask(1000, 16 * GB)) is None, "the large one is not untouched"
    left = without(room, [Share(1, 0, 6 * GB), Share(7, 500)])
    assert left.memory == (20 * GB, 2 * GB)
    assert with_back(left, [Share(1, 0, 6 * GB)]) == room


def test_a_part_takes_as_much_of_the_memory() -> None:
    room = room_of({"gpu": 2000}, (8 * GB,))
    assert pick(room, Ask(500, 0)) == (Share(0, 500, 4 * GB),)
    assert without(room, [Share(0, 250)]).memory == (6 * GB, 8 * GB)
    assert Room((1000, 500), (2 * GB, 8 * GB), (8 * GB, 8 * GB)).useful == (250, 500)
    assert Room((1000,), (0,), (0,)).useful == (1000,)


def test_what_a_node_has() -> None:
    assert devices(2500) == [1000, 1000, 500], "the last one may be a part"
    assert room_of({"gpu": 2000, "gpu_memory": 16 * GB}).sizes == (8 * GB, 8 * GB)
    assert room_of({"gpu": 2000}, (8 * GB, 4 * GB)).sizes == (8 * GB, 4 * GB)
    assert room_of({}) == NO_ROOM
    assert ask_of({"cpu": 1}) is None
    assert could_hold({}, (), {"cpu": 1})
    assert could_hold({"gpu": 2000}, (8 * GB,), {"gpu_memory": 8 * GB})
    assert not could_hold({"gpu": 2000}, (8 * GB,), {"gpu_memory": 9 * GB})
