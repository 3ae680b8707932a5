"""The JSON envelope of a message, fast where a fast library is installed and exact everywhere.

The envelope is one JSON object with `body`, `content-type`, `content-encoding`, `headers` and `properties`.
kombu writes values JSON has no word for (dates, UUIDs, bytes) as objects with a key `__type__`; so do we,
through kombu.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any

from kombu.utils.json import JSONEncoder

from qbrokers.redis.bases import kombu_loads

try:
    from msgspec import DecodeError
    from msgspec.json import Decoder

    _fast_loads: Any = Decoder().decode
    _Undecodable: type[Exception] = DecodeError
except ImportError:
    _fast_loads = json.loads
    _Undecodable = json.JSONDecodeError

try:
    import orjson
    from orjson import OPT_PASSTHROUGH_DATACLASS, OPT_PASSTHROUGH_DATETIME, OPT_PASSTHROUGH_SUBCLASS

    _orjson_dumps: Any = orjson.dumps
    _OPTIONS = OPT_PASSTHROUGH_DATETIME | OPT_PASSTHROUGH_DATACLASS | OPT_PASSTHROUGH_SUBCLASS
except ImportError:
    _orjson_dumps = None

_exact_dumps = JSONEncoder().encode
_PLAIN = frozenset({str, int, bool, type(None)})
_NESTING = _PLAIN | {dict, list, tuple}


def _is_plain(values: Collection[Any]) -> bool:
    """Whether every JSON writer writes the values alike: no float (NaN), no date, no UUID."""
    kinds = set(map(type, values))
    if kinds <= _PLAIN:
        return True
    if not kinds <= _NESTING:
        return False
    for value in values:
        if (
            value
            and type(value) not in _PLAIN
            and not _is_plain(value.values() if type(value) is dict else value)
        ):
            return False
    return True


def dumps(envelope: dict[str, Any]) -> bytes:
    """Encode an envelope.

    Raises:
        TypeError: It holds a value that kombu's JSON cannot write either.
    """
    if _orjson_dumps is not None and _is_plain(envelope.values()):
        try:
            return bytes(_orjson_dumps(envelope, None, _OPTIONS))
        except TypeError:
            pass  # an integer beyond 64 bits, a key that is not text: the standard library knows them
    return str(_exact_dumps(envelope)).encode()


def loads(raw: bytes) -> Any:
    """Decode what `dumps` or a stock client wrote.

    Raises:
        ValueError: It is not JSON.
    """
    if b'"__type__"' in raw:
        return kombu_loads(raw.decode())
    try:
        return _fast_loads(raw)
    except _Undecodable:
        return json.loads(raw)  # NaN, Infinity; or raises with the position
