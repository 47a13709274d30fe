"""Checks who may import whom, with import-linter.

The house in one sentence: pure packages decide, ports name what we need, adapters do it, shells loop, one file wires.
Every module has a ring, found by the longest matching name in `RINGS`; a module imports its own ring and those below.
The contracts are made from the modules that exist, so a new file is under the rules from its first day and a package
that is still to be written breaks nothing. A new top-level package must be given a ring here.

`--show` prints the contracts instead of checking them.
"""

import ast
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src"

# From the ground up. A module may import what stands on its own ring or below, with the exceptions further down.
ORDER = ("leaf", "core", "pure", "port", "shell", "adapter", "simulation", "wiring", "client", "entry")

RINGS = {
    "jarvis.utils": "leaf",
    "jarvis.worker.supervisor": "leaf",  # so that everybody may know its protocol, and it knows nobody
    "jarvis.core": "core",
    "jarvis.dag": "pure",
    "jarvis.scheduler": "pure",
    "jarvis.scheduler.scheduler": "shell",
    "jarvis.scheduler.leader": "shell",
    "jarvis.scheduler.workflows": "shell",
    "jarvis.scheduler.schedules": "shell",
    "jarvis.scheduler.arrivals": "shell",
    "jarvis.scheduler.replay": "shell",
    "jarvis.scheduler.recall": "shell",
    "jarvis.worker.alike_specs": "pure",
    "jarvis.worker.machine": "pure",
    "jarvis.worker.lanes": "pure",
    "jarvis.monitor.heartbeat_monitor": "pure",
    "jarvis.state": "port",
    "jarvis.bus": "port",
    "jarvis.worker.task_executor": "port",
    "jarvis.worker.task_environment": "pure",
    "jarvis.worker.gpus": "pure",
    "jarvis.worker.fence": "pure",
    "jarvis.worker.container_guard": "leaf",  # a program of its own
    "jarvis.worker.supervisor_client": "port",  # what executors build on: the supervisor, output files, accounts
    "jarvis.worker.logs": "port",
    "jarvis.worker.remover": "port",
    "jarvis.worker.places": "port",
    "jarvis.worker.account": "port",
    "jarvis.worker.container_engine": "port",
    "jarvis.worker.container_exec": "port",
    "jarvis.worker.container_usage": "port",
    "jarvis.worker.container_config": "pure",
    "jarvis.worker.ends": "port",
    "jarvis.worker.process_orders": "port",
    "jarvis.worker.warm": "port",  # the side of warm processes that their executor builds on
    "jarvis.worker.call_ends": "port",
    "jarvis.worker.function_bodies": "port",
    "jarvis.worker.function_ends": "port",
    "jarvis.worker.function_protocol": "port",
    "jarvis.worker.function_spool": "port",
    "jarvis.worker.step_inputs": "port",
    "jarvis.worker.attempt_files": "port",  # directories of attempts, which executors build on
    "jarvis.worker.file_cache": "port",
    "jarvis.worker.file_sets": "port",
    "jarvis.worker.pulled": "port",
    "jarvis.worker.pushed": "port",
    "jarvis.worker.function_worker": "port",  # runs in the tasks' own processes
    "jarvis.worker.agent": "wiring",  # the composition root of its own process
    "jarvis.policies": "port",  # finds what other packages plug in
    "jarvis.config": "port",  # settings are read by shells; pure code gets frozen dataclasses made from them
    "jarvis.state.state_manager": "shell",
    "jarvis.state.node_registry": "shell",
    "jarvis.api": "shell",
    "jarvis.worker": "shell",
    "jarvis.monitor": "shell",
    "jarvis.state.stores": "adapter",
    "jarvis.state.blob_stores": "adapter",
    "jarvis.bus.buses": "adapter",
    "jarvis.bus.transports": "adapter",
    "jarvis.worker.task_executors": "adapter",
    "jarvis.sim": "simulation",
    "jarvis.wiring": "wiring",
    "jarvis.web": "wiring",
    "jarvis.own_node": "wiring",
    "jarvis.scheduler_process": "wiring",
    "jarvis.promotion": "wiring",  # from one adapter to another
    "jarvis.sdk": "client",
    "jarvis.cli": "entry",
    "jarvis.__main__": "entry",
}

# What decides must be a function of what it is given: no clock, chance, I/O, logging or event loop.
IMPURE = (
    "asyncio concurrent ctypes fcntl http io logging multiprocessing os pathlib platform random resource secrets "
    "select shutil signal socket sqlite3 ssl subprocess tempfile threading time urllib uuid "
    "aiodocker asyncpg click fastapi httpx2 prometheus_client psutil pydantic_settings redis rich starlette structlog "
    "uvicorn websockets yaml"
).split()


def ring(module: str) -> str | None:
    """The ring of the longest name in `RINGS` that is `module` or a parent of it."""
    while module:
        if module in RINGS:
            return RINGS[module]
        module = module.rpartition(".")[0]
    return None


def units(source: Path) -> list[str]:
    """The modules and packages that carry one ring as a whole: a package is split only where a child differs."""

    def walk(path: Path, name: str) -> Iterator[str]:
        if any(other.startswith(f"{name}.") for other in RINGS) and path.is_dir():
            for child in sorted(path.iterdir()):
                if is_module(child) and child.name != "__init__.py":
                    yield from walk(child, f"{name}.{child.stem}")
        else:
            yield name

    return list(walk(source / "jarvis", "jarvis"))


def is_module(path: Path) -> bool:
    return path.suffix == ".py" or (path.is_dir() and any(path.glob("*.py")))


def home(unit: str) -> str:
    """The top-level package of a module: `jarvis.scheduler` for `jarvis.scheduler.cycle`."""
    return ".".join(unit.split(".")[:2])


def contract(number: int, name: str, kind: str, **lists: list[str]) -> str:
    """One contract in import-linter's own format; lists that are empty have nothing to say."""
    lines = [f"[importlinter:contract:{number}]", f"name = {name}", f"type = {kind}"]
    for key, values in lists.items():
        lines += [f"{key} ="] + [f"    {value}" for value in values]
    # The root module offers the client library's names lazily; that is no import of whoever reads its version.
    lines += ["ignore_imports =", "    jarvis -> jarvis.**", "unmatched_ignore_imports_alerting = none", ""]
    return "\n".join(lines)


def forbidden(found: list[str]) -> Iterator[tuple[str, list[str], list[str]]]:
    """Name, sources and targets of every rule that the order of the rings does not state."""
    rings: dict[str, list[str]] = {name: [unit for unit in found if ring(unit) == name] for name in ORDER}
    deciders = rings["core"] + rings["pure"]
    yield "pure code knows no clock, chance, I/O, logging or event loop", deciders, IMPURE
    for package, group in groupby(sorted(rings["pure"], key=home), key=home):
        others = [unit for unit in rings["pure"] if home(unit) != package]
        yield f"pure packages know each other not: {package}", list(group), others
    for folder in sorted(rings["adapter"]):
        yield f"adapters know no shells: {folder}", [folder], rings["shell"]
        yield f"adapters know each other not: {folder}", [folder], [u for u in rings["adapter"] if u != folder]
    for leaf in rings["leaf"]:
        yield f"a leaf imports nothing of ours: {leaf}", [leaf], [unit for unit in found if unit != leaf]
    known = {*rings["leaf"], *rings["core"], *rings["client"]}
    yield "the client library knows core and HTTP alone", rings["client"], [u for u in found if u not in known]


def configuration(found: list[str]) -> str:
    # Highest first, as import-linter reads them; a colon between modules lets them import each other.
    layers = [" : ".join(unit for unit in found if ring(unit) == name) for name in reversed(ORDER)]
    parts = ["[importlinter]\nroot_package = jarvis\ninclude_external_packages = True\n"]
    parts.append(
        contract(0, "imports point from shells to the core", "layers", layers=[line for line in layers if line])
    )
    rules = [rule for rule in forbidden(found) if rule[1] and rule[2]]
    for number, (name, sources, targets) in enumerate(rules, start=1):
        parts.append(contract(number, name, "forbidden", source_modules=sources, forbidden_modules=targets))
    return "\n".join(parts)


def foreign_imports(package: Path, own: str) -> Iterator[str]:
    """Imports in `package` of anything but the standard library and the package itself."""
    for path in sorted(package.rglob("*.py")):
        parents = path.relative_to(package).parts  # a relative import with more dots than these leaves the package
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                inside = 0 < node.level <= len(parents)
                names = [own if inside else "." * node.level + (node.module or "")]
            else:
                continue
            for name in names:
                if name.split(".")[0] not in sys.stdlib_module_names and not f"{name}.".startswith(f"{own}."):
                    yield f"{path}:{node.lineno}: imports {name}"


def broken_contracts(text: str, source: Path) -> str:
    """What import-linter says about the contracts in `text`, empty when all hold."""
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "contracts.ini"
        config.write_text(text, encoding="utf-8")
        linter = Path(sys.executable).parent / "lint-imports"
        command = [str(linter), "--config", str(config), "--no-cache"]
        # The linter looks for the package in its working directory first.
        done = subprocess.run(command, cwd=source, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr if done.returncode else ""


def check(source: Path) -> list[str]:
    """Everything that is wrong with the imports below `source`."""
    found = units(source)
    problems = [
        f"{line}; the supervisor outlives every upgrade, so it is standard library only"
        for line in foreign_imports(source / "jarvis" / "worker" / "supervisor", "jarvis.worker.supervisor")
    ]
    for unit in [unit for unit in found if ring(unit) is None]:
        problems.append(f"{unit} has no ring: give it one in scripts/lint_imports.py")
        found.remove(unit)
    if found and (broken := broken_contracts(configuration(found), source)):
        problems.append(broken)
    return problems


def main() -> int:
    if "--show" in sys.argv:
        print(configuration([unit for unit in units(SOURCE) if ring(unit) is not None]))
        return 0
    problems = check(SOURCE)
    for problem in problems:
        print(problem, file=sys.stderr)
    print(f"imports: {len(units(SOURCE))} modules and packages, {len(problems)} problem(s)")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
