"""Certificates of a cluster: its own authority, its servers, its nodes. ECDSA over P-256, X.509 (RFC 5280).

The library behind it comes with the extra ``cluster``: a cluster of one machine has no use for it.
"""

import datetime as dt
import hashlib
import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

AUTHORITY = dt.timedelta(days=3650)
SERVER = dt.timedelta(days=30)
NODE = dt.timedelta(hours=24)
EARLY = dt.timedelta(minutes=5)
"""A clock that is a little behind must not find a certificate that is not valid yet."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A private key and its certificate, both PEM."""

    key: bytes
    certificate: bytes


def new_authority(now: float) -> Pair:
    """Signs for one cluster, and for nothing else."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Jarvis cluster")])
    usage = x509.KeyUsage(
        digital_signature=False, content_commitment=False, key_encipherment=False, data_encipherment=False,
        key_agreement=False, key_cert_sign=True, crl_sign=True, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    builder = (
        _builder(name, name, key.public_key(), now, AUTHORITY)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(identifier, critical=False)
    )
    return Pair(_pem(key), builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))


def server_pair(authority: Pair, names: Iterable[str], now: float) -> Pair:
    """For a server that is known by these host names and addresses."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Jarvis server")])
    builder = _builder(subject, _issuer(authority), key.public_key(), now, SERVER)
    builder = builder.add_extension(x509.SubjectAlternativeName([_alternative(name) for name in names]), critical=False)
    return Pair(_pem(key), _signed(authority, builder, ExtendedKeyUsageOID.SERVER_AUTH))


def node_request(name: str) -> tuple[bytes, bytes]:
    """A new private key, which never leaves its node, and the request for its certificate, both PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    return _pem(key), request.public_bytes(serialization.Encoding.PEM)


def node_certificate(authority: Pair, request: bytes, name: str, member: str, now: float) -> bytes:
    """For the key of a request; of its words nothing else is believed. ``member`` names the membership that it stands for.

    Raises ValueError for what is no request, or one whose maker does not hold the key.
    """
    asked = x509.load_pem_x509_csr(request)
    key = asked.public_key()
    if not asked.is_signature_valid or not isinstance(key, ec.EllipticCurvePublicKey):
        raise ValueError("the request is not signed with an elliptic-curve key of its own")
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.COMMON_NAME, name),
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, member),
        ]
    )
    return _signed(authority, _builder(subject, _issuer(authority), key, now, NODE), ExtendedKeyUsageOID.CLIENT_AUTH)


def pin(certificate: bytes) -> str:
    """What people compare: the hash of the certificate's public key, as in RFC 7469."""
    spki = x509.load_pem_x509_certificate(certificate).public_key()
    der = spki.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return f"sha256:{hashlib.sha256(der).hexdigest()}"


def validity(certificate: bytes) -> tuple[float, float]:
    """From when to when, in seconds since 1970."""
    found = x509.load_pem_x509_certificate(certificate)
    return found.not_valid_before_utc.timestamp(), found.not_valid_after_utc.timestamp()


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: float, life: dt.timedelta
) -> x509.CertificateBuilder:
    begin = dt.datetime.fromtimestamp(now, dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin - EARLY)
        .not_valid_after(begin + life)
    )


def _signed(authority: Pair, builder: x509.CertificateBuilder, usage: x509.ObjectIdentifier) -> bytes:
    signer = serialization.load_pem_private_key(authority.key, None)
    assert isinstance(signer, ec.EllipticCurvePrivateKey)
    issuer = x509.load_pem_x509_certificate(authority.certificate)
    identifier = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    whole = (
        builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([usage]), critical=True)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False)
    )
    return whole.sign(signer, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def _issuer(authority: Pair) -> x509.Name:
    return x509.load_pem_x509_certificate(authority.certificate).subject


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
