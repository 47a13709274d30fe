"""Node failure: a node dies with all that runs on it; its tasks run elsewhere, once it has been silent for 20 seconds."""

import contextlib
import os
import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import jarvis

DIES = "node-2"
WORK = 'echo "$JARVIS_NODE"; until [ -e "$0" ]; do sleep 0.1; done'


def kill_node(directory: Path) -> int:
    """Everything that runs on the node at once, as when its power goes; how many processes that was."""
    mark, killed = os.fsencode(str(directory)), 0
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            if mark in (process / "cmdline").read_bytes() + (process / "environ").read_bytes():
                os.kill(int(process.name), signal.SIGKILL)
                killed += 1
    return killed


def until(happened: Callable[[], bool], timeout: float = 90.0) -> None:
    deadline = time.monotonic() + timeout
    while not happened():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {timeout:g} s")
        time.sleep(0.1)


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="jarvis-") as folder:
        home, go = Path(folder) / "s", Path(folder) / "go"
        with jarvis.local(home, cpus=2, nodes=3) as client:
            spec = {"command": ["sh", "-c", WORK, str(go)], "balancer": "spread", "resources": {"cpu": 0.5}}
            ids = [answer["id"] for answer in client.submit_many([spec] * 6)]
            until(lambda: all(client.logs(ident).strip() for ident in ids))
            before = {ident: client.logs(ident).decode().strip() for ident in ids}
            hit = [ident for ident in ids if before[ident] == DIES]
            print(f"{len(ids)} tasks run, {len(hit)} of them on {DIES}")

            kill_node(home / DIES)
            until(lambda: all(client.show(ident)["attempt"] == 2 for ident in hit))
            print(f"{DIES} is lost")
            go.touch()
            ended = {ident: client.wait(ident, 60) for ident in ids}
            after = {ident: client.logs(ident).decode().strip() for ident in ids}
            print(f"{sum(task['state'] == 'succeeded' for task in ended.values())} of {len(ids)} succeeded")
            print("moved:", " ".join(sorted({f"{before[i]} -> {after[i]}" for i in hit})))
            print("stayed:", all(before[i] == after[i] and ended[i]["attempt"] == 1 for i in ids if i not in hit))


if __name__ == "__main__":
    main()
