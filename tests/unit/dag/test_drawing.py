"""Pictures of workflows."""

import xml.etree.ElementTree as ET

from tests.unit.dag.test_documents import read

from jarvis.core.states import State
from jarvis.core.workflow import Step
from jarvis.dag.drawing import critical_path, gantt, mermaid, svg

DOCUMENT = """
steps:
  - {id: a, command: x}
  - {id: b-1, command: x, depends_on: [a]}
  - {id: c, for_each: [1, 2], depends_on: [{step: a, on: failure}], steps: [{id: d, command: x}]}
  - {id: e, command: x, depends_on: [b-1, {step: c, on: any}]}
finally:
  - {id: z, sleep: 1}
"""


def row(path: str, begin: float, end: float | None, state: State = State.SUCCEEDED) -> tuple[str, Step]:
    return path, Step(workflow=1, path=path, state=state, started_at=begin, ended_at=end)


ROWS = dict([row("a", 1, 4), row("b-1", 4.5, 6), row("c", 4, 5), row("c[0]/d", 4, 5), row("e", 7, None, State.RUNNING)])


def test_a_graph_in_mermaid_names_every_step_and_edge() -> None:
    drawn = mermaid(read(DOCUMENT).block, ROWS)
    assert 'subgraph c["c *"]' in drawn and "c_2f_d" in drawn
    assert "a --> b_2d_1" in drawn and "a -. failure .-> c" in drawn and "c -. any .-> e" in drawn
    assert 'a["a"]:::succeeded' in drawn and 'z["z"]\n' in drawn


def test_a_graph_in_svg_is_well_formed_and_has_a_box_for_each_step() -> None:
    page = ET.fromstring(svg(read(DOCUMENT).block, ROWS))
    titles = [t.text for t in page.iter("{http://www.w3.org/2000/svg}title")]
    assert titles == ["a: succeeded", "b-1: succeeded", "c: succeeded", "e: running", "z: waiting"]
    assert len(page.findall("{http://www.w3.org/2000/svg}path")) == 4


def test_a_picture_of_thousands_says_how_many_are_left_out() -> None:
    many = "steps:\n" + "".join(f"  - {{id: s{n}, command: x}}\n" for n in range(600))
    assert "… and 100 more steps" in svg(read(many).block, {})
    assert mermaid(read(many).block, {}).count('["s') >= 500


def test_time_is_drawn_as_bars_and_explained_as_a_chain() -> None:
    page = ET.fromstring(gantt(ROWS, 1.0, 9.0))
    assert len(page.findall(".//{http://www.w3.org/2000/svg}rect")) == 5
    ended = ROWS | dict([row("e", 7, 9)])
    assert [(link.path, link.waited, link.took) for link in critical_path(read(DOCUMENT).block, ended, 0.5)] == [
        ("a", 0.5, 3.0), ("b-1", 0.5, 1.5), ("e", 1.0, 2.0),
    ]  # fmt: skip
    assert critical_path(read(DOCUMENT).block, {}, 0.0) == []
