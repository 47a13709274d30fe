"""The certificate for other machines: made anew in time, whatever became of its files."""

import ssl
from pathlib import Path

import pytest

from jarvis.api.server import uvicorn_options
from jarvis.api.tls import Tls
from jarvis.utils import certificates

NOW = 1_800_000_000.0
DAY = 86_400.0


class Clock:
    now = NOW

    def __call__(self) -> float:
        return self.now


async def nothing(scope: object, receive: object, send: object) -> None:
    """An application."""


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def tls(tmp_path: Path, clock: Clock) -> Tls:
    made = Tls(tmp_path / "tls", certificates.new_authority(NOW), ["localhost"], clock)
    made.config(nothing, uvicorn_options())
    return made


def damage(path: Path) -> None:
    path.write_bytes(b"-----BEGIN CERTIFICATE-----\nno\n")


@pytest.mark.parametrize("harm", [damage, Path.unlink])
def test_what_becomes_of_its_files_changes_nothing(harm: object, tls: Tls, clock: Clock, tmp_path: Path) -> None:
    assert callable(harm)
    harm(tmp_path / "tls" / "server.pem")
    harm(tmp_path / "tls" / "key.pem")
    assert not tls.renew_if_late()
    clock.now = NOW + 20 * DAY
    assert tls.renew_if_late(), "after two thirds of its life"
    assert not tls.renew_if_late()
    ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(
        tmp_path / "tls" / "server.pem", tmp_path / "tls" / "key.pem"
    )


def test_what_cannot_be_written_is_tried_again(tls: Tls, clock: Clock, tmp_path: Path) -> None:
    clock.now = NOW + 20 * DAY
    (tmp_path / "tls").rename(tmp_path / "away")
    for _ in range(2):
        with pytest.raises(FileNotFoundError):
            tls.renew_if_late()
    assert tls.end == NOW + 30 * DAY, "of the one that is shown still"
    (tmp_path / "away").rename(tmp_path / "tls")
    assert tls.renew_if_late()
    assert tls.end == NOW + 50 * DAY
