"""The first example: an embedded cluster counts what the Python standard library is made of.

An array of processes parses the library, one element a package; a Python function merges the parts; the table is printed.
``python examples/stdlib_facts.py [--root DIR] [--json]``
"""

import argparse
import json
import shutil
import sys
import sysconfig
import time
from collections import Counter
from pathlib import Path
from typing import Any

import jarvis
from jarvis.sdk.client import TERMINAL, Client

HERE = Path(__file__).parent
LEFT_OUT = {"site-packages", "dist-packages", "__pycache__", "test", "idlelib", "lib2to3"}
"""Installed packages, and the three largest folders of tests: the first run has to end within a minute."""


def entries(root: Path) -> list[Path]:
    """Packages and single modules of a library folder."""
    folders = [p for p in root.iterdir() if p.is_dir() and p.name not in LEFT_OUT and any(p.rglob("*.py"))]
    return sorted(folders) + sorted(root.glob("*.py"))


def merge(parts: list[dict[str, Any]]) -> dict[str, int]:
    """The function step: it runs in a warm process of the cluster."""
    total: Counter[str] = Counter()
    for part in parts:
        total.update(part["facts"])
    return dict(total)


def watch(client: Client, task: int) -> dict[str, Any]:
    """Show how far the array is until it has ended."""
    shown = -1
    while True:
        state = client.show(task)
        done = sum(n for name, n in state["counts"].items() if name in TERMINAL)
        if done != shown:
            bar = "#" * (40 * done // state["size"])
            end = "\r" if sys.stderr.isatty() and done < state["size"] else "\n"
            if (
                sys.stderr.isatty()
                or done == state["size"]
                or done * 10 // state["size"] != shown * 10 // state["size"]
            ):
                print(f"  [{bar:<40}] {done}/{state['size']} packages", end=end, file=sys.stderr, flush=True)
            shown = done
        if state["state"] in TERMINAL:
            return state
        time.sleep(0.2)


def count_facts(client: Client, root: Path) -> tuple[dict[str, int], list[dict[str, Any]]]:
    """(merged facts, facts by package)"""
    found = entries(root)
    lines = "\n".join(map(str, found)).encode()
    array = client.submit(
        name="syntax-facts", command=[sys.executable, "-I", str(HERE / "syntax_facts.py")], cwd="/",
        array=f"0-{len(found) - 1}", entries=client.put_blob(lines),
    )  # fmt: skip
    print(f"Task {array.id}: an array of {len(found)} packages and modules of {root}", file=sys.stderr)
    state = watch(client, array.id)
    if state["state"] != "succeeded":
        raise SystemExit(f"task {array.id} ended {state['state']}: see 'jarvis logs {array.id}_0'")
    parts = [json.loads(client.logs(f"{array.id}_{i}")) for i in range(len(found))]
    with jarvis.Executor(client=client) as pool:
        merged = pool.submit(merge, parts)
        facts = merged.result(timeout=60)
    print(f"Task {merged.task_id}: a Python function merged the parts", file=sys.stderr)
    return facts, parts


def container_step() -> None:
    """Containers are not built yet: say so, rather than nothing."""
    engine = "an engine is there, but" if shutil.which("docker") else "no engine, and"
    print(f"Container step: left out ({engine} container tasks are not built yet)", file=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(description="Count what the Python standard library is made of, on a cluster.")
    parser.add_argument("--root", type=Path, default=Path(sysconfig.get_paths()["stdlib"]), help="library to count")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    options = parser.parse_args()
    begin = time.monotonic()
    print("Starting an embedded cluster …", file=sys.stderr)
    with jarvis.local() as client:
        facts, parts = count_facts(client, options.root)
    container_step()
    if options.json:
        print(json.dumps(facts))
        return
    print(f"\n  {'largest packages':<24}{'files':>8}{'functions':>12}{'classes':>10}")
    for part in sorted(parts, key=lambda p: -p["facts"].get("functions", 0))[:8]:
        f = part["facts"]
        print(f"  {part['package']:<24}{f['files']:>8}{f.get('functions', 0):>12}{f.get('classes', 0):>10}")
    print()
    for name in sorted(facts, key=lambda n: -facts[n]):
        print(f"  {name:<24}{facts[name]:>12,}")
    total = sum(n for name, n in facts.items() if not name.endswith("files"))
    print(f"\n{total:,} syntax facts in {facts['files']:,} files after {time.monotonic() - begin:.1f} s.")
    print("Next: .venv/bin/jarvis up, then .venv/bin/jarvis submit --wait -- echo hello; more in docs/quickstart.md")


if __name__ == "__main__":
    main()
