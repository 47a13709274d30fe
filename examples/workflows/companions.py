"""Ten things that everybody tries first, against the running server: ``jarvis up && python examples/workflows/companions.py``.

Each function is one of them and says what came of it; the last one tells what the cluster looks like.
"""

import time
from typing import Any

from jarvis import Client, TaskFailed, task, workflow


def one_task(client: Client) -> str:
    return client.submit(command=["echo", "hello"]).check(60)["state"]


def many_tasks(client: Client) -> int:
    """Ten at once; with several nodes they spread over them."""
    ids = [answer["id"] for answer in client.submit_many([{"command": ["true"], "balancer": "spread"}] * 10)]
    return sum(client.wait(ident, 60)["state"] == "succeeded" for ident in ids)


def priorities(client: Client) -> list[str]:
    """Of two that are held and released together, the more urgent one is considered first."""
    low = client.submit(command=["true"], priority="low", name="low", hold=True)
    high = client.submit(command=["true"], priority="critical", name="high", hold=True)
    for handle in (low, high):
        while handle.show()["state"] == "submitted":
            time.sleep(0.01)
        client.act(handle.id, "release")
    return sorted((handle.check(60)["name"] for handle in (low, high)), reverse=True)


def retries(client: Client) -> int:
    """It fails twice and succeeds the third time."""
    script = 'test "$JARVIS_ATTEMPT" -ge 3'
    handle = client.submit(command=["sh", "-c", script], retry={"max_attempts": 5, "backoff_base": 0.05})
    return int(handle.check(60)["attempt"])


def failures(client: Client) -> str:
    """A failure says what happened."""
    try:
        client.submit(command=["sh", "-c", "exit 3"]).check(60)
    except TaskFailed as error:
        return f"{error.state}: {client.show(error.task)['exit_code']}"
    return "no failure"


@task(cpus=0.1)
def square(n: int) -> int:
    return n * n


@task(cpus=0.1)
def add(parts: list[int]) -> int:
    return sum(parts)


@workflow
def squares(count: int) -> Any:
    """A DAG in Python: a fan-out and a fan-in."""
    return add(square.map(range(count)))


def dag(client: Client) -> int:
    return int(squares.build(5).submit(client).result(60))


def monitoring(client: Client) -> dict[str, Any]:
    """What there is, and how it fares."""
    nodes = client.connection.get("/nodes")["items"]
    return {"health": client.connection.get("/health")["status"], "nodes": [node["state"] for node in nodes]}


CASES = (one_task, many_tasks, priorities, retries, failures, dag, monitoring)


def main() -> None:
    with Client() as client:
        for case in CASES:
            begun = time.monotonic()
            print(f"{case.__name__:>12}  {case(client)}  ({time.monotonic() - begun:.2f} s)")


if __name__ == "__main__":
    main()
