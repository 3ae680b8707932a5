"""Signed messages: `app.setup_security()` sets up the `auth` serializer and refuses everything unsigned.

Contents are signed, not encrypted.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from qcore.edge import kombu
from qcore.errors import ImproperlyConfigured, MissingPackageError

__all__ = ["setup_security"]


def setup_security(
    app: Any,
    allowed_serializers: Iterable[str] | None = None,
    key: str | None = None,
    key_password: bytes | str | None = None,
    cert: str | None = None,
    store: str | None = None,
    digest: str | None = None,
    serializer: str = "json",
) -> None:
    """Sign what is sent, and decode only what somebody trusted has signed.

    Args:
        app: its settings `security_…` fill missing arguments.
        allowed_serializers: serializers that stay enabled where no list of accepted content is given.
        key: file with the private key.
        key_password: of an encrypted key.
        cert: file with the certificate of that key.
        store: glob of the files with trusted certificates.
        digest: name of the hash that is signed.
        serializer: encodes the signed body.

    Raises:
        ImproperlyConfigured: settings are missing, or unsigned messages would be accepted.
        SecurityError: a key or certificate is not usable.
        MissingPackageError: the package cryptography is not installed.
    """
    conf = app.conf
    _check_serializers(conf)
    files = {
        "security_key": key or conf.security_key,
        "security_certificate": cert or conf.security_certificate,
        "security_cert_store": store or conf.security_cert_store,
    }
    missing = [name for name, path in files.items() if not path]
    if missing:
        raise ImproperlyConfigured(f"signing messages needs the settings {', '.join(missing)}")
    try:
        from qcore.security.keys import Certificate, CertificateStore, PrivateKey
    except ImportError as exc:
        raise MissingPackageError("the auth serializer", "qcore[auth]") from exc
    from qcore.security.signing import SignedSerializer

    SignedSerializer(
        PrivateKey(_read("security_key", files), key_password or conf.security_key_password),
        Certificate(_read("security_certificate", files)),
        CertificateStore.from_files(os.fspath(files["security_cert_store"])),
        digest or conf.security_digest,
        serializer,
    ).register()
    module = kombu("kombu.serialization")
    module.disable_insecure_serializers(
        list(allowed_serializers) if allowed_serializers is not None else None
    )
    module.registry.enable("auth")
    module.registry._set_default_serializer("auth")


def _check_serializers(conf: Any) -> None:
    if conf.task_serializer != "auth" or not set(conf.accept_content) <= {"auth", "application/data"}:
        raise ImproperlyConfigured(
            "signing needs task_serializer = 'auth', and accept_content = ['auth'] so that unsigned messages "
            f"are refused; they are {conf.task_serializer!r} and {list(conf.accept_content)!r}"
        )


def _read(setting: str, files: dict[str, Any]) -> bytes:
    try:
        with open(files[setting], "rb") as file:
            return file.read()
    except OSError as exc:
        raise ImproperlyConfigured(f"{setting}: cannot read {os.fspath(files[setting])!r}: {exc}") from exc
