"""The page about the architecture says what is there."""

import importlib
import re
from pathlib import Path

import pytest
from scripts.state_diagram import BEGIN, END, PAGE, diagram

from jarvis.core.states import State

ROWS = re.findall(r"^\|[^|]+\|([^|]*)\|([^|]*)\| `([^`]+)` \| P\d \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
SOURCE = Path(__file__).parents[2] / "src" / "jarvis"


def test_there_are_rows() -> None:
    assert len(ROWS) > 25


@pytest.mark.parametrize(("names", "port", "file"), ROWS)
def test_every_component_is_where_the_page_says(names: str, port: str, file: str) -> None:
    module = importlib.import_module("jarvis." + file.removesuffix(".py").replace("/", "."))
    for name in re.findall(r"`(\w+)`", names):
        assert hasattr(module, name), f"{file} has no {name}"
    for path in re.findall(r"`([^`]+)`", port):
        assert (SOURCE / path).is_file()


def test_the_diagram_is_the_table() -> None:
    page = PAGE.read_text(encoding="utf-8")
    between = page.partition(BEGIN)[2].partition(END)[0].strip()
    assert between == diagram(), "run: python scripts/state_diagram.py --write"
    assert all(str(state) in between for state in State)
