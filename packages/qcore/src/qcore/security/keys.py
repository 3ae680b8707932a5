"""Private keys and X.509 certificates, RSA only, as the `auth` serializer uses them."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator
from datetime import UTC, datetime

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.x509 import load_pem_x509_certificate

from qcore.errors import SecurityError


def digest_algorithm(name: str) -> hashes.HashAlgorithm:
    """The hash called `name`, such as `sha256`.

    Raises:
        SecurityError: there is no such hash.
    """
    algorithm = getattr(hashes, name.upper(), None)
    if not (isinstance(algorithm, type) and issubclass(algorithm, hashes.HashAlgorithm)):
        raise SecurityError(f"security_digest: {name!r} is no hash; use 'sha256', 'sha384' or 'sha512'")
    try:
        return algorithm()
    except TypeError as exc:
        raise SecurityError(f"security_digest: {name!r} cannot be used for signatures") from exc


def _padding(digest: hashes.HashAlgorithm) -> padding.PSS:
    return padding.PSS(mgf=padding.MGF1(digest), salt_length=padding.PSS.MAX_LENGTH)


class PrivateKey:
    """An RSA private key.

    Args:
        pem: the key in PEM format.
        password: of an encrypted key.

    Raises:
        SecurityError: it is no such key, or the password is wrong or missing.
    """

    def __init__(self, pem: bytes, password: bytes | str | None = None) -> None:
        secret = password.encode() if isinstance(password, str) else password
        try:
            key = serialization.load_pem_private_key(pem, password=secret)
        except (ValueError, TypeError, UnsupportedAlgorithm) as exc:
            raise SecurityError(f"invalid private key: {exc}") from exc
        if not isinstance(key, rsa.RSAPrivateKey):
            raise SecurityError("invalid private key: only RSA keys are supported")
        self._key = key

    def sign(self, data: bytes, digest: hashes.HashAlgorithm) -> bytes:
        """The signature of `data`."""
        return self._key.sign(data, _padding(digest), digest)


class Certificate:
    """An X.509 certificate with an RSA key.

    Args:
        pem: the certificate in PEM format.

    Raises:
        SecurityError: it is no such certificate.
    """

    def __init__(self, pem: bytes) -> None:
        try:
            self._certificate = load_pem_x509_certificate(pem)
            key = self._certificate.public_key()
        except (ValueError, UnsupportedAlgorithm) as exc:
            raise SecurityError(f"invalid certificate: {exc}") from exc
        if not isinstance(key, rsa.RSAPublicKey):
            raise SecurityError("invalid certificate: only RSA keys are supported")
        self._key = key

    @property
    def id(self) -> str:
        """Issuer and serial number, which tell a certificate from all others."""
        issuer = " ".join(_text(attribute.value) for attribute in self._certificate.issuer)
        return f"{issuer} {self._certificate.serial_number}"

    def has_expired(self, now: datetime | None = None) -> bool:
        """Whether its validity is over at `now`."""
        return (now or datetime.now(UTC)) >= self._certificate.not_valid_after_utc

    def verify(self, data: bytes, signature: bytes, digest: hashes.HashAlgorithm) -> None:
        """Check that the owner of the certificate signed `data`.

        Raises:
            SecurityError: somebody else did, the data was changed, or the certificate has expired.
        """
        if self.has_expired():
            raise SecurityError(f"expired certificate: {self.id!r}")
        try:
            self._key.verify(signature, data, _padding(digest), digest)
        except InvalidSignature as exc:
            raise SecurityError(
                f"bad signature: not made by {self.id!r}, or the message was changed"
            ) from exc


def _text(value: str | bytes) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


class CertificateStore:
    """The certificates whose owners are trusted, by id."""

    def __init__(self) -> None:
        self._certificates: dict[str, Certificate] = {}

    @classmethod
    def from_files(cls, pattern: str) -> CertificateStore:
        """All certificates in the files that glob `pattern` matches; a directory stands for its files.

        Raises:
            SecurityError: no file matches, or one is no valid certificate.
        """
        store = cls()
        names = os.path.join(pattern, "*") if os.path.isdir(pattern) else pattern
        paths = [path for path in sorted(glob.glob(names)) if os.path.isfile(path)]
        if not paths:
            raise SecurityError(f"security_cert_store: no file matches {names!r}")
        for path in paths:
            store.add_file(path)
        return store

    def add_file(self, path: str) -> None:
        """Trust the certificate in the file `path`."""
        try:
            with open(path, "rb") as file:
                certificate = Certificate(file.read())
        except OSError as exc:
            raise SecurityError(f"security_cert_store: cannot read {path!r}: {exc}") from exc
        except SecurityError as exc:
            raise SecurityError(f"security_cert_store: {path!r}: {exc}") from exc
        if certificate.has_expired():
            raise SecurityError(f"security_cert_store: {path!r}: expired certificate: {certificate.id!r}")
        self.add(certificate)

    def add(self, certificate: Certificate) -> None:
        """Trust `certificate`."""
        if certificate.id in self._certificates:
            raise SecurityError(f"duplicate certificate: {certificate.id!r}")
        self._certificates[certificate.id] = certificate

    def __getitem__(self, id: str) -> Certificate:
        try:
            return self._certificates[id]
        except KeyError:
            raise SecurityError(f"unknown certificate: {id!r} is not in security_cert_store") from None

    def __iter__(self) -> Iterator[Certificate]:
        return iter(self._certificates.values())

    def __len__(self) -> int:
        return len(self._certificates)
