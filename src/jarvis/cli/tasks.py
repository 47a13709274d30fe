"""ls, show, logs, wait, why, result, history: looking at tasks."""

import sys
import time
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

from jarvis.cli.output import clean, duration, format_option, local_time, print_data, print_table
from jarvis.core.states import CODES, LIVE, TERMINAL, State
from jarvis.sdk.client import Client

_COLUMNS = ("ID", "NAME", "USER", "QUEUE", "ST", "TIME", "CPUS", "MEM", "NODE(REASON)")


def _elapsed(task: dict[str, Any]) -> str:
    import datetime as dt

    if not task.get("started_at"):
        return ""
    start = dt.datetime.fromisoformat(task["started_at"])
    end = task.get("ended_at")
    stop = dt.datetime.fromisoformat(end) if end else dt.datetime.now(dt.UTC)
    return duration(max((stop - start).total_seconds(), 0.0))


def _names(client: Client, rows: Iterable[dict[str, Any]]) -> dict[int, str]:
    """Of nodes; they are asked for where any are to be told."""
    if not any(row.get("node") for row in rows):
        return {}
    return {node["id"]: node["name"] for node in client.connection.get("/nodes")["items"]}


def _row(task: dict[str, Any], names: dict[int, str]) -> list[object]:
    resources, node = task["spec"].get("resources", {}), task.get("node")
    where = names.get(node, node) if node else f"({task['reason']})" if task.get("reason") else ""
    ident = f"{task['id']}_[{task['size']}]" if task.get("size", 1) > 1 else task["id"]
    return [
        ident, task["name"], task["user"], task["queue"], CODES[State(task["state"])], _elapsed(task),
        resources.get("cpu", ""), resources.get("memory", ""), where,
    ]  # fmt: skip


def _print_tasks(client: Client, tasks: list[dict[str, Any]], output: str, header: bool = True) -> None:
    if output in ("json", "yaml"):
        print_data(tasks, output)
    elif output == "name":
        for task in tasks:
            click.echo(task["id"])
    else:
        wide = output == "wide"
        columns = (*_COLUMNS, "STATE", "SUBMITTED", "COUNTS") if wide else _COLUMNS
        names = _names(client, tasks)
        rows = [_row(task, names) + (_wide(task) if wide else []) for task in tasks]
        print_table(columns, rows, header)


def _wide(task: dict[str, Any]) -> list[object]:
    return [task["state"], local_time(task["submitted_at"]), _counts(task)]


def _counts(task: dict[str, Any]) -> str:
    return " ".join(f"{state}={n}" for state, n in (task.get("counts") or {}).items())


@click.command()
@click.option("--all", "everything", is_flag=True, help="Ended tasks too.")
@click.option("-s", "--state", "states", multiple=True, help="Only in these states.")
@click.option("-u", "--user", help="Only this user's.")
@click.option("-p", "--queue", help="Only this queue's.")
@click.option("-n", "--name", help="Only of this name; * at the end is a wildcard.")
@click.option("--limit", type=click.IntRange(1), default=1000, show_default=True, help="At most so many.")
@click.option("--no-header", is_flag=True)
@click.option("--watch", is_flag=True, help="Again every two seconds until interrupted.")
@format_option
def ls(
    everything: bool, states: tuple[str, ...], user: str | None, queue: str | None, name: str | None, limit: int,
    no_header: bool, watch: bool, output: str,
) -> None:  # fmt: skip
    """List tasks: those that have not ended, newest first."""
    wanted = [s for part in states for s in part.split(",")]
    unknown = [s for s in wanted if s not in set(State)]
    if unknown:
        raise click.UsageError(f"-s {unknown[0]!r}: give one of {', '.join(State)}")
    chosen = wanted or ([] if everything else sorted(LIVE))
    with Client() as client:
        while True:
            found = list(
                client.tasks(limit, state=",".join(chosen) or None, user=user, queue=queue, name=name, reasons="true")
            )
            if watch:
                click.clear()
            _print_tasks(client, found, output, not no_header)
            if not watch:
                return
            time.sleep(2)


@click.command()
@click.option("-S", "--start", help="Submitted since (RFC 3339 or -2h).")
@click.option("-s", "--state", "states", multiple=True, help="Only in these states.")
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True)
@format_option
def history(start: str | None, states: tuple[str, ...], limit: int, output: str) -> None:
    """List ended tasks, newest first."""
    chosen = [s for part in states for s in part.split(",")] or sorted(TERMINAL)
    with Client() as client:
        _print_tasks(client, list(client.tasks(limit, state=",".join(chosen), submitted_after=start)), output)


@click.command()
@click.argument("ident", metavar="ID")
@format_option
def show(ident: str, output: str) -> None:
    """Show a task with its attempts."""
    with Client() as client:
        task = client.show(ident)
        attempts = (
            client.connection.get(f"/tasks/{ident}/attempts")["items"]
            if task.get("size", 1) == 1 or "_" in ident
            else []
        )
        names = _names(client, [task, *attempts]) if output not in ("json", "yaml") else {}
    if output in ("json", "yaml"):
        print_data({**task, "attempts": attempts}, output)
        return
    task["node"] = names.get(task["node"], task["node"])
    for name, value in task.items():
        if name == "spec" or value in (None, "", {}, []):
            continue
        click.echo(f"{name:>14}  {clean(local_time(value) if name.endswith('_at') else value)}")
    for name, value in task["spec"].items():
        click.echo(f"{name:>14}  {clean(value)}")
    if attempts:
        click.echo("")
        print_table(
            ("TRY", "NODE", "STATE", "CAUSE", "EXIT", "STARTED", "ELAPSED", "MAXRSS"),
            [
                (
                    a["attempt"], _nodes(a, names), a["state"], a.get("cause") or "", _exit(a), local_time(a.get("started_at")),
                    duration((a.get("usage") or {}).get("wall_s")), (a.get("usage") or {}).get("max_rss", ""),
                )
                for a in attempts
            ],
        )  # fmt: skip
        _print_ranks(attempts[-1], names)


def _nodes(attempt: dict[str, Any], names: dict[int, str]) -> str:
    nodes = [place["node"] for place in attempt["placements"]] or [attempt["node"]]
    return ",".join(names.get(node, str(node)) for node in nodes)


def _print_ranks(attempt: dict[str, Any], names: dict[int, str]) -> None:
    """Of a task on several nodes, how each rank of its last attempt goes."""
    places = attempt["placements"]
    if len(places) > 1:
        click.echo("")
        print_table(
            ("RANK", "NODE", "CAUSE", "EXIT", "STARTED", "ENDED", "MESSAGE"),
            [
                (
                    p["rank"], names.get(p["node"], p["node"]), p.get("cause") or "", _exit(p), local_time(p.get("started_at")),
                    local_time(p.get("ended_at")), clean(p.get("message") or ""),
                )
                for p in places
            ],
        )  # fmt: skip


def _exit(attempt: dict[str, Any]) -> str:
    if attempt.get("signal"):
        return f":{attempt['signal']}"
    return "" if attempt.get("exit_code") is None else str(attempt["exit_code"])


@click.command()
@click.argument("ident", metavar="ID")
@click.option("-f", "--follow", is_flag=True, help="Go on until the task has ended.")
@click.option("--attempt", type=int, help="Of this attempt; default: the newest.")
@click.option("--stderr", is_flag=True, help="The errors, where they were asked apart.")
@click.option("--rank", type=click.IntRange(0), help="Of this rank of a task on several nodes; default: 0.")
@click.option("--tail", type=click.IntRange(0), help="Only the last so many lines.")
def logs(ident: str, follow: bool, attempt: int | None, stderr: bool, rank: int | None, tail: int | None) -> None:
    """Print a task's output, byte for byte."""
    path = f"/tasks/{ident}/logs"
    which: dict[str, Any] = {"attempt": attempt, "stream": "stderr" if stderr else None, "rank": rank}
    with Client() as client:
        offset = 0
        if tail is not None:
            with client.connection.stream(path, **which) as chunks:
                last, offset = last_lines(chunks, tail)
            sys.stdout.buffer.write(last)
            if not follow:
                return
        with client.connection.stream(path, follow="1" if follow else None, offset=offset, **which) as chunks:
            for chunk in chunks:
                sys.stdout.buffer.write(chunk)
                sys.stdout.buffer.flush()


def last_lines(chunks: Iterable[bytes], most: int) -> tuple[bytes, int]:
    """(the last lines of a log of any size, the size of the log); a line without an end counts."""
    kept: deque[bytes] = deque(maxlen=most)
    rest, size = b"", 0
    for chunk in chunks:
        size += len(chunk)
        *whole, rest = (rest + chunk).splitlines(keepends=True) or [b""]
        if rest.endswith(b"\n"):
            whole, rest = [*whole, rest], b""
        kept.extend(whole)
    if rest:
        kept.append(rest)
    return b"".join(kept), size


def exit_code_of(task: dict[str, Any]) -> int:
    """The exit code that ``run`` and ``wait --exit-code`` end with, by coreutils', docker's and the shell's habits."""
    if task["state"] == "succeeded":
        return 0
    if task["state"] == "timeout":
        return 124
    if task.get("cause") == "oom":
        return 137
    if task.get("signal"):
        return 128 + int(task["signal"])
    return int(task.get("exit_code") or 1)


@click.command()
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
@click.option("--timeout", type=float, help="Give up after so many seconds (exit code 75).")
@click.option("--exit-code", is_flag=True, help="End with the task's own exit code.")
@click.option("-q", "--quiet", is_flag=True)
def wait(ids: tuple[str, ...], timeout: float | None, exit_code: bool, quiet: bool) -> int:
    """Wait until tasks have ended. Exit code 1 if any did not succeed."""
    deadline = None if timeout is None else time.monotonic() + timeout
    worst = 0
    with Client() as client:
        for ident in ids:
            task = client.wait(ident, None if deadline is None else max(deadline - time.monotonic(), 0.0))
            if not quiet:
                click.echo(f"{ident} {task['state']}")
            worst = max(worst, exit_code_of(task) if exit_code else int(task["state"] != "succeeded"))
    return worst


@click.command()
@click.argument("ident", metavar="ID")
@click.option(
    "--at", help="Why it waited then: RFC 3339, epoch seconds or -10m. On the machine of the server that leads."
)
@click.option(
    "--record", type=click.Path(path_type=Path, exists=True, file_okay=False), help="With --at: a copy of the record."
)
@click.option("--history", is_flag=True, help="How the reasons changed until now.")
@format_option
def why(ident: str, at: str | None, record: Path | None, history: bool, output: str) -> None:
    """Say why a task waits: every reason at once, and each node's."""
    if record is not None and at is None:
        raise click.UsageError("--record says where to look for what was at an instant: name it with --at")
    if history and at is not None:
        raise click.UsageError("--history goes until now: leave out --at")
    if at is not None:
        from jarvis.cli.replay import why_then

        answer = why_then(ident, at, record)
    else:
        with Client() as client:
            answer = client.connection.get(f"/tasks/{ident}/why", history="true" if history else None)
    if output in ("json", "yaml"):
        print_data(answer, output)
        return
    click.echo(clean(answer["summary"]))
    for line in _outlook(answer):
        click.echo(clean(line))
    rows = [(n["node"], n["reason"], n["text"]) for n in answer.get("nodes", ())]
    if rows:
        print_table(("NODE", "REASON", "WHY"), rows)
    if history:
        waited = [(local_time(w["since"]), w["state"], " ".join(w["reasons"]), w["text"]) for w in answer["history"]]
        print_table(("SINCE", "STATE", "REASONS", "WHY"), waited)


def _outlook(answer: dict[str, Any]) -> list[str]:
    """Who goes first, when it is expected to start, and what would let it start at once."""
    lines = [f"  {change}" for change in answer.get("changes", ())]
    expected = answer.get("expected") or {}
    if expected.get("earliest_s") is not None:
        latest = f" to {duration(expected['latest_s'])}" if expected.get("latest_s") is not None else " or later"
        lines.insert(
            0, f"  expected to start in {duration(expected['earliest_s'])}{latest}, by the limits of what runs"
        )
    if near := [f"{one['node']} ({one['holds']})" for one in answer.get("near", ())]:
        lines.insert(0, f"  of what it needs lies already on {'; '.join(near)}")
    lines = _foreseen(answer) + lines
    if answer.get("ahead"):
        lines.insert(0, f"  first: {', '.join(map(str, answer['ahead']))}")
    return lines


def _foreseen(answer: dict[str, Any]) -> list[str]:
    """What is predicted from those like it, always with the interval that nine in ten stay within."""
    lines = []
    start, run = answer.get("predicted"), answer.get("run")
    if start is not None:
        latest = "later" if start["latest_s"] is None else duration(start["latest_s"])
        lines.append(
            f"  predicted to start in {duration(start['start_s'])} ({duration(start['earliest_s'])} to {latest}), "
            f"by what is known of {start['predicted']} of {start['running']} running"
        )
    if run is not None:
        longer = "" if answer["state"] == "queued" else " longer"
        lines.append(
            f"  predicted to run{longer} for {duration(run['seconds'])} ({duration(run['low_s'])} to {duration(run['high_s'])}), "
            f"as {run['runs']} {run['like']} did"
        )
    return lines


@click.command()
@click.argument("ident", metavar="ID")
@click.option("--raw", is_flag=True, help="The pickled bytes as they are.")
def result(ident: str, raw: bool) -> None:
    """Print a function task's result (its repr: unpickled here, so only from tasks that you trust)."""
    with Client() as client:
        data = client.connection.request("GET", f"/tasks/{ident}/result").content
    if raw:
        sys.stdout.buffer.write(data)
        return
    import pickle

    click.echo(repr(pickle.loads(data)))  # noqa: S301 - the help says so, and the user asked
