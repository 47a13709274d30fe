"""Bring a running node to the program that is installed now: ``python -m jarvis.worker.renew [--if-it-runs] DIRECTORY``.

The supervisor becomes its new program in place and keeps its tasks; the agent is started anew and adopts them.
"""

import argparse
import asyncio
import sys
from pathlib import Path

from jarvis.worker.supervisor_client import SupervisorClient

ANSWER_S = 30.0


async def renew(directory: Path) -> str:
    """What there is to say about it. Raises OSError where no supervisor runs there or it refuses."""
    client = SupervisorClient(directory / "supervisor.sock")
    welcome = await client.connect()  # from here on we are its agent: the one before ends
    client.send({"op": "upgrade"})
    async with asyncio.timeout(ANSWER_S):
        while True:
            report = await client.receive()
            if report["op"] == "upgraded":
                return f"supervisor {report['pid']} goes on with its {len(welcome['attempts'])} attempts"
            if report["op"] == "error" and report.get("of") == "upgrade":
                raise OSError(f"the supervisor goes on as it was: {report['error']}")


def main() -> None:
    """Exit code 1 when nothing was renewed, unless ``--if-it-runs`` and nothing runs."""
    parser = argparse.ArgumentParser(prog="python -m jarvis.worker.renew")
    parser.add_argument("directory", type=Path, help="of the node: STATE/node")
    parser.add_argument("--if-it-runs", action="store_true", help="else there is nothing to do")
    options = parser.parse_args()
    where = options.directory
    try:
        sys.stdout.write(asyncio.run(renew(where)) + "\n")
    except (FileNotFoundError, ConnectionRefusedError) as problem:
        if not options.if_it_runs:
            sys.exit(f"no node runs in {where}: {problem}")
        sys.stdout.write(f"no node runs in {where}: there is nothing to renew\n")
    except (OSError, TimeoutError, asyncio.IncompleteReadError) as problem:
        sys.exit(f"no node was renewed in {where}: {problem}")


if __name__ == "__main__":
    main()
