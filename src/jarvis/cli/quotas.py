"""quota, project, queue, license, usage: what owners may have and what they used."""

from typing import Any

import click

from jarvis.cli.options import binary
from jarvis.cli.output import duration, format_option, print_data, print_table
from jarvis.cli.taken import until_taken
from jarvis.sdk.client import Client
from jarvis.sdk.errors import NoSuchObject

GUARANTEES = {"cpu": "cpus", "memory": "mem", "gpu": "gpus"}


@click.group()
def quota() -> None:
    """Limit what projects, and users in them, may have at once."""


@quota.command("set")
@click.argument("project")
@click.option("-u", "--user", default="", help="Of this user in the project, instead of the whole project.")
@click.option("-c", "--cpus", help="Cpus on nodes at once.")
@click.option("--mem", help="Memory on nodes at once, like 64G; a bare number is MiB.")
@click.option("--gpus", help="GPUs on nodes at once.")
@click.option("--gpu-mem", help="GPU memory that is asked for by size, on nodes at once.")
@click.option("--resource", multiple=True, metavar="NAME=AMOUNT", help="Of any other resource.")
@click.option("--guaranteed-cpus", help="Cpus that the project is sure to get; others may borrow what it does not use.")
@click.option("--guaranteed-mem", help="Memory likewise.")
@click.option("--guaranteed-gpus", help="GPUs likewise.")
@click.option("--running", type=click.IntRange(0), help="Elements on nodes at once.")
@click.option("--tasks", type=click.IntRange(0), help="Tasks that have not ended; more are refused.")
@click.option("--weight", type=float, help="Of the project among projects.")
def set_(project: str, user: str, cpus: str | None, mem: str | None, gpus: str | None, gpu_mem: str | None,
         resource: tuple[str, ...], running: int | None, tasks: int | None, weight: float | None,
         **guaranteed: str | None) -> None:  # fmt: skip
    """Set the quota as a whole: what is not named has no limit. What runs goes on."""
    named = {"cpu": cpus, "memory": mem and binary(mem), "gpu": gpus, "gpu_memory": gpu_mem and binary(gpu_mem)}
    named |= {name: amount for name, _, amount in map(_pair, resource)}
    sure = {name: guaranteed[f"guaranteed_{option}"] for name, option in GUARANTEES.items()}
    sure["memory"] = sure["memory"] and binary(sure["memory"])
    body: dict[str, Any] = {"resources": {name: amount for name, amount in named.items() if amount is not None}}
    body |= {"guaranteed": {name: amount for name, amount in sure.items() if amount is not None}}
    body |= {n: v for n, v in (("running", running), ("tasks", tasks), ("weight", weight)) if v is not None}
    with Client() as client:
        client.connection.request("PUT", f"/quotas/{project}", json_body=body, params={"user": user} if user else None)
        until_taken(lambda: _get(client, project, user) is not None)


def _pair(given: str) -> tuple[str, str, str]:
    name, equals, amount = given.partition("=")
    if not equals or not name or not amount:
        raise click.UsageError(f"--resource {given}: expected NAME=AMOUNT")
    return name, equals, amount


def _get(client: Client, project: str, user: str) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = client.connection.get(f"/quotas/{project}", user=user or None)
    except NoSuchObject:
        return None
    return found


@quota.command("get")
@click.argument("project")
@click.option("-u", "--user", default="")
@format_option
def get(project: str, user: str, output: str) -> None:
    """Print the quota of a project, or of a user in it."""
    with Client() as client:
        found = client.connection.get(f"/quotas/{project}", user=user or None)
    if output in ("json", "yaml"):
        print_data(found, output)
    else:
        _table([found])


@quota.command("ls")
@format_option
def list_quotas(output: str) -> None:
    """List all quotas."""
    with Client() as client:
        found = client.connection.get("/quotas")["items"]
    if output in ("json", "yaml"):
        print_data(found, output)
    else:
        _table(found)


def _table(quotas: list[dict[str, Any]]) -> None:
    rows = [
        (q["project"], q["user"], _amounts(q["resources"]), _amounts(q["guaranteed"]), _none(q["running"]),
         _none(q["tasks"]), _none(q["weight"]))
        for q in quotas
    ]  # fmt: skip
    print_table(("PROJECT", "USER", "RESOURCES", "GUARANTEED", "RUNNING", "TASKS", "WEIGHT"), rows)


def _amounts(resources: dict[str, Any]) -> str:
    return ",".join(f"{name}={amount}" for name, amount in sorted(resources.items()))


def _none(value: object) -> object:
    return "" if value is None else value


@quota.command("rm")
@click.argument("project")
@click.option("-u", "--user", default="")
def remove(project: str, user: str) -> None:
    """Remove a quota: no limits any more."""
    with Client() as client:
        client.connection.request("DELETE", f"/quotas/{project}", params={"user": user} if user else None)
        until_taken(lambda: _get(client, project, user) is None)


@click.group()
def project() -> None:
    """Show projects."""


@project.command("ls")
@format_option
def list_projects(output: str) -> None:
    """List projects with their weights, what they used and their quotas."""
    with Client() as client:
        found = client.connection.get("/projects")["items"]
    if output in ("json", "yaml"):
        print_data(found, output)
        return
    rows = [
        (p["project"], p["weight"], p["attempts"], _used(p["total"], "cpu"), _used(p["total"], "gpu"),
         _amounts(p["quota"]["resources"]) if p["quota"] else "")
        for p in found
    ]  # fmt: skip
    print_table(("PROJECT", "WEIGHT", "ATTEMPTS", "CPU-TIME", "GPU-TIME", "QUOTA"), rows)


def _used(total: dict[str, float], name: str) -> str:
    return duration(total[name]) if name in total else ""


@click.group()
def queue() -> None:
    """Show queues."""


@queue.command("ls")
@format_option
def list_queues(output: str) -> None:
    """List the queues that the settings name, the highest tier first."""
    with Client() as client:
        found = client.connection.get("/queues")["items"]
    if output in ("json", "yaml"):
        print_data(found, output)
        return
    rows = [(q["queue"], q["tier"], q["order"], q["balancer"]) for q in found]
    print_table(("QUEUE", "TIER", "ORDER", "BALANCER"), rows)


@click.group()
def license_() -> None:
    """Show licences and other counters of the cluster."""


@license_.command("ls")
@format_option
def list_licenses(output: str) -> None:
    """List how many there are, are in use and are free, and which tasks have them."""
    with Client() as client:
        found = client.connection.get("/licenses")["items"]
    if output in ("json", "yaml"):
        print_data(found, output)
        return
    rows = [(i["license"], i["total"], i["used"], i["free"], ",".join(map(str, i["tasks"]))) for i in found]
    print_table(("LICENSE", "TOTAL", "USED", "FREE", "TASKS"), rows)


@click.command()
@click.option("-u", "--user", default="", help="Only of this user.")
@click.option("-A", "--project", default="", help="Only of this project.")
@format_option
def usage(user: str, project: str, output: str) -> None:
    """Print what projects and users held on nodes, as cpu-time and GPU-time."""
    with Client() as client:
        found = client.connection.get("/usage", user=user or None, project=project or None)["items"]
    if output in ("json", "yaml"):
        print_data(found, output)
        return
    rows = [
        (
            u["project"],
            u["user"],
            u["attempts"],
            _used(u["total"], "cpu"),
            _used(u["total"], "gpu"),
            _used(u["recent"], "cpu"),
        )
        for u in found
    ]
    print_table(("PROJECT", "USER", "ATTEMPTS", "CPU-TIME", "GPU-TIME", "RECENT"), rows)
