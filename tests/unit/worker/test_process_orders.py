"""What a process executor tells the supervisor, and in which order."""

import asyncio
from pathlib import Path

import msgspec
from tests.unit.worker.process_node import Node

from jarvis.core.effects import Assignment, Gang
from jarvis.core.gpus import Share
from jarvis.core.task import ArraySpec, TaskSpec
from jarvis.worker.account import Account
from jarvis.worker.lanes import DEPTH
from jarvis.worker.machine import Work
from jarvis.worker.process_orders import Pattern, work_of
from jarvis.worker.task_executors.process import PORTION

ME = Account("ann", "/home/ann", "/bin/sh", None)


def work(spec: TaskSpec, number: int = 1, gang: Gang | None = None, shares: tuple[Share, ...] = ()) -> Work:
    packed = msgspec.Raw(msgspec.msgpack.encode(spec))
    return Work(Assignment(number, 9, 1, 7, number, "p", "ann", packed, number, gang=gang), spec, shares, place="3")


def test_an_order_owes_nothing_to_the_one_before() -> None:
    spec = TaskSpec(name="t", command=("true",), stdin="-", array=ArraySpec(((0, 9, 1),)), env={"JARVIS_RANK": "mine"})
    pattern = Pattern(spec, None, ME, "n", "")
    gang = Gang(1, ("a", "b"), 4242)
    works = [work(spec, 1, shares=(Share(1, 1000, 5),)), work(spec, 2, gang), work(spec, 3)]
    orders = [pattern.order(each, f"/s/{each.number}", 0.0, entry) for each, entry in zip(works, "xyz", strict=True)]
    assert orders == [
        Pattern(spec, None, ME, "n", "").order(each, f"/s/{each.number}", 0.0, entry)
        for each, entry in zip(works, "xyz", strict=True)
    ]
    assert [order.get("stdin") for order in orders] == ["pipe", None, "pipe"], "a stream comes to rank 0 alone"
    assert [order["env"]["CUDA_VISIBLE_DEVICES"] for order in orders] == ["1", "", ""]
    assert [order["env"]["JARVIS_RANK"] for order in orders] == ["mine", "1", "mine"]
    assert [order["env"].get("JARVIS_GPU_MEMORY") for order in orders] == ["5", None, None]
    assert [work_of(order["tag"]).spec for order in orders] == [spec] * 3


def test_a_pattern_is_of_one_spec_and_one_account() -> None:
    spec = TaskSpec(name="t", command="echo $X")
    pattern = Pattern(spec, None, ME, "n", "")
    assert pattern.fits(spec, ME)
    assert not pattern.fits(msgspec.structs.replace(spec, login_shell=True), ME)
    assert not pattern.fits(spec, Account("ann", "/home/ann", "/bin/bash", None))


async def test_the_supervisor_forgets_who_had_a_place_before_it_hears_who_has_it_next(tmp_path: Path) -> None:
    """Else an agent that starts anew in between would hear of two attempts in one place."""
    node = Node(tmp_path)
    node.assign([1])
    node.ended(1)
    node.recorded([1])
    node.assign([2])
    assert [message["op"] for message in node.heard.messages] == ["start", "ack", "start"]
    assert len({work_of(message["tag"]).place for message in node.heard.said("start")}) == 1
    await asyncio.sleep(0)
    assert len(node.heard.messages) == 3


async def test_what_is_given_back_leaves_its_place_to_another(tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.assign([1])
    node.ended(1)
    node.assign([2, 3])
    assert [message["number"] for message in node.heard.said("start")] == [1, 2, 3], "the third is handed ahead"
    node.executor.not_begun([3])
    node.ended(2)
    node.recorded([1, 2])
    again = node.heard.said("start")[-1]
    assert again["number"] == 3
    places = [work_of(message["tag"]).place for message in node.heard.said("start")]
    assert places[3] == places[2]


async def short_ones(folder: Path) -> Node:
    """A node that knows how short such processes are."""
    node = Node(folder)
    node.assign([1])
    node.ended(1)
    node.recorded([1])
    return node


async def test_a_lane_is_filled_in_portions_so_that_its_first_need_not_wait(tmp_path: Path) -> None:
    node = await short_ones(tmp_path)
    node.assign(range(2, 200))
    assert len(node.heard.said("start")) == 2 + PORTION
    for _ in range(DEPTH):
        await asyncio.sleep(0)
    starts = node.heard.said("start")[1:]
    assert 3 * PORTION < len(starts) <= 1 + DEPTH
    assert {message["slot"] for message in starts} == {2}


async def test_a_lane_that_is_over_is_not_filled_further(tmp_path: Path) -> None:
    node = await short_ones(tmp_path)
    node.assign(range(2, 20))
    node.executor.not_begun(list(range(3, 3 + PORTION)))
    node.ended(2)
    for _ in range(DEPTH):
        await asyncio.sleep(0)
    slots = [message["slot"] for message in node.heard.said("start")]
    assert slots == [1] + [2] * (1 + PORTION) + [3] * (20 - 3)
