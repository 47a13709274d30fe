"""submit: commands, scripts with #JARVIS/#SBATCH lines, YAML and JSON files of specs, arrays over lines."""

import json
import os
import shlex
import sys
from pathlib import Path
from typing import Any

import click

from jarvis.cli.files import bring_all_back, pushed, with_files
from jarvis.cli.options import task_fields, task_options
from jarvis.cli.said import refuse, said
from jarvis.sdk.client import Client

DIRECTIVES = ("#JARVIS", "#SBATCH")


@click.command(context_settings={"allow_interspersed_args": False})
@task_options
@click.option(
    "--each-line",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="One element per line, as JARVIS_ENTRY.",
)
@click.option("--wait", is_flag=True, help="Wait for the end; exit code of the task.")
@click.option("--progress", is_flag=True, help="Show a progress bar until it has ended.")
@click.option("-q", "--quiet", is_flag=True, help="Print the id alone.")
@click.option("--idempotency-key", help="The same key and body give the same task.")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def submit(
    command: tuple[str, ...], each_line: Path | None, wait: bool, progress: bool, quiet: bool,
    idempotency_key: str | None, **options: Any,
) -> int:  # fmt: skip
    """Submit a COMMAND, a script (a file that starts with #!) or a .yaml or .json FILE; prints the id."""
    with Client() as client:
        specs = specs_of(client, command, each_line, options)
        if len(specs) > 1:
            refuse(said(of=("idempotency_key",)), f"for one task; {command[0]} has {len(specs)}")
        if len(specs) == 1:
            ids = [_submit_one(client, specs[0], idempotency_key)]
        else:
            ids = _submit_list(client, specs)
        for ident in ids:
            click.echo(ident if quiet else f"Submitted task {ident}")
        if wait or progress:
            code = wait_for(client, ids, progress)
            for ident, spec in zip(ids, specs, strict=True):
                if spec.get("artifacts"):
                    bring_all_back(client, ident, list(spec["artifacts"]), apart=len(ids) > 1)
            return code
    return 0


def _submit_one(client: Client, spec: dict[str, Any], key: str | None) -> int:
    if key is None:
        return client.submit(**spec).id
    answer = client.connection.request("POST", "/tasks", json_body=spec, idempotency_key=key)
    return int(answer.json()["id"])


def _submit_list(client: Client, specs: list[dict[str, Any]]) -> list[int]:
    answers = client.submit_many(specs)
    bad = [(i, a["problem"]) for i, a in enumerate(answers) if "problem" in a]
    for i, problem in bad:
        click.echo(f"jarvis: entry {i + 1}: {problem.get('detail') or problem.get('title')}", err=True)
    if bad:
        good = [a["id"] for a in answers if "id" in a]
        raise click.ClickException(f"{len(bad)} of {len(answers)} entries were refused; submitted: {good or 'none'}")
    return [int(a["id"]) for a in answers]


def specs_of(
    client: Client, command: tuple[str, ...], each_line: Path | None, options: dict[str, Any]
) -> list[dict[str, Any]]:
    """The specs that a command line means; script and entries are stored on the way."""
    first = Path(command[0])
    if len(command) == 1 and first.suffix in (".yaml", ".yml", ".json"):
        if not first.is_file():
            raise click.UsageError(f"there is no file {first}")
        refuse(
            said(of={*options, "each_line"}),
            f"for commands and scripts, not for the tasks of {first}, which say it themselves",
        )
        limit = options.get("push_limit")  # from the environment
        return [
            with_files(client, spec, f"{first}: entry {number}", limit)
            for number, spec in enumerate(read_specs(first), 1)
        ]
    script = _script(first)
    if script is not None:
        options = {**directives(script.decode("utf-8", "replace"), first), **_given(options)}
    fields = task_fields(options, dict(os.environ), os.getcwd())
    fields |= pushed(client, options)
    if script is not None:
        fields["script"] = client.put_blob(script, fields.get("project"))
        fields["command"] = list(command[1:])
        fields.setdefault("name", first.name)
    else:
        fields["command"] = list(command)
    if each_line is not None:
        lines = each_line.read_bytes().removesuffix(b"\n")
        if not lines:
            raise click.UsageError(f"--each-line {each_line}: the file has no lines")
        if "array" in fields:
            raise click.UsageError("give --each-line or --array, not both")
        fields["array"] = f"0-{lines.count(bytes([10]))}"
        fields["entries"] = client.put_blob(lines, fields.get("project"))
    return [fields]


def _given(options: dict[str, Any]) -> dict[str, Any]:
    """Options said on the command line win over the script's own lines."""
    return {k: v for k, v in options.items() if v not in (None, ()) and not (k == "export" and v == "DEFAULT")}


def _script(path: Path) -> bytes | None:
    try:
        with path.open("rb") as file:
            return file.read() if file.read(2) == b"#!" and not file.seek(0) else None
    except OSError:
        return None


def directives(text: str, path: Path) -> dict[str, Any]:
    """Flags of the ``#JARVIS`` and ``#SBATCH`` lines before the first command."""
    words: list[str] = []
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        if stripped and not stripped.startswith("#"):
            break
        for mark in DIRECTIVES:
            if stripped.startswith(mark + " "):
                try:
                    words += shlex.split(stripped[len(mark) :], comments=True)
                except ValueError as error:
                    raise click.UsageError(f"{path}:{number}: {error}") from None
    parser = click.Command("directives", params=[p for p in submit.params if isinstance(p, click.Option)])
    try:
        context = parser.make_context(str(path), _slurm_words(words))
    except click.UsageError as error:
        raise click.UsageError(f"{path}: {error.format_message()}") from None
    return _given(context.params)


_SLURM = {
    "--job-name": "--name", "--cpus-per-task": "--cpus", "--partition": "--queue", "--account": "--project",
    "--output": "--output-file", "--error": "--error-file", "--dependency": "--after", "-J": "--name",
}  # fmt: skip


def _slurm_words(words: list[str]) -> list[str]:
    out = []
    for word in words:
        name, equals, value = word.partition("=")
        out.append(_SLURM.get(name, name) + equals + value)
    return out


def read_specs(path: Path) -> list[dict[str, Any]]:
    """A spec or a list of them; errors name the file and line."""
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".json":
            data = json.loads(text)
        else:
            import yaml

            data = yaml.safe_load(text)
    except (ValueError, UnicodeDecodeError) as error:
        raise click.ClickException(f"{path}: {error}") from None
    except Exception as error:
        if type(error).__module__.startswith("yaml"):
            raise click.ClickException(f"{path}: {' '.join(str(error).split())}") from None
        raise
    specs = data if isinstance(data, list) else [data]
    if not specs or not all(isinstance(spec, dict) for spec in specs):
        raise click.ClickException(f"{path}: give a task (keys and values) or a list of tasks")
    for spec in specs:
        if not any(spec.get(field) for field in ("push", "pull", "artifacts")):
            spec.setdefault("cwd", os.getcwd())
    return specs


def wait_for(client: Client, ids: list[int], progress: bool) -> int:
    """Until all have ended; the worst exit code."""
    from jarvis.cli.tasks import exit_code_of

    if progress and sys.stderr.isatty():
        _show_progress(client, ids)
    worst = 0
    for ident in ids:
        task = client.wait(ident)
        worst = max(worst, exit_code_of(task))
        if task["state"] != "succeeded":
            click.echo(f"jarvis: task {ident} ended {task['state']}", err=True)
    return worst


def _show_progress(client: Client, ids: list[int]) -> None:
    import time

    from rich.console import Console
    from rich.progress import Progress

    from jarvis.sdk.client import TERMINAL

    with Progress(console=Console(stderr=True)) as bar:
        tasks = {i: client.show(i) for i in ids}
        whole = sum(t.get("size", 1) for t in tasks.values())
        line = bar.add_task("elements", total=whole)
        while not bar.finished:
            done = 0
            for ident in ids:
                if tasks[ident]["state"] not in TERMINAL:
                    tasks[ident] = client.show(ident)
                counts = tasks[ident].get("counts") or {tasks[ident]["state"]: 1}
                done += sum(n for state, n in counts.items() if state in TERMINAL)
            bar.update(line, completed=done)
            if done < whole:
                time.sleep(0.2)
