"""The first example: an embedded cluster counts what the Python standard library is made of.

An array of processes parses the library, one element a package; a Python function merges the parts; a
container, where there is an engine, adds up a check sum; the table is printed.
``python examples/stdlib_facts.py [--root DIR] [--json]``
"""

import argparse
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
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


def container_step(client: Client, facts: dict[str, int]) -> None:
    """A container adds up the check sum of the merge; where none can be had, one line says why."""
    image = f"jarvis-example:{os.getpid()}"
    reason = make_image(image)
    if reason:
        print(f"Container step: left out ({reason})", file=sys.stderr)
        return
    text = json.dumps(facts)
    command = 'printf %s "$FACTS" | sha256sum'
    try:
        task = client.submit(
            name="check-sum", image=image, pull="never", network="none", command=command, env={"FACTS": text}
        ).id
        state = client.wait(task, timeout=60)["state"]
        found = client.logs(task).split()[:1]
        agrees = state == "succeeded" and found == [hashlib.sha256(text.encode()).hexdigest().encode()]
        said = "its check sum agrees" if agrees else f"it ended {state} and said {found}: see the node's log"
        print(f"Task {task}: a container looked at the merge; {said}", file=sys.stderr)
    finally:
        subprocess.run(["docker", "image", "rm", "--force", image], capture_output=True, check=False)


def make_image(name: str) -> str:
    """An image of nothing but a static busybox, made without any registry; or why there is none."""
    busybox = shutil.which("busybox")
    if shutil.which("docker") is None or busybox is None:
        return "it needs a container engine with its docker command, and busybox-static"
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as image:
        image.add(Path(busybox).resolve(), "bin/busybox")
        for program in ("sh", "printf", "sha256sum"):
            link = tarfile.TarInfo(f"bin/{program}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            image.addfile(link)
    command = ["docker", "import", "--change", "ENV PATH=/bin", "-", name]
    try:
        done = subprocess.run(command, input=tar.getvalue(), capture_output=True, check=False, timeout=30)
    except subprocess.TimeoutExpired:
        return "the container engine takes too long"
    return "" if done.returncode == 0 else done.stderr.decode().strip().splitlines()[-1]


def main() -> None:
    parser = argparse.ArgumentParser(description="Count what the Python standard library is made of, on a cluster.")
    parser.add_argument("--root", type=Path, default=Path(sysconfig.get_paths()["stdlib"]), help="library to count")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    options = parser.parse_args()
    begin = time.monotonic()
    print("Starting an embedded cluster …", file=sys.stderr)
    with jarvis.local() as client:
        facts, parts = count_facts(client, options.root)
        container_step(client, facts)
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
