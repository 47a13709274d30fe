"""join, token, login: other machines and other people."""

import contextlib
import json
import os
import socket
import ssl
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import click

from jarvis.cli.options import binary
from jarvis.cli.output import format_option, local_time, print_data, print_table
from jarvis.config.sources import state_dir
from jarvis.sdk.client import Client
from jarvis.sdk.connection import login_file
from jarvis.sdk.errors import ClientError

ANSWER_S = 20.0
CONNECTED_S = 30.0


def join_line(client: Client, options: dict[str, Any]) -> str:
    """The command that makes another machine a node, with a fresh token in it."""
    made = client.connection.post("/tokens", {"role": "join"} | options)
    found = client.connection.root("/agent/v1/authority")
    return f"jarvis join {found['url']} --token {made['token']} --ca-pin {found['pin']}"


# ---------------------------------------------------------------- join


@click.command()
@click.argument("urls", nargs=-1, metavar="URL...")
@click.option("--token", help="Join token: from 'jarvis token create --join'.")
@click.option("--ca-pin", "pin", help="sha256:… of the cluster's authority, as printed with the token.")
@click.option("--name", help="Name of this node; default: the host's.")
@click.option("--cpus", type=float, help="CPUs that tasks may use; default: all.")
@click.option("--memory", help="Memory that tasks may use, like 16G; a bare number is MiB; default: all.")
@click.option("--gpus", type=float, help="GPUs that tasks may use; default: all.")
@click.option("--gpu-memory", metavar="SIZE,…", help="Of each GPU, or one size for all, like 24G; default: all.")
@click.option("--label", "labels", multiple=True, metavar="NAME=VALUE", help="Label that tasks may ask for.")
@click.option("--taint", "taints", multiple=True, help="Only tasks that tolerate it come here.")
@click.option("--watch", multiple=True, metavar="DIR", help="Directory below which schedules may wait for files.")
@click.option("--no-start", is_flag=True, help="Join only; 'jarvis join' starts the node later.")
@click.option("--foreground", is_flag=True, help="Stay in the foreground, for a service manager.")
def join(
    urls: tuple[str, ...], token: str | None, pin: str | None, name: str | None, cpus: float | None, memory: str | None,
    gpus: float | None, gpu_memory: str | None, labels: tuple[str, ...], taints: tuple[str, ...], watch: tuple[str, ...],
    no_start: bool, foreground: bool,
) -> None:  # fmt: skip
    """Make this machine a node of the cluster at URL (several, if it has several servers; or a domain, whose SRV records
    _jarvis._tcp name them).

    Needed once: afterwards 'jarvis join' alone starts the node again, also after a reboot; 'jarvis down' ends it.
    """
    from jarvis.config.settings import load
    from jarvis.own_node import CREDENTIALS, OwnNode, supervisor_of
    from jarvis.utils import server_file
    from jarvis.worker.credentials import Credentials

    directory = state_dir()
    content = server_file.read(directory)
    if content is not None and server_file.lives(content):
        raise click.ClickException(f"a server of yours runs in {directory}: its machine is a node already")
    credentials = Credentials(directory / CREDENTIALS)
    if credentials.exist and supervisor_of(directory) is not None:
        click.echo(f"{credentials.name} is a node of {', '.join(credentials.urls)} already; 'jarvis down' ends it")
        return
    if credentials.exist and token is None:
        name = name or credentials.name
    elif not (urls and token and pin):
        raise click.UsageError("a first time needs URL, --token and --ca-pin, as the server prints them")
    name = name or socket.gethostname()
    given = {
        "name": name, "cpus": cpus, "memory": memory and binary(memory), "gpus": gpus,
        "gpu_memory": gpu_memory and ",".join(map(binary, gpu_memory.split(","))), "taints": list(taints),
        "watch": list(watch),
        "labels": dict(_pair(label) for label in labels),
    }  # fmt: skip
    said = {key: value for key, value in given.items() if value not in (None, {}, [])}
    worker = (credentials.remembered() if token is None else {}) | said
    settings, _ = load({"worker": worker})
    if settings.worker.proxy:
        os.environ["HTTPS_PROXY"] = os.environ["https_proxy"] = settings.worker.proxy
    if token is not None and pin is not None:  # after all that can be wrong here: it uses the token up
        _enter(credentials, _servers(urls), token, pin, name)
    credentials.remember(worker)
    if no_start:
        click.echo(f"{name} has joined {', '.join(credentials.urls)}; 'jarvis join' starts it")
        return
    own = OwnNode(settings, owned=False)
    if foreground:
        own.become()
    identity = directory / "node" / "node.json"
    before = identity.stat().st_mtime_ns if identity.exists() else 0
    own.start()
    deadline = time.monotonic() + CONNECTED_S
    while not (identity.exists() and identity.stat().st_mtime_ns > before):
        if time.monotonic() > deadline:
            raise click.ClickException(
                f"no server takes this node yet; it goes on trying: see {directory}/node/agent.log"
            )
        time.sleep(0.05)
    click.echo(f"{name} is node {json.loads(identity.read_text())['node']} of {', '.join(credentials.urls)}")


def _servers(words: tuple[str, ...]) -> list[str]:
    from jarvis.cli.discovery import servers_at

    if found := servers_at(words):
        return found
    raise click.ClickException(f"{', '.join(words)} says in the DNS that it has no servers")


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise click.UsageError(f"--label {text!r} is not NAME=VALUE")
    return name, value


def _enter(credentials: Any, urls: list[str], token: str, pin: str, name: str) -> None:
    """Ask to be let in at one of the URLs; raises what the last of them said."""
    from jarvis.utils.certificates import node_request

    error: Exception = ClientError("no URL was given")
    for url in urls:
        try:
            authority = trusted_authority(url, pin)
            key, request = node_request(name)
            body = {"name": name, "request": request.decode()}
            answer = _ask(url, "/agent/v1/join", ssl.create_default_context(cadata=authority), token, body)
        except ClientError as failed:
            error = failed
            continue
        credentials.save(
            key=key, certificate=answer["certificate"].encode(), authority=authority.encode(), name=name,
            servers=sorted({*answer["servers"], url.rstrip("/")}),
        )  # fmt: skip
        return
    raise error


def trusted_authority(url: str, pin: str) -> str:
    """The certificate of the cluster's authority, if its pin is the one; nothing of ours is sent before that is known."""
    from jarvis.utils import certificates

    if not url.startswith("https://"):
        raise click.UsageError(f"{url!r} is not https://HOST:PORT")
    unverified = ssl.create_default_context()
    unverified.check_hostname, unverified.verify_mode = False, ssl.CERT_NONE
    authority = str(_ask(url, "/agent/v1/authority", unverified)["certificate"])
    if certificates.pin(authority.encode()) != pin:
        raise click.ClickException(
            f"the authority of {url} is not the one of --ca-pin: it is another cluster, or somebody stands in between"
        )
    return authority


def _ask(
    url: str, path: str, context: ssl.SSLContext, token: str | None = None, body: dict[str, Any] | None = None
) -> dict[str, Any]:
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url.rstrip("/") + path, data, headers)  # noqa: S310 - https was asked for
    try:
        with urllib.request.urlopen(request, timeout=ANSWER_S, context=context) as answer:  # noqa: S310
            return dict(json.loads(answer.read()))
    except urllib.error.HTTPError as refused:
        problem: dict[str, Any] = {}
        with contextlib.suppress(ValueError):
            problem = json.loads(refused.read())
        detail = str(problem.get("detail") or f"{url} answered {refused.code}")
        raise ClientError(detail, str(problem.get("code") or "refused"), str(problem.get("hint") or "")) from None
    except (OSError, ValueError) as error:
        raise ClientError(f"no server of Jarvis answers at {url}: {error}", "unreachable") from None


# ---------------------------------------------------------------- tokens


@click.group()
def token() -> None:
    """Make, list and remove tokens."""


@token.command()
@click.option("--join", "joins", is_flag=True, help="One that lets one node in, once, within the hour.")
@click.option("--role", type=click.Choice(["user", "admin"]), default="user", help="What its holder may.")
@click.option("--user", help="Whom it stands for; default: you.")
@click.option("--project", "projects", multiple=True, help="Where a user may work; several are possible.")
@click.option("--ttl", help="How long it works, like 8h; default: until it is removed.")
@click.option("--label", default="", help="What it is for.")
def create(joins: bool, role: str, user: str | None, projects: tuple[str, ...], ttl: str | None, label: str) -> None:
    """Print a new token, or with --join the whole command for the other machine. It is told this once."""
    options = {k: v for k, v in {"user": user, "projects": list(projects), "ttl": ttl, "label": label}.items() if v}
    with Client() as client:
        if joins:
            click.echo(join_line(client, options))
        else:
            click.echo(client.connection.post("/tokens", {"role": role} | options)["token"])


@token.command("ls")
@format_option
def list_tokens(output: str) -> None:
    """List what lets somebody in; the tokens themselves are not kept."""
    with Client() as client:
        found = client.connection.get("/tokens")["items"]
    if output in ("json", "yaml"):
        print_data(found, output)
        return
    columns = ("ID", "USER", "ROLE", "PROJECTS", "ENDS", "LABEL")
    keys = ("id", "user", "role", "projects", "expires_at", "label")
    rows = [[one[key] for key in keys] for one in found]
    print_table(columns, [[i, u, r, ",".join(p), local_time(e), label] for i, u, r, p, e, label in rows])


@token.command("rm")
@click.argument("idents", nargs=-1, required=True, metavar="ID...")
def remove(idents: tuple[str, ...]) -> None:
    """Let nobody in with these tokens any more."""
    with Client() as client:
        for ident in idents:
            client.connection.request("DELETE", f"/tokens/{ident}")


# ---------------------------------------------------------------- login


@click.command()
@click.argument("url")
@click.option("--token", required=True, help="Token: from 'jarvis token create'.")
@click.option("--ca-pin", "pin", required=True, help="sha256:… of the cluster's authority.")
def login(url: str, token: str, pin: str) -> None:
    """Use the cluster at URL from this machine: commands and Python find it from now on."""
    authority = trusted_authority(url, pin)
    context = ssl.create_default_context(cadata=authority)
    version = _ask(url, "/api/v1/version", context, token)["version"]
    path = login_file()
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump({"url": url.rstrip("/"), "token": token, "authority": authority}, file)
    os.chmod(path, 0o600)
    click.echo(f"logged in to {url} (version {version}); kept in {Path(path)}")
