"""Options that several commands share, one long name for CLI, YAML and SDK, and how they become the fields of a task."""

import os
from collections.abc import Callable
from typing import Any

import click

_NOT_YET = {
    "notify": ("--notify",),
}  # fmt: skip


PULL_POLICIES = ("missing", "always", "never")


def _refuse(ctx: click.Context, param: click.Parameter, value: object) -> object:
    if value is not None:
        raise click.UsageError(f"{param.opts[-1]} is not built yet: leave it out", ctx)
    return value


def _where() -> list[Callable[..., Any]]:
    """Which nodes it may go to, and what of the whole cluster it takes."""
    return [
        click.option(
            "-C", "--constraint", "constraints", multiple=True, help="Label that the node must have: k=v, k!=v or k."
        ),
        click.option("--tolerate", "tolerations", multiple=True, help="Taint that is tolerated."),
        click.option("--prefer", multiple=True, help="Label that the node should have: k=v[:WEIGHT].", metavar="LABEL"),
        click.option("--key", "keys", multiple=True, help="By which --near and --apart of others find it."),
        click.option(
            "--near",
            multiple=True,
            metavar="KEY[@LABEL][:WEIGHT]",
            help="Where a task with the key is: its node, or those with the same value of a label; with a weight, if possible.",
        ),
        click.option(
            "--apart",
            multiple=True,
            metavar="KEY[@LABEL][:WEIGHT]",
            help="Where no other task with the key is; it carries the key itself.",
        ),
        click.option(
            "-L", "--licenses", "--licences", help="Licences of the cluster: matlab:2,ansys.", metavar="NAME[:N],…"
        ),
    ]


def task_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Everything that describes a task, Slurm's spelling first."""
    options: list[Callable[..., Any]] = [
        click.option("-n", "--name", help="Name of the task."),
        *_size_options(),
        click.option("-t", "--time", "time_limit", help="Time limit: minutes, MM:SS, HH:MM:SS, D-HH or 2h30m."),
        click.option("--timeout-soft", "soft_limit", help="Soft limit: a SIGTERM comes first.", metavar="TIME"),
        click.option("-p", "--queue", help="Queue."),
        click.option("-A", "--project", help="Project that it counts for."),
        click.option("--priority", help="critical, high, normal, low or a number."),
        click.option("--nice", type=int, metavar="N", help="So much less priority; of a negative number, more."),
        click.option("-a", "--array", help="Array like 0-99:2%10.", metavar="RANGES"),
        click.option("-d", "--after", help="Dependencies like afterok:42,afterany:43.", metavar="LIST"),
        *_where(),
        click.option("--preemptible/--no-preemptible", default=None, help="Whether what is more urgent may stop it."),
        click.option("--begin", help="Not before: RFC 3339, epoch seconds or +10m."),
        click.option("--deadline", help="Over by then, in all attempts: RFC 3339, epoch seconds or +2h."),
        click.option("--hold", is_flag=True, default=None, help="Submit it held."),
        click.option("-D", "--chdir", "cwd", help="Directory; default: this one."),
        click.option(
            "-o", "--output-file", "stdout", help="File for the output, with %j %A %a %x %N %t.", metavar="FILE"
        ),
        click.option(
            "-e", "--error-file", "stderr", help="File for the errors; default: with the output.", metavar="FILE"
        ),
        click.option("--env", multiple=True, help="Variable for the task: K=V.", metavar="K=V"),
        click.option("--export", default="DEFAULT", help="DEFAULT, NONE, ALL or V,V=x.", metavar="LIST"),
        click.option("--container", "--image", "image", help="Container image to run it in.", metavar="IMAGE"),
        click.option(
            "--pull",
            "pulls",
            multiple=True,
            metavar="GLOB",
            help="Files of its directory to bring back; with --container, missing, always or never say when the image is pulled.",
        ),
        click.option("--push", "pushes", multiple=True, type=click.Path(), help="File or directory to send along."),
        click.option("--push-all", is_flag=True, default=None, help="Push what Git does not track, too."),
        click.option(
            "--push-limit",
            envvar="JARVIS_PUSH_LIMIT",
            metavar="SIZE",
            help="Refuse to push more; default: 1G.",
        ),
        click.option("--mount", "mounts", multiple=True, help="For its container: /path:/inside[:ro]."),
        click.option("--network", help="Of its container: bridge, none, host or a name.", metavar="NAME"),
        click.option("--entrypoint", help="Program of its container, instead of the image's.", metavar="WORDS"),
        click.option("--container-user", help="In its container: uid[:gid] or a name.", metavar="USER"),
        click.option("--retries", type=int, help="Times it is tried again after a failure.", metavar="N"),
        click.option("--retry-on", help="Only after these: oom,timeout,exit:75 …", metavar="CLASSES"),
        click.option("--backoff", type=click.Choice(["exponential", "linear", "constant"]), help="How waits grow."),
        click.option("--on-lost", type=click.Choice(["rerun", "fence", "never"]), help="When its node is lost."),
        click.option("--balancer", help="least_loaded, bin_pack, spread, round_robin or random."),
    ]
    options += [click.option(*f, hidden=True, callback=_refuse, expose_value=False) for f in _NOT_YET.values()]
    for option in reversed(options):
        command = option(command)
    return command


def _size_options() -> list[Callable[[Any], Any]]:
    """How much it needs, on how many nodes."""
    return [
        click.option("-c", "--cpus", type=float, help="CPUs, also fractions.", metavar="N"),
        click.option("--mem", help="Memory, like 512M or 4G; a bare number is MiB, as in Slurm.", metavar="SIZE"),
        click.option("--gpus", help="GPUs, also a fraction of one; of a type, as its label says.", metavar="[TYPE:]N"),
        click.option("--gres", help="As Slurm spells --gpus.", metavar="gpu[:TYPE][:N]"),
        click.option(
            "--gpu-mem",
            metavar="SIZE",
            help="Memory on a GPU that is shared with others; with whole --gpus, what each must have. A bare number is MiB.",
        ),
        click.option(
            "-N",
            "--nodes",
            type=click.IntRange(1, 10_000),
            metavar="N",
            help="Nodes: a rank on each, all or none, with CPUs, memory and GPUs for each of them.",
        ),
    ]


def task_fields(given: dict[str, Any], environ: dict[str, str], directory: str) -> dict[str, Any]:
    """The fields of ``POST /tasks`` from parsed options; absent options are left to the server's defaults."""
    fields: dict[str, Any] = {}
    for name in (
        "name",
        "nodes",
        "queue",
        "project",
        "array",
        "stdout",
        "stderr",
        "begin",
        "deadline",
        "image",
        "network",
        "container_user",
        "on_lost",
        "preemptible",
        "balancer",
        "hold",
    ):
        if given.get(name) is not None:
            fields[name] = given[name]
    for name in ("time_limit", "soft_limit"):
        if given.get(name) is not None:
            fields[name] = slurm_time(given[name])
    fields |= _priority(given)
    if given.get("after"):
        fields["after"] = [part.strip() for part in given["after"].split(",")]
    lists = {**given, "constraints": [*(given.get("constraints") or ()), *_gpu_type(given)]}
    for name in ("constraints", "tolerations", "mounts", "keys", "near", "apart", "prefer"):
        if lists.get(name):
            fields[name] = list(lists[name])
    if given.get("licenses"):
        fields["licenses"] = _licenses(given["licenses"])
    fields |= _pulls(given)
    fields["resources"] = _resources(given)
    retry = _retry(given)
    if retry:
        fields["retry"] = retry
    export = given.get("export") or "DEFAULT"
    if given.get("image") is None:
        if given.get("entrypoint"):
            raise click.UsageError("--entrypoint goes with --container")
        fields["env"] = exported(export, given.get("env") or (), environ)
        fields |= _directory(given, directory)
        return fields
    return fields | _in_container(given, export, environ, directory)


def _priority(given: dict[str, Any]) -> dict[str, Any]:
    """A word or a number, less what is nice to others."""
    from jarvis.core.task import PRIORITIES

    text, nice = given.get("priority"), given.get("nice")
    if text is None and nice is None:
        return {}
    text = "normal" if text is None else text
    number = int(text) if text.lstrip("+-").isdigit() else PRIORITIES.get(text)
    return {"priority": text if number is None else number - (nice or 0)}


def _pulls(given: dict[str, Any]) -> dict[str, Any]:
    """Globs of artifacts; beside an image, the words of its engine's ``--pull`` mean what they mean there."""
    pulls = list(given.get("pulls") or ())
    policy = [pull for pull in pulls if given.get("image") is not None and pull in PULL_POLICIES]
    globs = [glob(pull) for pull in pulls if pull not in policy]
    return ({"pull": policy[-1]} if policy else {}) | ({"artifacts": globs} if globs else {})


def glob(pattern: str) -> str:
    """Before anything is sent."""
    from jarvis.core.errors import InvalidValue
    from jarvis.core.globs import safe_glob

    try:
        return safe_glob(pattern, "--pull")
    except InvalidValue as error:
        raise click.UsageError(str(error)) from None


def _directory(given: dict[str, Any], directory: str) -> dict[str, Any]:
    """Where it runs: here, unless it has a directory of its own."""
    if given.get("cwd") or not (given.get("pushes") or given.get("pulls")):
        return {"cwd": given.get("cwd") or directory}
    return {}


def _in_container(given: dict[str, Any], export: str, environ: dict[str, str], directory: str) -> dict[str, Any]:
    """An image has its own PATH and directories: what is here does not go along unless it was asked for."""
    import shlex

    fields: dict[str, Any] = {
        "env": exported("NONE" if export == "DEFAULT" else export, given.get("env") or (), environ)
    }
    if given.get("cwd"):
        fields["cwd"] = given["cwd"]
    if given.get("entrypoint"):
        fields["entrypoint"] = shlex.split(given["entrypoint"])
    return fields | {name: os.path.join(directory, given[name]) for name in ("stdout", "stderr") if given.get(name)}


def _resources(given: dict[str, Any]) -> dict[str, Any]:
    if given.get("gpus") and given.get("gres"):
        raise click.UsageError("--gpus and --gres say the same: give one of them")
    resources: dict[str, Any] = {"cpu": 1 if given.get("cpus") is None else given["cpus"]}
    if given.get("mem"):
        resources["memory"] = binary(given["mem"])
    if given.get("gpus"):
        resources["gpu"] = given["gpus"].rpartition(":")[2]
    elif given.get("gres"):
        resources["gpu"] = _gres(given["gres"])[1]
    if given.get("gpu_mem"):
        resources["gpu_memory"] = binary(given["gpu_mem"])
    return resources


def _gpu_type(given: dict[str, Any]) -> list[str]:
    """The constraint of ``--gpus TYPE:N`` or ``--gres gpu:TYPE:N``, if a type is said."""
    kind = given["gpus"].rpartition(":")[0] if given.get("gpus") else _gres(given.get("gres") or "gpu")[0]
    return [f"gpu.type={kind}"] if kind else []


def _gres(text: str) -> tuple[str, str]:
    """(type, count) of Slurm's ``gpu[:TYPE][:N]``."""
    name, _, rest = text.partition(":")
    if name != "gpu" or "," in rest:
        raise click.UsageError(
            f"--gres {text}: expected gpu, gpu:N or gpu:TYPE:N; other resources have flags of their own"
        )
    kind, colon, count = rest.rpartition(":")
    if not colon and rest and not rest.isdigit():
        kind, count = rest, "1"
    return kind, count or "1"


def _licenses(given: str) -> dict[str, int]:
    """Slurm's form: ``matlab:2,ansys``."""
    found: dict[str, int] = {}
    for part in given.split(","):
        name, colon, count = part.strip().partition(":")
        if not name or name in found or (colon and not (count.isascii() and count.isdigit())):
            raise click.UsageError(
                f"--licenses {given}: expected NAME or NAME:COUNT, each name once, with commas between"
            )
        found[name] = int(count or 1)
    return found


def binary(text: str) -> str:
    """Slurm's 4G means 4 GiB, and its 4 is MiB."""
    if text.isdigit():
        return f"{text}Mi"
    return text + "i" if text[-1:].upper() in "KMGT" else text


def _retry(given: dict[str, Any]) -> dict[str, Any]:
    retry: dict[str, Any] = {}
    if given.get("retries") is not None:
        retry["max_attempts"] = given["retries"] + 1
    if given.get("retry_on"):
        retry["retryable_errors"] = given["retry_on"].split(",")
    if given.get("backoff"):
        retry["backoff_strategy"] = given["backoff"]
    return retry


_DEFAULT_VARIABLES = ("PATH", "LANG", "TZ", "VIRTUAL_ENV", "CONDA_PREFIX", "LD_LIBRARY_PATH")


def exported(export: str, extra: tuple[str, ...] | list[str], environ: dict[str, str]) -> dict[str, str]:
    """What a task takes from the client's environment, by Slurm's ``--export``; ``--env`` comes on top."""
    if export == "ALL":
        out = dict(environ)
    elif export == "NONE":
        out = {}
    else:
        out = {k: v for k, v in environ.items() if k in _DEFAULT_VARIABLES or k.startswith("LC_")}
    if export not in ("ALL", "NONE", "DEFAULT"):
        extra = [*export.split(","), *extra]
    for item in extra:
        name, equals, value = item.partition("=")
        if item == "DEFAULT":
            continue
        if not name:
            raise click.UsageError(f"--env {item!r}: give NAME=VALUE")
        if equals or name in environ:
            out[name] = value if equals else environ[name]
    return out


def slurm_time(text: str) -> float:
    """Seconds from minutes, ``MM:SS``, ``HH:MM:SS``, ``D-HH[:MM[:SS]]`` or ``2h30m``."""
    import re

    units = {"d": 86400, "h": 3600, "m": 60, "s": 1}
    if re.fullmatch(r"(\d+(?:\.\d+)?[dhms])+", text):
        return sum(float(n) * units[u] for n, u in re.findall(r"(\d+(?:\.\d+)?)([dhms])", text))
    days, dash, clock = text.rpartition("-")
    parts = clock.split(":")
    try:
        numbers = [float(p) for p in parts]
        if dash:
            hours, minutes, seconds = [*numbers, 0.0, 0.0][:3]
            return int(days) * 86400 + hours * 3600 + minutes * 60 + seconds
        if len(numbers) == 1:
            return numbers[0] * 60
        if len(numbers) == 2:
            return numbers[0] * 60 + numbers[1]
        return numbers[0] * 3600 + numbers[1] * 60 + numbers[2]
    except (ValueError, IndexError):
        raise click.UsageError(f"time {text!r}: give minutes, MM:SS, HH:MM:SS, D-HH or 2h30m") from None
