"""Records as bytes and back: serializer, accepted content, compression (W15, W16-12)."""

from __future__ import annotations

import functools
from collections.abc import Collection
from typing import Any

from qcore import (
    errors,  # kombu's classes are looked up there on first use
    serialization,
)

from .exceptions import to_wire

COMPRESSED = b"\x00celery-compressed\x00"


class Codec:
    """Encodes for one store.

    Args:
        serializer: name known to kombu.
        accept: names or content types that may be decoded.
        compression: name known to kombu, None for plain content.

    Raises:
        ImproperlyConfigured: the serializer is not known.
    """

    def __init__(
        self,
        serializer: str = "json",
        accept: Collection[str] = ("json",),
        compression: str | None = None,
    ) -> None:
        self.serializer = serializer
        self.compression = compression
        self.is_json = serializer == "json"
        self.keeps_exceptions = serializer == "pickle"
        self.content_type = serialization.content_type_of(serializer)
        self._accept = tuple(accept)

    @functools.cached_property
    def accepted(self) -> frozenset[str]:
        """Content types that may be decoded."""
        return serialization.accepted_content_types(self._accept)

    def accepts(self, name: str) -> bool:
        """Whether content of a serializer may be decoded."""
        return serialization.content_type_of(name) in self.accepted

    @property
    def content_encoding(self) -> str:
        """`utf-8` or `binary`."""
        return "binary" if self.serializer in ("pickle", "msgpack") else "utf-8"

    def encode(self, value: Any) -> bytes:
        """`value` serialized, not compressed.

        Raises:
            EncodeError: it cannot be.
        """
        try:
            return serialization.dumps(value, self.serializer)[2]
        except RecursionError as exc:
            raise errors.EncodeError(f"the value is nested too deeply, or holds itself: {exc}") from exc

    def decode(self, payload: Any) -> Any:
        """What `encode` made.

        Raises:
            DecodeError: it is no content of this serializer.
            ContentDisallowed: its type is not in `result_accept_content`.
        """
        return serialization.loads(payload, self.content_type, self.content_encoding, accept=self.accepted)

    def pack(self, raw: bytes) -> bytes:
        """`raw` compressed if compression is on, with the header that names the method."""
        if not self.compression:
            return raw
        data, mime = serialization.compress(raw, self.compression)
        return COMPRESSED + mime.encode() + b"\x00" + data

    def unpack(self, payload: Any) -> Any:
        """What `pack` made, or plain content as it is."""
        if not isinstance(payload, (bytes, bytearray, memoryview)):
            return payload
        raw = bytes(payload)
        if not raw.startswith(COMPRESSED):
            return raw
        mime, _, data = raw[len(COMPRESSED) :].partition(b"\x00")
        return serialization.decompress(data, mime.decode())

    def encodable(self, value: Any) -> bool:
        """Whether `value` can be serialized."""
        try:
            self.encode(value)
        except errors.EncodeError:
            return False
        return True

    def value_to_wire(self, value: Any) -> Any:
        """A value, or the form of an exception that the serializer can take."""
        if isinstance(value, BaseException):
            if self.keeps_exceptions and _survives_pickle(value):
                return value
            return to_wire(value, self.encodable)
        if hasattr(value, "as_tuple") and not isinstance(value, tuple):
            return value.as_tuple()
        return value


def _survives_pickle(exc: BaseException) -> bool:
    import pickle

    try:
        pickle.loads(pickle.dumps(exc))
    except Exception:  # noqa: BLE001 - foreign code; the exception travels as a plain object
        return False
    return True
