"""The `auth` serializer: bodies in another serializer, with a signature.

On the wire (W10-12): base64 of `signer SEP signature SEP content type SEP content encoding SEP body` where
SEP is the bytes 00 01, and signer and signature are base64 themselves. What is signed is the encoded inner
body, so nothing is decoded before the signature has been checked.
"""

from __future__ import annotations

import base64
import binascii
from typing import Any

import attrs

from qcore import serialization
from qcore.edge import kombu
from qcore.errors import SecurityError
from qcore.security.keys import Certificate, CertificateStore, PrivateKey, digest_algorithm

SEPARATOR = b"\x00\x01"
CONTENT_TYPE = "application/data"


@attrs.frozen
class SignedBody:
    """The parts of a signed body."""

    signer: str
    signature: bytes
    content_type: str
    content_encoding: str
    body: bytes

    def pack(self) -> bytes:
        """The parts as they travel."""
        parts = (
            base64.b64encode(self.signer.encode()),
            base64.b64encode(self.signature),
            self.content_type.encode(),
            self.content_encoding.encode(),
            self.body,
        )
        return base64.b64encode(SEPARATOR.join(parts))

    @classmethod
    def unpack(cls, data: bytes | str) -> SignedBody:
        """The parts of what `pack` made.

        Raises:
            SecurityError: it has another form.
        """
        try:
            signer, signature, content_type, encoding, body = base64.b64decode(data).split(SEPARATOR, 4)
            return cls(
                base64.b64decode(signer).decode(),
                base64.b64decode(signature),
                content_type.decode(),
                encoding.decode(),
                body,
            )
        except (ValueError, binascii.Error) as exc:
            raise SecurityError(f"not a signed message: {exc}") from exc


class SignedSerializer:
    """Signs what is sent and checks what is received.

    Args:
        key: signs; None: can only check.
        certificate: of that key; its id goes along.
        store: whom to trust; None: can only sign.
        digest: name of the hash that is signed.
        serializer: encodes the inner body.
    """

    def __init__(
        self,
        key: PrivateKey | None = None,
        certificate: Certificate | None = None,
        store: CertificateStore | None = None,
        digest: str = "sha256",
        serializer: str = "json",
    ) -> None:
        self._key = key
        self._certificate = certificate
        self._store = store
        self._digest = digest_algorithm(digest)
        self._serializer = serializer

    def serialize(self, obj: Any) -> bytes:
        """`obj` encoded and signed.

        Raises:
            SecurityError: there is no key or certificate.
            EncodeError: `obj` cannot be encoded.
        """
        if self._key is None or self._certificate is None:
            raise SecurityError("signing needs security_key and security_certificate")
        content_type, encoding, body = serialization.dumps(obj, self._serializer)
        signature = self._key.sign(body, self._digest)
        return SignedBody(self._certificate.id, signature, content_type, encoding, body).pack()

    def deserialize(self, data: bytes | str) -> Any:
        """What was signed.

        Raises:
            SecurityError: it was not signed by an owner of a trusted certificate, or was changed since.
        """
        if self._store is None:
            raise SecurityError("checking signatures needs security_cert_store")
        signed = SignedBody.unpack(data)
        self._store[signed.signer].verify(signed.body, signed.signature, self._digest)
        return serialization.loads(
            signed.body, signed.content_type, signed.content_encoding, accept={signed.content_type}
        )

    def register(self) -> None:
        """Make this the serializer called `auth`, for the whole process."""
        kombu("kombu.serialization").register("auth", self.serialize, self.deserialize, CONTENT_TYPE, "utf-8")
