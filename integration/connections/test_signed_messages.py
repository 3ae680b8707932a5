"""Signed messages cross between Celery and us, both ways (W10-12)."""

from __future__ import annotations

import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID
from peers import CELERY, peer_python  # found in tools/ by the conftest above

from qcore.security.keys import Certificate, CertificateStore, PrivateKey
from qcore.security.signing import SignedSerializer

PEER = """
import sys
from celery.security.certificate import Certificate, FSCertStore
from celery.security.key import PrivateKey
from celery.security.serialization import SecureSerializer
key, cert = open("k.pem").read(), open("c.pem").read()
serializer = SecureSerializer(PrivateKey(key), Certificate(cert), FSCertStore("c.pem"))
assert serializer.deserialize(open("ours.bin", "rb").read()) == {"a": [1, "\\u00fc"]}
theirs = serializer.serialize({"b": None})
open("theirs.bin", "wb").write(theirs if isinstance(theirs, bytes) else theirs.encode())
"""


@pytest.fixture
def serializer(tmp_path: Path) -> SignedSerializer:
    """Signs as the owner of the key that it writes to files."""
    key = rsa.generate_private_key(65537, 2048)
    name = x509.Name(
        [x509.NameAttribute(NameOID.COUNTRY_NAME, "NO"), x509.NameAttribute(NameOID.COMMON_NAME, "alice")]
    )
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(77)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    key_pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    certificate_pem = certificate.public_bytes(serialization.Encoding.PEM)
    (tmp_path / "k.pem").write_bytes(key_pem)
    (tmp_path / "c.pem").write_bytes(certificate_pem)
    store = CertificateStore.from_files(str(tmp_path / "c.pem"))
    return SignedSerializer(PrivateKey(key_pem), Certificate(certificate_pem), store)


def test_each_side_reads_the_other(serializer: SignedSerializer, tmp_path: Path) -> None:
    (tmp_path / "ours.bin").write_bytes(serializer.serialize({"a": [1, "ü"]}))
    subprocess.run(
        [peer_python("celery-signing", (*CELERY, "cryptography>=42")), "-c", PEER],
        cwd=tmp_path,
        check=True,
        timeout=60,
    )
    assert serializer.deserialize((tmp_path / "theirs.bin").read_bytes()) == {"b": None}
