"""Where the servers of a cluster are, from what people write: a URL, or a domain that says so in the DNS."""

import random
from collections.abc import Callable
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from dns.resolver import Resolver

SERVICE = "_jarvis._tcp"
PORT = 7516
"""Where servers listen that were not told where (as ``jarvis.web`` has it)."""
LOOKUP_S = 5.0


def servers_at(
    words: tuple[str, ...],
    resolver: "Callable[[], Resolver] | None" = None,
    chance: Callable[[], float] = random.random,
) -> list[str]:
    """URLs in the order in which to try them. A domain stands for its SRV records ``_jarvis._tcp`` (RFC 2782), and for itself
    at the usual port where it has none. Raises :class:`click.ClickException` when the DNS does not answer."""
    found: list[str] = []
    for word in words:
        found += [word.rstrip("/")] if "://" in word else _of_domain(word, resolver, chance)
    return list(dict.fromkeys(found))


def _of_domain(name: str, resolver: "Callable[[], Resolver] | None", chance: Callable[[], float]) -> list[str]:
    import dns.exception  # comes with the extra 'cluster'
    import dns.resolver

    ask = (resolver or dns.resolver.Resolver)()
    try:
        answer = ask.resolve(f"{SERVICE}.{name}", "SRV", lifetime=LOOKUP_S)
    except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
        return [f"https://{name}:{PORT}"]
    except dns.exception.DNSException as error:
        raise click.ClickException(f"the DNS does not say where the servers of {name} are: {error}") from None
    records = [(r.priority, chance() ** (1 / max(r.weight, 0.01)), r.target.to_text(True), r.port) for r in answer]
    records.sort(key=lambda record: (record[0], -record[1]))  # within a priority by weighted chance
    return [f"https://{target}:{port}" for _, _, target, port in records if target != "."]
