"""Records as bytes and back: serializer, accepted content, compression (W15, W16-12)."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Collection
from typing import Any, cast

from qcore import errors  # kombu's classes are looked up there on first use
from qcore.edge import kombu
from qcore.errors import ImproperlyConfigured

from .exceptions import to_wire
from .record import ResultRecord

COMPRESSED = b"\x00celery-compressed\x00"
_JSON = "application/json"


class Codec:
    """Encodes for one store.

    Args:
        serializer: name known to kombu.
        accept: names or content types that may be decoded; None accepts the serializer's own and JSON.
        compression: name known to kombu, None for plain content.

    Raises:
        ImproperlyConfigured: the serializer is not known.
    """

    def __init__(
        self, serializer: str = "json", accept: Collection[str] | None = None, compression: str | None = None
    ) -> None:
        self.serializer = serializer
        self.compression = compression
        self.is_json = serializer == "json"
        self.keeps_exceptions = serializer == "pickle"
        self._accept = None if accept is None else {*accept}

    @functools.cached_property
    def _registry(self) -> Any:
        return kombu("kombu.serialization")

    @functools.cached_property
    def _accepted(self) -> set[str]:
        names: set[str] = self._registry.prepare_accept_content(self._accept or {"json"})
        return {*names, self.content_type}

    @functools.cached_property
    def _format(self) -> tuple[str, str]:
        encoders = self._registry.registry._encoders
        if self.serializer not in encoders:
            raise ImproperlyConfigured(
                f"result_serializer {self.serializer!r} is not known; use one of {', '.join(sorted(encoders))}"
            )
        entry = encoders[self.serializer]
        return entry.content_type, entry.content_encoding

    @property
    def content_type(self) -> str:
        """Content type of what is encoded."""
        return _JSON if self.is_json else self._format[0]

    @property
    def content_encoding(self) -> str:
        """`utf-8` or `binary`."""
        return "utf-8" if self.is_json else self._format[1]

    @functools.cached_property
    def _json_encode(self) -> Callable[[Any], str]:
        encoder = kombu("kombu.utils.json").JSONEncoder()
        return cast(Callable[[Any], str], encoder.encode)

    @functools.cached_property
    def _json_decode(self) -> Callable[[str | bytes], Any]:
        hook = kombu("kombu.utils.json").object_hook
        plain = json.JSONDecoder().decode
        hooked = json.JSONDecoder(object_hook=hook).decode

        def decode(payload: str | bytes) -> Any:
            text = payload if isinstance(payload, str) else payload.decode()
            # The hook is called for every object and only wanted for typed ones.
            return hooked(text) if '"__type__"' in text else plain(text)

        return decode

    def encode(self, value: Any) -> str | bytes:
        """`value` serialized, not compressed.

        Raises:
            EncodeError: it cannot be.
        """
        try:
            if self.is_json:
                return self._json_encode(value)
            return cast("str | bytes", self._registry.dumps(value, serializer=self.serializer)[2])
        except RecursionError as exc:
            raise errors.EncodeError(f"the value is nested too deeply, or holds itself: {exc}") from exc
        except Exception as exc:
            raise errors.EncodeError(
                f"cannot be encoded with the serializer {self.serializer!r}: {exc}"
            ) from exc

    def decode(self, payload: Any) -> Any:
        """What `encode` made.

        Raises:
            DecodeError: it is no content of this serializer.
            ContentDisallowed: its type is not accepted.
        """
        if self.is_json:
            return self._json_decode(payload)
        if self.content_type not in self._accepted:  # pragma: no cover - own type is always accepted
            raise errors.ContentDisallowed(f"refusing content of type {self.content_type}")
        return self._registry.loads(
            payload, self.content_type, self.content_encoding, accept=self._accepted, force=True
        )

    def pack(self, text: str | bytes) -> str | bytes:
        """`text` compressed if compression is on, with the header that names the method."""
        if not self.compression:
            return text
        raw = text.encode() if isinstance(text, str) else text
        data, mime = kombu("kombu.compression").compress(raw, self.compression)
        return COMPRESSED + mime.encode() + b"\x00" + cast(bytes, data)

    def unpack(self, payload: Any) -> Any:
        """What `pack` made, or plain content as it is."""
        if not isinstance(payload, (bytes, bytearray, memoryview)):
            return payload
        raw = bytes(payload)
        if not raw.startswith(COMPRESSED):
            return raw
        mime, _, data = raw[len(COMPRESSED) :].partition(b"\x00")
        return cast(bytes, kombu("kombu.compression").decompress(data, mime.decode()))

    def encodable(self, value: Any) -> bool:
        """Whether `value` can be serialized."""
        try:
            self.encode(value)
        except errors.EncodeError:
            return False
        return True

    def result_to_wire(self, record: ResultRecord) -> Any:
        """The result field of a record as it is serialized."""
        return self.value_to_wire(record.result)

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
