"""JSON for messages: kombu's types, at the speed that a fast library allows.

Dates, times, `Decimal`, `UUID` and bytes travel as `{"__type__": name, "__value__": value}` and come back as
what they were; objects with a `__json__` method travel as what it returns. Types registered with
`kombu.utils.json.register_type` work as well.

msgspec, if it is installed, writes what is built of plain JSON types, and reads what has no type objects; the
standard library does the rest. Both give what `json` gives.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from json import encoder as _encoder
from math import isfinite
from typing import Any

from kombu.utils import json as kombu_json

TYPE, VALUE = "__type__", "__value__"
_TYPE_BYTES = TYPE.encode()
_ENVELOPE = {TYPE, VALUE}
_PLAIN = frozenset({str, int, bool, type(None)})

_fast_encode: Callable[[Any], bytes] | None = None
_fast_decode: Callable[[bytes], Any] | None = None
try:
    from msgspec import json as _msgspec

    _fast_encode, _fast_decode = _msgspec.Encoder().encode, _msgspec.Decoder().decode
except ImportError:  # the extra "fast" is not installed
    pass

_kombu_encoder: Any = kombu_json.JSONEncoder
_default = _kombu_encoder().default


def _standard_encoder() -> Callable[[Any], str]:
    make: Any = getattr(_encoder, "c_make_encoder", None)
    if make is None:  # another interpreter
        encode: Callable[[Any], str] = _kombu_encoder().encode
        return encode
    # `JSONEncoder.encode` builds this anew at each call. No circle markers: those are shared state.
    iterate = make(None, _default, _encoder.encode_basestring_ascii, None, ": ", ", ", False, False, True)
    return lambda obj: "".join(iterate(obj, 0))


_encode_standard = _standard_encoder()


def _are_plain(values: Iterable[Any]) -> bool:
    """Whether the values consist of exact builtin types and finite numbers, with text as keys: then every JSON
    writer writes them alike.

    Hot: called for each message. One loop that goes down only where there is something is the fastest of the
    ways tried (`tools/bench/broker`, bulk publish).
    """
    for value in values:
        kind = type(value)
        if kind in _PLAIN:
            continue
        if kind is dict:
            if value:
                try:
                    "".join(value)  # the cheapest way to see that all keys are text
                except TypeError:
                    return False
                if not _are_plain(value.values()):
                    return False
        elif kind is list or kind is tuple:
            if value and not _are_plain(value):
                return False
        elif kind is not float or not isfinite(value):
            return False
    return True


def encode(obj: Any) -> bytes:
    """JSON text of `obj` in UTF-8.

    Raises:
        TypeError: It holds an object that JSON has no form for.
        RecursionError: It contains itself, or is nested too deeply.
    """
    if _fast_encode is not None and _are_plain((obj,)):
        try:
            return _fast_encode(obj)
        except ValueError:  # half a surrogate pair, which the standard encoder escapes
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
        ValueError: It is no JSON, or no UTF-8, or holds a type object with an impossible value.
        RecursionError: It is nested too deeply.
    """
    raw = data.encode() if isinstance(data, str) else bytes(data)
    if _TYPE_BYTES in raw:
        return _decode_typed(raw.decode())
    if _fast_decode is not None:
        try:
            return _fast_decode(raw)
        except ValueError:  # NaN, a single surrogate, or an error that the standard decoder explains better
            pass
    return _decode_plain(raw.decode())
