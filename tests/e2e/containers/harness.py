"""Assignments of containers, and what the engine knows of them."""

import json
from typing import Any

from tests.e2e.containers.engine import IMAGE, docker
from tests.e2e.worker.harness import FakeServer, Node, assignment

from jarvis.core.effects import Assignment
from jarvis.core.inputs import Ended
from jarvis.core.task import Container, TaskSpec


def contained(number: int, command: str | tuple[str, ...] | None, image: str = IMAGE, **fields: Any) -> Assignment:
    """An assignment of a command in a container. ``user_in``: the container's user; ``user`` is the task's owner."""
    made: dict[str, Any] = {
        name: fields.pop(name) for name in ("pull", "mounts", "network", "entrypoint") if name in fields
    }
    if "user_in" in fields:
        made["user"] = fields.pop("user_in")
    made.setdefault("pull", "never")
    made.setdefault("network", "none")
    of_spec = {name: fields.pop(name) for name in list(fields) if name in TaskSpec.__struct_fields__}
    of_spec.setdefault("resources", {"cpu": 100})
    spec = TaskSpec(name=f"c{number}", command=command, container=Container(image, **made), **of_spec)
    return assignment(number, spec, **fields)


async def end_of(server: FakeServer, made: Assignment) -> tuple[Ended, str]:
    await server.assign(made)
    end = await server.end_of(made.number)
    return end, server.text(end).decode()


async def until_output(node: Node, server: FakeServer, number: int, text: str) -> None:
    """The file that a live tail reads holds it."""
    path = node.state / "output" / str(number) / "task.1.out"
    await server.until(lambda: path.exists() and text in path.read_text(), f"{text!r} in the output of {number}")


def inspected(number: int) -> dict[str, Any]:
    """The engine's view of the one container of an attempt."""
    (ident,) = docker("ps", "-aq", "--filter", f"label=jarvis.attempt={number}").split()
    found: dict[str, Any] = json.loads(docker("inspect", ident))[0]
    return found
