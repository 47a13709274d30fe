"""The import gate: a house in order passes, and each kind of wrong import is named."""

from pathlib import Path

import pytest
from scripts import lint_imports

HOUSE = {
    "utils/text.py": "",
    "core/task.py": "from jarvis.utils import text",
    "dag/resolver.py": "from jarvis.core import task",
    "scheduler/cycle.py": "from jarvis.core import task",
    "scheduler/policy/order.py": "",
    "scheduler/scheduler.py": "import asyncio\nfrom jarvis.scheduler import cycle\nfrom jarvis.dag import resolver",
    "state/store.py": "from jarvis.core import task",
    "state/state_manager.py": "from jarvis.state import store",
    "state/stores/memory.py": "from jarvis.state import store",
    "bus/bus.py": "",
    "bus/buses/memory.py": "from jarvis.bus import bus",
    "worker/agent.py": "from jarvis.worker.supervisor import protocol\nfrom jarvis.bus import bus",
    "worker/supervisor/protocol.py": "import os",
    "worker/supervisor/journal.py": "from . import protocol\nfrom .protocol import os",
    "monitor/heartbeat_monitor.py": "from jarvis.core import task",
    "api/server.py": "from jarvis.state import state_manager",
    "sdk/client.py": "from jarvis.core import task",
    "wiring.py": "from jarvis.state.stores import memory\nfrom jarvis.api import server",
    "cli/main.py": "from jarvis import wiring\nfrom jarvis.sdk import client",
}


def build(root: Path, **changed: str) -> Path:
    """The house above with some files replaced (dots for slashes: `core.task`), below `root`."""
    (root / "jarvis").mkdir()
    (root / "jarvis" / "__init__.py").write_text("from jarvis.sdk import client as client\n")
    files = HOUSE | {name.replace(".", "/") + ".py": text for name, text in changed.items()}
    for name, text in files.items():
        path = root / "jarvis" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
        for parent in path.relative_to(root).parents[:-1]:
            (root / parent / "__init__.py").touch()
    return root


def test_a_house_in_order_has_no_problem(tmp_path: Path) -> None:
    assert lint_imports.check(build(tmp_path)) == []


def test_an_empty_house_has_no_problem(tmp_path: Path) -> None:
    (tmp_path / "jarvis").mkdir()
    (tmp_path / "jarvis" / "__init__.py").touch()
    assert lint_imports.check(tmp_path) == []


@pytest.mark.parametrize(
    ("module", "text", "expected"),
    [
        ("core.task", "from jarvis.dag import resolver", "jarvis.core is not allowed to import jarvis.dag"),
        ("core.task", "import time", "pure code knows no clock"),
        ("core.task", "from jarvis.utils import files", "pure code knows no clock"),
        ("dag.resolver", "from jarvis.scheduler import cycle", "pure packages know each other not"),
        ("scheduler.policy.order", "import random", "pure code knows no clock"),
        ("scheduler.new", "from jarvis.state import store", "is not allowed to import jarvis.state.store"),
        (
            "state.store",
            "from jarvis.state import state_manager",
            "is not allowed to import jarvis.state.state_manager",
        ),
        (
            "api.server",
            "from jarvis.state.stores import memory",
            "jarvis.api is not allowed to import jarvis.state.stores",
        ),
        ("bus.buses.memory", "from jarvis.state.stores import memory", "adapters know each other not"),
        ("bus.buses.memory", "from jarvis.worker import agent", "adapters know no shells"),
        ("worker.supervisor.protocol", "from jarvis.utils import text", "a leaf imports nothing of ours"),
        ("worker.supervisor.protocol", "import psutil", "imports psutil; the supervisor outlives every upgrade"),
        ("worker.supervisor.protocol", "from .. import agent", "imports ..; the supervisor outlives every upgrade"),
        ("sdk.client", "from jarvis.bus import bus", "the client library knows core and HTTP alone"),
        ("wiring", "from jarvis.cli import main", "is not allowed to import jarvis.cli"),
        ("attic.box", "", "jarvis.attic has no ring"),
    ],
)
def test_a_wrong_import_is_named(tmp_path: Path, module: str, text: str, expected: str) -> None:
    house = build(tmp_path, **{"utils.files": "import os", module: text})
    problems = " ".join(" ".join(lint_imports.check(house)).split())
    assert expected in problems
