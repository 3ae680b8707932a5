"""Serializers and compression (SER, CMP, W10, C-010..013)."""

import pickle
import sys
import zlib

import pytest
from kombu.exceptions import ContentDisallowed, DecodeError, EncodeError, SerializerNotInstalled
from kombu.serialization import registry

from qcore import serialization
from qcore.errors import ImproperlyConfigured

JSON = "application/json"


@pytest.mark.parametrize(
    ("name", "content_type", "encoding"),
    [
        ("json", JSON, "utf-8"),
        ("pickle", "application/x-python-serialize", "binary"),
        ("yaml", "application/x-yaml", "utf-8"),
        ("msgpack", "application/x-msgpack", "binary"),
    ],
)
def test_each_serializer_there_and_back(name, content_type, encoding):
    data = {"a": [1, 2.5, "ü", None, True]}
    got_type, got_encoding, body = serialization.dumps(data, name)
    assert (got_type, got_encoding, type(body)) == (content_type, encoding, bytes)
    assert serialization.loads(body, got_type, got_encoding, accept={content_type}) == data


def test_raw_bodies():
    assert serialization.dumps(b"ab", "raw") == ("application/data", "binary", b"ab")
    assert serialization.loads(b"ab", "application/data", "binary", accept=set()) == b"ab"


def test_what_is_not_accepted_is_not_decoded():
    class Bomb:
        def __reduce__(self):
            return pytest.fail, ("decoded",)

    body = pickle.dumps(Bomb())
    for accept in ({JSON}, None, set()):
        with pytest.raises(ContentDisallowed, match=r"add 'pickle' to it only if you trust"):
            serialization.loads(body, "application/x-python-serialize", "binary", accept=accept)


def test_the_refusal_names_what_is_allowed():
    with pytest.raises(
        ContentDisallowed, match=r"pickle \(application/x-python-serialize\).*allows json, msgpack"
    ):
        serialization.loads(
            b"", "application/x-python-serialize", "binary", accept={JSON, "application/x-msgpack"}
        )


def test_unknown_content_types_are_refused():
    with pytest.raises(ContentDisallowed, match="application/x-strange"):
        serialization.loads(b"", "application/x-strange", "binary", accept={JSON})


def test_accept_content_takes_names_and_types():
    assert serialization.accepted_content_types(["json", "application/x-yaml"]) == {
        JSON,
        "application/x-yaml",
    }
    assert serialization.accepted_content_types([]) == frozenset()
    with pytest.raises(ImproperlyConfigured, match="did you mean 'pickle'"):
        serialization.accepted_content_types(["pikle"])


def test_a_broken_body_is_shown_by_its_beginning():
    with pytest.raises(DecodeError, match=r"""application/json body b'\{"a": x{74}'\.\.\."""):
        serialization.loads(b'{"a": ' + b"x" * 500, JSON)


@pytest.mark.parametrize("body", [b"", memoryview(b"{"), "text"])
def test_broken_bodies_of_every_kind(body):
    with pytest.raises(DecodeError):
        serialization.loads(body, JSON, accept={JSON})


def test_broken_pickles_are_decode_errors():
    kind = "application/x-python-serialize"
    with pytest.raises(DecodeError, match="body b'no pickle'"):
        serialization.loads(b"no pickle", kind, "binary", accept={kind})


class Strange:
    pass


def test_what_cannot_be_encoded_tells_what_to_do():
    with pytest.raises(EncodeError, match=r"Strange.*__json__.*register_type"):
        serialization.dumps([Strange()])


def test_data_that_contains_itself():
    loop = []
    loop.append(loop)
    with pytest.raises(EncodeError, match="contains itself"):
        serialization.dumps(loop)


def test_unpicklable_objects():
    with pytest.raises(EncodeError, match="cannot encode as pickle"):
        serialization.dumps(lambda: None, "pickle")


def test_unknown_serializers_get_a_suggestion():
    with pytest.raises(SerializerNotInstalled, match="did you mean 'json'"):
        serialization.dumps(1, "jsn")


def test_registered_serializers():
    serialization.register("upper", lambda obj: obj.upper(), lambda body: body.lower(), "text/x-upper")
    try:
        content_type, encoding, body = serialization.dumps("abc", "upper")
        assert (content_type, encoding, body) == ("text/x-upper", "utf-8", b"ABC")
        assert (
            serialization.loads("ABC", content_type, accept=serialization.accepted_content_types(["upper"]))
            == "abc"
        )
    finally:
        registry.unregister("upper")


def test_a_replaced_json_serializer_is_used():
    original = registry._encoders["json"]
    registry._encoders["json"] = original._replace(encoder=lambda obj: "mine")
    try:
        assert serialization.dumps([1]) == (JSON, "utf-8", b"mine")
    finally:
        registry._encoders["json"] = original


@pytest.mark.parametrize(
    ("name", "mime"),
    [
        ("gzip", "application/x-gzip"),
        ("zlib", "application/x-gzip"),
        ("bzip2", "application/x-bz2"),
        ("lzma", "application/x-lzma"),
        ("application/x-gzip", "application/x-gzip"),
    ],
)
def test_compressions(name, mime):
    data = b"abc" * 1000
    packed, kind = serialization.compress(data, name)
    assert kind == mime
    assert len(packed) < len(data)
    assert serialization.decompress(packed, kind) == data
    assert serialization.decompress(packed, name) == data


def test_gzip_is_a_zlib_stream():
    packed, _ = serialization.compress(b"abc", "gzip")
    assert packed[:2] == b"\x78\x9c"
    assert zlib.decompress(packed) == b"abc"


def test_unknown_compressions():
    with pytest.raises(ImproperlyConfigured, match="gzip"):
        serialization.compress(b"", "zipp")
    with pytest.raises(DecodeError, match="zipp"):
        serialization.decompress(b"", "zipp")


def test_a_compression_without_its_library_says_what_to_install():
    if any(name in sys.modules for name in ("brotli", "brotlicffi")):
        pytest.skip("brotli is installed")
    with pytest.raises(ImproperlyConfigured, match="pip install brotli"):
        serialization.compress(b"", "brotli")


def test_broken_compressed_data():
    with pytest.raises(DecodeError, match="gzip compressed body b'abc'"):
        serialization.decompress(b"abc", "gzip")
