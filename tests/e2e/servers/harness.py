"""A cluster of several servers on one PostgreSQL, each with a node, in directories of their own."""

import contextlib
import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

from tests.e2e.cluster.harness import Home, home, wait_for
from tests.servers.postgres import PostgresServer, free_port
from tests.servers.redis import RedisServer


class Servers:
    """``homes`` by the name of the server's node."""

    def __init__(self, homes: dict[str, Home], postgres: PostgresServer, redis: RedisServer | None) -> None:
        self.homes, self.postgres, self.redis = homes, postgres, redis

    def health(self, name: str) -> dict[str, Any]:
        content = self.homes[name].server
        request = urllib.request.Request(f"{content.url}/health", headers={"Authorization": f"Bearer {content.token}"})
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:
                return dict(json.loads(answer.read()))
        except urllib.error.HTTPError as error:
            return dict(json.loads(error.read()))

    def leader(self) -> str:
        """The name of the one that leads; waits until there is one."""
        return str(wait_for(self.leads, "somebody leads", 60))

    def leads(self, but: str = "") -> str | None:
        """The name of the one that leads, if there is one and it answers."""
        for name in self.homes:
            with contextlib.suppress(OSError, AssertionError):
                if name != but and "queued" in self.health(name)["checks"]["scheduler_queue"]["detail"]:
                    return name
        return None

    def standby(self) -> str:
        leader = self.leader()
        return next(name for name in self.homes if name != leader)


@contextlib.contextmanager
def servers(
    *names: str, with_redis: bool = False, sync: bool = False, cpus: int | None = None, listen: bool = False,
    more: dict[str, str] | None = None, own_ports: bool = False,
) -> Iterator[Servers]:  # fmt: skip
    """As many servers as names, up and with connected nodes of so many processors; with ``listen`` nodes may join them;
    ``more`` is added to their environment. Each node has its own name, after a z, as its label ``zone``;
    ``own_ports`` are such that nobody takes while their server is away."""
    with contextlib.ExitStack() as stack:
        postgres = PostgresServer(sync)
        stack.callback(postgres.remove)
        postgres.create()
        redis = None
        environment = {"JARVIS_STORE__KIND": "postgres", "JARVIS_STORE__URL": postgres.database()}
        environment |= more or {}
        if with_redis:
            redis = RedisServer()
            stack.callback(redis.remove)
            redis.start()
            environment["JARVIS_BUS__REDIS_URL"] = redis.url
        homes = {}
        for name in names:
            homes[name] = stack.enter_context(home())
            homes[name].env |= environment | {"JARVIS_WORKER__LABELS": f"{{zone: z{name}}}"}
        made = Servers(homes, postgres, redis)
        for name in names:
            homes[name].up_with = ["--node-name", name, *([] if cpus is None else ["--cpus", str(cpus)])]
            if own_ports:
                homes[name].up_with += ["--port", str(free_port())]
            if listen:
                homes[name].up_with += ["--listen", f"127.0.0.1:{free_port()}"]
            homes[name].jarvis("up", *homes[name].up_with)
        yield made
