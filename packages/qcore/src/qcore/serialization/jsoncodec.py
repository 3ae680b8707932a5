"""JSON for messages: kombu's types, at the speed that the fast libraries allow.

Dates, times, `Decimal`, `UUID` and bytes travel as `{"__type__": name, "__value__": value}` and come back as
what they were; objects with a `__json__` method travel as what it returns. Types registered with
`kombu.utils.json.register_type` work as well.

Encoding tries, in this order: orjson, if it is installed and the data is built of plain JSON types; the
C encoder of the standard library, set up once. Decoding tries orjson for bodies without type objects. Both
give what `json` gives.
"""

from __future__ import annotations

import json
import marshal
from collections.abc import Callable
from json import encoder as _encoder
from typing import Any

from kombu.utils import json as kombu_json

try:
    import orjson
except ImportError:  # the extra "fast" is not installed
    orjson = None  # type: ignore[assignment]

TYPE, VALUE = "__type__", "__value__"
_TYPE_BYTES = TYPE.encode()
_ENVELOPE = {TYPE, VALUE}

# The last two bytes of infinities and of not-a-numbers, which orjson would turn into null.
_NOT_FINITE = (b"\xf0\x7f", b"\xf0\xff", b"\xf8\x7f", b"\xf8\xff")
_MARSHAL_WITHOUT_REFERENCES = 2

# orjson reads integers beyond 64 bits as floats; they have at least 19 digits.
_DIGITS = bytes(48 if 48 <= byte < 58 else 32 for byte in range(256))
_MANY_DIGITS = b"0" * 19

_default = kombu_json.JSONEncoder().default


def _standard_encoder() -> Callable[[Any], str]:
    make: Any = getattr(_encoder, "c_make_encoder", None)
    if make is None:  # another interpreter
        return kombu_json.JSONEncoder().encode
    # `JSONEncoder.encode` builds this anew at each call. No circle markers: those are shared state.
    iterate = make(None, _default, _encoder.encode_basestring_ascii, None, ": ", ", ", False, False, True)
    return lambda obj: "".join(iterate(obj, 0))


_encode_standard = _standard_encoder()


def _is_plain(obj: Any) -> bool:
    """Whether `obj` consists of exact builtin types and finite numbers.

    marshal refuses everything else, and walks the object in C.
    """
    try:
        image = marshal.dumps(obj, _MARSHAL_WITHOUT_REFERENCES)
    except ValueError:
        return False
    return not any(mark in image for mark in _NOT_FINITE)


def encode(obj: Any) -> bytes:
    """JSON text of `obj` in UTF-8.

    Raises:
        TypeError: it holds an object that JSON has no form for.
        RecursionError: it contains itself, or is nested too deeply.
    """
    if orjson is not None and _is_plain(obj):
        try:
            return orjson.dumps(obj)
        except TypeError:  # large integers, keys that are not text, bytes: the standard encoder decides
            pass
    return _encode_standard(obj).encode("ascii")


def _hook(pair: dict[str, Any]) -> Any:
    if len(pair) == 2 and pair.keys() == _ENVELOPE:
        decode_type = kombu_json._decoders.get(pair[TYPE]) if isinstance(pair[TYPE], str) else None
        # A newer sender may know more types than we do; what we do not know is kept as it came.
        return pair if decode_type is None else decode_type(pair[VALUE])
    return pair


_decode_typed = json.JSONDecoder(object_hook=_hook).decode
_decode_plain = json.JSONDecoder().decode


def decode(data: bytes | bytearray | memoryview | str) -> Any:
    """The object that JSON text tells.

    Raises:
        ValueError: it is no JSON, or no UTF-8, or holds a type object with an impossible value.
    """
    raw = data.encode() if isinstance(data, str) else bytes(data)
    if _TYPE_BYTES in raw:
        return _decode_typed(raw.decode())
    if orjson is not None and _MANY_DIGITS not in raw.translate(_DIGITS):
        try:
            return orjson.loads(raw)
        except ValueError:  # NaN, a single surrogate, or an error that the standard decoder explains better
            pass
    return _decode_plain(raw.decode())
