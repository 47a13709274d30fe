"""policy: what orders, scores and filters there are, and whether those of other packages keep to the rules."""

import click

from jarvis.cli.output import format_option, print_data, print_table


@click.group()
def policy() -> None:
    """List policies, and check those of other packages."""


@policy.command("ls")
@format_option
def list_policies(output: str) -> None:
    """List Jarvis's own and those that are installed here."""
    from jarvis.policies import OWN, UnknownPolicy, found, load

    rows = [{"policy": name, "kind": kind, "package": "", "version": ""} for kind, own in OWN.items() for name in own]
    for point in found():
        package = ("", "") if point.dist is None else (point.dist.name, point.dist.version)
        try:
            kind: str = load(point)[0]
        except UnknownPolicy as error:
            kind = f"broken: {error}"
        rows.append({"policy": point.name, "kind": kind, "package": package[0], "version": package[1]})
    if output in ("json", "yaml"):
        print_data(rows, output)
    else:
        print_table(("POLICY", "KIND", "PACKAGE", "VERSION"), [tuple(row.values()) for row in rows])


@policy.command("check")
@click.argument("name")
def check(name: str) -> None:
    """Look for what an installed policy does that it must not: exit code 1 if anything is found."""
    from jarvis.policies.contract import problems_of

    said = problems_of(name)
    for problem in said:
        click.echo(problem)
    if said:
        raise SystemExit(1)
    click.echo(f"{name}: nothing found")
