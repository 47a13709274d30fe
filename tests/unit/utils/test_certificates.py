"""Certificates: what they are for, how long, and what of a request is believed."""

import datetime as dt
from base64 import encodebytes

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from jarvis.utils import certificates as c

NOW = 1_800_000_000.0


@pytest.fixture(scope="module")
def authority() -> c.Pair:
    return c.new_authority(NOW)


def usage(certificate: x509.Certificate) -> list[x509.ObjectIdentifier]:
    return list(certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)


def test_a_node_gets_the_name_that_was_decided_and_not_the_one_it_asked_for(authority: c.Pair) -> None:
    _, request = c.node_request("asked")
    made = x509.load_pem_x509_certificate(c.node_certificate(authority, request, "decided", "m1", NOW))
    names = {a.oid: a.value for a in made.subject}
    assert names == {NameOID.COMMON_NAME: "decided", NameOID.ORGANIZATIONAL_UNIT_NAME: "m1"}
    assert usage(made) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert made.not_valid_after_utc - dt.datetime.fromtimestamp(NOW, dt.UTC) == dt.timedelta(hours=24)
    made.verify_directly_issued_by(x509.load_pem_x509_certificate(authority.certificate))


def test_a_server_has_its_names_and_is_no_client(authority: c.Pair) -> None:
    pair = c.server_pair(authority, ["localhost", "10.0.0.1", "::1"], NOW)
    made = x509.load_pem_x509_certificate(pair.certificate)
    names = made.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(name.value) for name in names] == ["localhost", "10.0.0.1", "::1"]
    assert usage(made) == [ExtendedKeyUsageOID.SERVER_AUTH]
    begin, end = c.validity(pair.certificate)
    assert begin < NOW < end == NOW + 30 * 86400


def test_a_key_beside_a_certificate_does_not_hide_it(authority: c.Pair) -> None:
    assert c.validity(authority.key + authority.certificate) == c.validity(authority.certificate)


def test_a_pin_is_that_of_the_key(authority: c.Pair) -> None:
    assert c.pin(authority.certificate).startswith("sha256:")
    assert c.pin(authority.certificate) != c.pin(c.new_authority(NOW).certificate)


@pytest.mark.parametrize(
    "request_", [b"", b"x", b"-----BEGIN CERTIFICATE REQUEST-----\nAA==\n-----END CERTIFICATE REQUEST-----\n"]
)
def test_what_is_no_request_is_refused(authority: c.Pair, request_: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - whatever the library says
        c.node_certificate(authority, request_, "n", "m", NOW)


def test_a_request_that_was_changed_is_refused(authority: c.Pair) -> None:
    _, request = c.node_request("aaaaaaaa")
    der = x509.load_pem_x509_csr(request)
    changed = der.public_bytes(Encoding.DER).replace(b"aaaaaaaa", b"bbbbbbbb")
    pem = b"-----BEGIN CERTIFICATE REQUEST-----\n" + encodebytes(changed) + b"-----END CERTIFICATE REQUEST-----\n"
    with pytest.raises(ValueError, match="not signed"):
        c.node_certificate(authority, pem, "n", "m", NOW)
