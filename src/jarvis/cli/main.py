"""``jarvis``: the group of all commands, and how errors become messages and exit codes."""

import importlib
import sys

import click

COMMANDS: dict[str, tuple[str, str]] = {
    "up": ("jarvis.cli.cluster", "Start Jarvis on this machine."),
    "down": ("jarvis.cli.cluster", "Stop Jarvis on this machine."),
    "server": ("jarvis.cli.cluster", "Run a server in the foreground."),
    "run": ("jarvis.cli.run", "Run a command attached: streams, and ends with its exit code."),
    "exec": ("jarvis.cli.run", "Run a command beside a running task."),
    "submit": ("jarvis.cli.submit", "Submit a command, a script or a file of specs."),
    "ls": ("jarvis.cli.tasks", "List tasks."),
    "show": ("jarvis.cli.tasks", "Show a task with its attempts."),
    "logs": ("jarvis.cli.tasks", "Print a task's output."),
    "wait": ("jarvis.cli.tasks", "Wait until tasks have ended."),
    "why": ("jarvis.cli.tasks", "Say why a task waits."),
    "result": ("jarvis.cli.tasks", "Print a function task's result."),
    "artifacts": ("jarvis.cli.files", "List and get the files that tasks left."),
    "history": ("jarvis.cli.tasks", "List ended tasks."),
    "cancel": ("jarvis.cli.actions", "Cancel tasks."),
    "hold": ("jarvis.cli.actions", "Keep tasks from starting."),
    "release": ("jarvis.cli.actions", "Let held tasks go on."),
    "requeue": ("jarvis.cli.actions", "Stop running tasks and queue them again."),
    "retry": ("jarvis.cli.actions", "Submit ended tasks again as new ones."),
    "signal": ("jarvis.cli.actions", "Send a signal to running tasks."),
    "suspend": ("jarvis.cli.actions", "Stop running tasks where they are."),
    "resume": ("jarvis.cli.actions", "Let suspended tasks go on."),
    "workflow": ("jarvis.cli.workflow", "Run steps that depend on one another."),
    "cron": ("jarvis.cli.cron", "Run tasks and workflows at set times."),
    "node": ("jarvis.cli.node_hosts", "List, show, drain, install and upgrade nodes."),
    "events": ("jarvis.cli.observe", "Print what happened, as it happens."),
    "cluster": ("jarvis.cli.observe", "Show the servers of the cluster."),
    "stats": ("jarvis.cli.observe", "Print counts and figures."),
    "quota": ("jarvis.cli.quotas", "Limit what projects and users may have at once."),
    "project": ("jarvis.cli.quotas", "Show projects."),
    "queue": ("jarvis.cli.quotas", "Show queues."),
    "maintenance": ("jarvis.cli.maintenance", "Plan times in which nodes take no tasks."),
    "reservation": ("jarvis.cli.maintenance", "Keep nodes for one project or user for a time."),
    "license": ("jarvis.cli.quotas", "Show licences and other counters of the cluster."),
    "usage": ("jarvis.cli.quotas", "Print what projects and users used."),
    "plan": ("jarvis.cli.plan", "Say whether a task would start now, wait, or never run."),
    "recommend": ("jarvis.cli.recommend", "Say what a task should ask for, by what its runs used."),
    "sim": ("jarvis.cli.sim", "Replay a recorded workload with a policy of your choice."),
    "replay": ("jarvis.cli.replay", "Decide again what the scheduler decided, and compare."),
    "policy": ("jarvis.cli.policy", "List policies, and check those of other packages."),
    "config": ("jarvis.cli.config", "Show the settings and where they come from."),
    "doctor": ("jarvis.cli.doctor", "Test what Jarvis needs on this machine."),
    "backup": ("jarvis.cli.backup", "Copy the database into a file, checked."),
    "restore": ("jarvis.cli.backup", "Put a backup in the place of the database."),
    "join": ("jarvis.cli.join", "Make this machine a node of a cluster."),
    "token": ("jarvis.cli.join", "Make, list and remove tokens."),
    "login": ("jarvis.cli.join", "Use the server of a cluster from this machine."),
    "migrate": ("jarvis.cli.database", "Bring the schema of a PostgreSQL database to this version."),
    "promote": ("jarvis.cli.database", "Move an embedded database into PostgreSQL."),
    "completion": ("jarvis.cli.completion", "Print the completion script for a shell."),
    "version": ("jarvis.cli.observe", "Print the versions of client and server."),
}
"""Command → (module, one line for --help): ``--help`` imports none of the modules."""


class LazyGroup(click.Group):
    """Imports a command's module when it is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module, _ = COMMANDS[name]
        found = importlib.import_module(module)
        command = getattr(found, name, None) or getattr(found, f"{name}_")
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            import difflib

            close = difflib.get_close_matches(args[0], COMMANDS, n=1)
            guess = f" Did you mean '{close[0]}'?" if close else ""
            raise click.UsageError(f"No such command '{args[0]}'.{guess}", ctx)
        return super().resolve_command(ctx, args)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="jarvis-cluster", message="jarvis %(version)s")
def cli() -> None:
    """Jarvis runs commands, containers and Python functions on one laptop or hundreds of machines."""


def main() -> None:
    """Entry point: data on stdout, all else on stderr, errors as one clear message and an exit code."""
    try:
        code = cli.main(standalone_mode=False)
    except click.exceptions.Abort:
        click.echo("interrupted", err=True)
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except BrokenPipeError:
        sys.exit(0)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:  # noqa: BLE001 - known errors become messages, the rest is raised again
        sys.exit(_report(error))
    sys.exit(code if isinstance(code, int) else 0)


EXTRAS = {
    "asyncpg": "postgres", "obstore": "s3", "redis": "redis", "cryptography": "cluster", "dns": "cluster", "aiodocker": "docker",
    "resvg_py": "png",
}  # fmt: skip
"""Library → the extra that brings it."""


def _report(error: Exception) -> int:
    """Print a known error and give its exit code; anything else is a defect and raised."""
    if isinstance(error, ModuleNotFoundError) and (extra := EXTRAS.get((error.name or "").partition(".")[0])):
        error = click.ClickException(f"this needs the extra {extra!r}: pip install 'jarvis-cluster[{extra}]'")
    known = hasattr(error, "hint") or (isinstance(error, OSError) and error.filename is not None)
    exit_code = getattr(error, "exit_code", None) or (1 if known else None)
    if exit_code is None:
        raise error
    click.echo(f"jarvis: {error}", err=True)
    hint = getattr(error, "hint", "")
    if hint:
        click.echo(f"  {hint}", err=True)
    return int(exit_code)
