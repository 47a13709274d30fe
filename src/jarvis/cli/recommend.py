"""recommend: what should it ask for, by what runs like it have used?"""

import click

from jarvis.cli.output import clean, duration, format_option, print_data, print_table
from jarvis.sdk.client import Client


@click.command()
@click.argument("ident", metavar="[TASK]", required=False)
@click.option("-n", "--name", help="The next task of this name, instead of one that exists.")
@click.option("-A", "--project", help="With --name: whose; else your own.")
@click.option("-u", "--user", help="With --name: whose; else your own.")
@format_option
def recommend(ident: str | None, name: str | None, project: str | None, user: str | None, output: str) -> int:
    """Say what TASK, or the next one of a name, should ask for: what 95 % of the last runs used, and a margin.

    Nothing is changed. With fewer than five runs there is nothing to say, and the exit code is 1.
    """
    if (ident is None) is (name is None):
        raise click.UsageError("Name either a task or --name NAME.")
    if ident is not None and (project or user):
        raise click.UsageError("--project and --user go with --name.")
    with Client() as client:
        found = client.connection.get("/recommend", task=ident, name=name, project=project, user=user)
    if output in ("json", "yaml"):
        print_data(found, output)
        return 0 if found["enough"] else 1
    click.echo(clean(found["summary"]))
    if found["enough"]:
        asked = found["asked"]
        rows = [(what, found[what] or "", asked.get(what, "")) for what in ("cpu", "memory")]
        rows.append(("time limit", duration(found["time_limit"]), duration(asked.get("time_limit"))))
        print_table(("", "RECOMMENDED", "ASKED"), rows)
    return 0 if found["enough"] else 1
