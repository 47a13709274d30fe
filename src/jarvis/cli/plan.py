"""plan: would this start now, wait, or never run? Nothing is submitted."""

from typing import Any

import click

from jarvis.cli.options import task_options
from jarvis.cli.output import clean, local_time, print_data
from jarvis.cli.submit import specs_of
from jarvis.sdk.client import Client

EXIT_CODES = {"now": 0, "wait": 1, "never": 2}


@click.command(context_settings={"allow_interspersed_args": False})
@task_options
@click.option("--json", "as_json", is_flag=True, help="Print exactly what the server said.")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def plan(command: tuple[str, ...], as_json: bool, **options: Any) -> int:
    """Say whether a COMMAND, a script or a FILE of specs would start now (exit code 0), wait (1) or never run (2).

    The scheduler's own code answers, with what is on the nodes at this moment.
    """
    with Client() as client:
        specs = specs_of(client, command, None, options)
        answers = [client.connection.post("/plan", spec) for spec in specs]
    if as_json:
        print_data(answers if len(answers) > 1 else answers[0], "json")
    else:
        for number, answer in enumerate(answers, start=1):
            which = f"{number}: " if len(answers) > 1 else ""
            click.echo(which + clean(answer["summary"]))
            if answer["verdict"] == "wait" and answer.get("earliest_s"):  # 0: it need not wait for any end
                click.echo(f"  not before {local_time(answer['earliest'])}, by the limits of what runs")
            for change in answer["changes"]:
                click.echo(f"  {clean(change)}")
    return max(EXIT_CODES[answer["verdict"]] for answer in answers)
