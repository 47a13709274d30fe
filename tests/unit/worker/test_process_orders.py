"""What a process executor tells the supervisor, and in which order."""

import asyncio
from pathlib import Path

from tests.unit.worker.process_node import Node

from jarvis.worker.task_executors.process import work_of


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
