"""A domain stands for the servers that its SRV records name, asked of a real name server."""

import socket
import threading
from collections.abc import Callable, Iterator

import click
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.resolver
import dns.rrset
import pytest

from jarvis.cli.discovery import servers_at

ZONE = {
    "_jarvis._tcp.many.test.": ["10 90 7600 s1.many.test.", "10 10 7600 s2.many.test.", "20 0 7601 s3.many.test."],
    "_jarvis._tcp.none.test.": ["0 0 0 ."],
    "_jarvis._tcp.broken.test.": [],
}


class NameServer(threading.Thread):
    """Over UDP, from ``ZONE``; what is there and empty is answered by a failure."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.socket.settimeout(0.1)
        self.over = threading.Event()

    def run(self) -> None:
        while not self.over.is_set():
            try:
                data, who = self.socket.recvfrom(4096)
            except TimeoutError:
                continue
            query = dns.message.from_wire(data)
            answer = dns.message.make_response(query)
            name = query.question[0].name
            records = ZONE.get(name.to_text())
            if records is None:
                answer.set_rcode(dns.rcode.NXDOMAIN)
            elif not records:
                answer.set_rcode(dns.rcode.SERVFAIL)
            else:
                answer.answer.append(dns.rrset.from_text_list(name, 60, "IN", "SRV", records))
            self.socket.sendto(answer.to_wire(), who)

    def resolver(self) -> dns.resolver.Resolver:
        made = dns.resolver.Resolver(configure=False)
        made.nameservers = ["127.0.0.1"]
        made.port = self.socket.getsockname()[1]
        return made


@pytest.fixture(scope="module")
def resolver() -> Iterator[Callable[[], dns.resolver.Resolver]]:
    server = NameServer()
    server.start()
    yield server.resolver
    server.over.set()
    server.join()
    server.socket.close()


def test_urls_are_taken_as_they_are() -> None:
    assert servers_at(("https://a:1/", "https://[::1]:2", "https://a:1")) == ["https://a:1", "https://[::1]:2"]


def test_records_come_by_priority_and_then_by_weight(resolver: Callable[[], dns.resolver.Resolver]) -> None:
    first, second, third = (f"https://s{n}.many.test:{port}" for n, port in ((1, 7600), (2, 7600), (3, 7601)))
    orders = [servers_at(("many.test",), resolver) for _ in range(100)]
    assert {order[2] for order in orders} == {third}
    assert {frozenset(order[:2]) for order in orders} == {frozenset({first, second})}
    assert sum(order[0] == first for order in orders) > 70, "it has nine tenths of the weight"


def test_a_domain_without_records_is_a_server_itself(resolver: Callable[[], dns.resolver.Resolver]) -> None:
    assert servers_at(("plain.test",), resolver) == ["https://plain.test:7516"]
    assert servers_at(("none.test",), resolver) == [], "it says that there is none"


def test_a_name_server_that_fails_is_an_error(resolver: Callable[[], dns.resolver.Resolver]) -> None:
    with pytest.raises(click.ClickException, match=r"does not say where the servers of broken\.test are"):
        servers_at(("broken.test",), resolver)
