"""Keys and certificates made for the tests."""

from datetime import UTC, datetime, timedelta

import pytest

pytest.importorskip("cryptography")

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID


class Identity:
    """A key pair in PEM files below `directory`."""

    def __init__(self, directory, name, *, days=1, elliptic=False, password=None):
        key = ec.generate_private_key(ec.SECP256R1()) if elliptic else rsa.generate_private_key(65537, 2048)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        now = datetime.now(UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=10))
            .not_valid_after(now + timedelta(days=days))
            .sign(key, hashes.SHA256())
        )
        encryption = (
            serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
        )
        self.name = name
        self.key_file = directory / f"{name}.key"
        self.certificate_file = directory / f"{name}.pem"
        self.key_file.write_bytes(
            key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
        )
        self.certificate_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))


@pytest.fixture(scope="session")
def identities(tmp_path_factory):
    directory = tmp_path_factory.mktemp("identities")
    return {
        "alice": Identity(directory, "alice"),
        "bob": Identity(directory, "bob"),
        "late": Identity(directory, "late", days=-1),
        "curved": Identity(directory, "curved", elliptic=True),
        "locked": Identity(directory, "locked", password=b"open sesame"),
    }
