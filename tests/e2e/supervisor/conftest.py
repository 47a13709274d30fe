"""Fixtures: a node, and a running supervisor with an agent on it."""

from __future__ import annotations

import sys
import uuid
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from typing import TYPE_CHECKING

from tests.e2e.supervisor.harness import Agent, Node
from tests.e2e.supervisor.harness import node as make_node

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    """A node without a supervisor yet."""
    with make_node(tmp_path, uuid.uuid4().hex) as made:
        yield made


@pytest.fixture
def agent(node: Node) -> Agent:
    """An agent connected to a fresh supervisor."""
    node.up()
    return node.agent()
