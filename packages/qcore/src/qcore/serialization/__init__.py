"""Bodies of messages and results: encoded, decoded, compressed.

Serializers and compressions are those of kombu's registries, so what a program registers there works here,
and the other way round. kombu is imported on first use.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from functools import cache
from types import MappingProxyType
from typing import Any, NamedTuple

from qcore.edge import kombu
from qcore.errors import ImproperlyConfigured
from qcore.settings.names import closest

__all__ = [
    "accepted_content_types",
    "compress",
    "content_type_of",
    "decompress",
    "dumps",
    "loads",
    "register",
]

JSON = "application/json"
CONTENT_TYPES = MappingProxyType(
    {
        "json": JSON,
        "pickle": "application/x-python-serialize",
        "yaml": "application/x-yaml",
        "msgpack": "application/x-msgpack",
        "auth": "application/data",
    }
)
"""Content types of the serializers that everybody knows, for looking them up without kombu."""

_TRUSTED = frozenset({"application/data", "application/text"})
_PACKAGES = {"msgpack": "qcore[msgpack]", "yaml": "qcore[yaml]", "auth": "qcore[auth]"}
_COMPRESSION_PACKAGES = {"zstd": "backports.zstd", "zstandard": "backports.zstd", "brotli": "brotli"}
_SHOWN_BYTES = 80


class _Parts(NamedTuple):
    """What each call needs of kombu, looked up once: `import_module` costs as much as a small body."""

    registry: Any
    errors: Any
    slow_dumps: Any
    slow_loads: Any
    encode_json: Any
    decode_json: Any


@cache
def _parts() -> _Parts:
    registry = kombu("kombu.serialization").registry
    slow, fast = kombu("kombu.utils.json"), kombu("qbrokers.jsoncodec")
    return _Parts(
        registry,
        kombu("kombu.exceptions"),
        slow.dumps,
        slow.loads,
        fast.encode,
        fast.decode,
    )


def dumps(obj: Any, serializer: str = "json") -> tuple[str, str, bytes]:
    """Encode `obj`.

    Args:
        obj: what to send.
        serializer: `json`, `pickle`, `yaml`, `msgpack`, `auth`, `raw`, or a name registered with kombu.

    Returns:
        Content type, content encoding and the encoded body.

    Raises:
        EncodeError: `obj` has a part that this serializer cannot encode.
        SerializerNotInstalled: there is no such serializer, or its library is missing.
    """
    parts = _parts()
    codec = parts.registry._encoders.get(serializer)
    if codec is None:
        if serializer != "raw":
            raise parts.errors.SerializerNotInstalled(_no_serializer(serializer, "serializer"))
        content_type, encoding, body = parts.registry.dumps(obj, serializer)
        return content_type, encoding, body
    encoder = codec.encoder
    if encoder is parts.slow_dumps:
        encoder = parts.encode_json
    try:
        body = encoder(obj)
    except parts.errors.KombuError:
        raise
    except Exception as exc:
        # Encoders call methods of foreign objects; nothing has been sent yet.
        raise parts.errors.EncodeError(_not_encodable(serializer, exc)) from exc
    return codec.content_type, codec.content_encoding, body.encode() if isinstance(body, str) else body


def loads(
    body: Any,
    content_type: str | None,
    content_encoding: str | None = "utf-8",
    accept: Collection[str] | None = None,
) -> Any:
    """Decode a body.

    Args:
        body: bytes, buffer or text.
        content_type: MIME type that came with it; missing means `application/data`.
        content_encoding: character set, or `binary`.
        accept: content types that are decoded; None: those that kombu has enabled (JSON, unless changed).

    Raises:
        ContentDisallowed: the content type is not accepted; the body was not looked at.
        DecodeError: the body is broken.
    """
    content_type = content_type or "application/data"
    parts = _parts()
    if accept is not None and content_type not in accept and content_type not in _TRUSTED:
        raise parts.errors.ContentDisallowed(_refusal(content_type, accept))
    is_json = parts.registry._decoders.get(content_type) is parts.slow_loads
    if is_json and (accept is not None or content_type not in parts.registry._disabled_content_types):
        try:
            return parts.decode_json(body)
        except Exception as exc:
            # Decoders of registered types are foreign code; the message is rejected by the caller.
            raise parts.errors.DecodeError(_broken(body, content_type, exc)) from exc
    try:
        return parts.registry.loads(body, content_type, content_encoding, accept=accept)
    except parts.errors.ContentDisallowed as exc:
        raise type(exc)(_refusal(content_type, accept or ())) from exc
    except parts.errors.DecodeError as exc:
        raise type(exc)(_broken(body, content_type, exc)) from exc


def accepted_content_types(accept: Iterable[str]) -> frozenset[str]:
    """Content types of serializer names and MIME types (`accept_content`).

    Raises:
        ImproperlyConfigured: a name is no serializer.
    """
    return frozenset(content_type_of(name) for name in accept)


def content_type_of(name: str) -> str:
    """The content type of a serializer; a MIME type is returned as it is.

    Raises:
        ImproperlyConfigured: `name` is no serializer.
    """
    if "/" in name:
        return name
    found = CONTENT_TYPES.get(name) or kombu("kombu.serialization").registry.name_to_type.get(name)
    if found is None:
        raise ImproperlyConfigured(_no_serializer(name, "accept_content:"))
    content_type: str = found
    return content_type


def register(
    name: str, encoder: Any, decoder: Any, content_type: str, content_encoding: str = "utf-8"
) -> None:
    """Add a serializer to kombu's registry; workers that decode its messages need it as well."""
    kombu("kombu.serialization").register(name, encoder, decoder, content_type, content_encoding)


def compress(data: bytes, name: str) -> tuple[bytes, str]:
    """Compress a body.

    Args:
        data: encoded body.
        name: `gzip` (which is zlib's format on the wire), `bzip2`, `lzma`, `zstd`, `brotli`, or a MIME type.

    Returns:
        The compressed body and the MIME type that goes into the header `compression`.

    Raises:
        ImproperlyConfigured: there is no such compression, or its library is missing.
    """
    try:
        encoder, content_type = kombu("kombu.compression").get_encoder(name)
    except KeyError as exc:
        raise ImproperlyConfigured(_no_compression(name)) from exc
    return encoder(data), content_type


def decompress(data: bytes, name: str) -> bytes:
    """Undo `compress`; short names are understood as well.

    Raises:
        DecodeError: there is no such compression here, or the data is broken.
    """
    decode_error = kombu("kombu.exceptions").DecodeError
    try:
        decoder = kombu("kombu.compression").get_decoder(name)
    except KeyError as exc:
        raise decode_error(_no_compression(name)) from exc
    try:
        body: bytes = decoder(data)
    except Exception as exc:
        # Each library has errors of its own; the message is rejected by the caller.
        raise decode_error(_broken(data, f"{name} compressed", exc)) from exc
    return body


def _no_serializer(name: str, label: str) -> str:
    known = sorted({*CONTENT_TYPES, *kombu("kombu.serialization").registry.name_to_type})
    if name in _PACKAGES and name != "auth":
        return f"{label} {name!r} needs a library: pip install '{_PACKAGES[name]}'"
    if name == "auth":
        return f"{label} 'auth' is set up by app.setup_security()"
    near = closest(name, known)
    hint = f"did you mean {near!r}?" if near else f"there are {', '.join(known)}"
    return f"{label} {name!r} is unknown: {hint}"


def _no_compression(name: str) -> str:
    if name in _COMPRESSION_PACKAGES:
        return f"compression {name!r} needs a library: pip install {_COMPRESSION_PACKAGES[name]}"
    known = sorted(kombu("kombu.compression")._aliases)
    return f"compression {name!r} is unknown: there are {', '.join(known)}"


def _not_encodable(serializer: str, exc: BaseException) -> str:
    if isinstance(exc, RecursionError):
        return f"cannot encode as {serializer}: the data contains itself or is nested too deeply"
    text = f"cannot encode as {serializer}: {exc or type(exc).__name__}"
    if serializer == "json" and isinstance(exc, TypeError):
        return f"{text}; give its class a __json__ method, or use kombu.utils.json.register_type"
    return text


def _broken(body: Any, content_type: str, exc: BaseException) -> str:
    start = body[:_SHOWN_BYTES]
    start = start.tobytes() if isinstance(start, memoryview) else start
    more = "..." if len(body) > _SHOWN_BYTES else ""
    return f"cannot decode {content_type} body {start!r}{more}: {exc or type(exc).__name__}"


def _refusal(content_type: str, accept: Collection[str]) -> str:
    names = {value: name for name, value in CONTENT_TYPES.items()}
    names.update(kombu("kombu.serialization").registry.type_to_name)
    name = names.get(content_type)
    label = f"{name} ({content_type})" if name else content_type
    allowed = ", ".join(sorted(names.get(kind, kind) for kind in accept)) or "nothing"
    return (
        f"Refusing to deserialize untrusted content of type {label}: accept_content allows {allowed}; "
        f"add {(name or content_type)!r} to it only if you trust everyone who can send"
    )
