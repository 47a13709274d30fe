"""What each process imports at its start, counted: seconds depend on the machine, modules do not."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass

import pytest

LATER = {
    "asyncpg", "redis", "cryptography", "dns", "obstore", "aiodocker", "pynvml", "textual", "resvg_py", "httpx2", "rich", "yaml",
    "pydantic_settings", "multipart",
}  # fmt: skip
"""What some settings, commands or requests need: it is imported when they do."""


@dataclass(frozen=True)
class Start:
    """A process: its imports, how many modules they may be (a tenth above what they are), and what they must not bring."""

    code: str
    modules: int
    without: frozenset[str]


STARTS = {
    "help": Start("import jarvis.cli.main", 130, frozenset({*LATER, "fastapi", "pydantic", "msgspec", "asyncio"})),
    "up": Start("import jarvis.cli.cluster", 195, frozenset({*LATER, "fastapi", "pydantic", "msgspec", "asyncio"})),
    "server": Start(
        "import jarvis.cli.cluster, jarvis.wiring, jarvis.web", 770, frozenset({*LATER, "pydantic.v1", "cloudpickle"})
    ),
    "agent": Start("import jarvis.worker.agent", 375, frozenset({*LATER, "fastapi", "pydantic", "click", "sqlite3"})),
    "warm process": Start(
        "import jarvis.worker.function_worker", 165, frozenset({*LATER, "fastapi", "pydantic", "asyncio", "websockets"})
    ),
}


@pytest.fixture(scope="module")
def imported() -> dict[str, set[str]]:
    """What each brings into an interpreter that has nothing else to do; all at once, as they do not wait for each other."""
    tell = "; import json, sys; print(json.dumps(sorted(sys.modules)))"
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("COV")
    }  # it measures itself, too
    running = {
        name: subprocess.Popen([sys.executable, "-c", start.code + tell], stdout=subprocess.PIPE, env=environment)
        for name, start in STARTS.items()
    }
    return {name: set(json.loads(process.communicate()[0])) for name, process in running.items()}


@pytest.mark.parametrize("name", STARTS)
def test_a_start_imports_no_more_than_it_needs(name: str, imported: dict[str, set[str]]) -> None:
    found, start = imported[name], STARTS[name]
    assert not found & start.without, "import it where it is used"
    assert len(found) <= start.modules, f"{name} imports {len(found)} modules"
