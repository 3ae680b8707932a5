"""Signed messages (SE-12..18, 4SCY, W10-12, W10-13)."""

import base64
import pickle
import shutil

import pytest
from kombu import serialization as kombu_serialization
from kombu.exceptions import ContentDisallowed, DecodeError
from kombu.serialization import registry

from qcore import serialization
from qcore.errors import ImproperlyConfigured, SecurityError
from qcore.security import setup_security
from qcore.security.keys import Certificate, CertificateStore, PrivateKey, digest_algorithm
from qcore.security.signing import SEPARATOR, SignedBody, SignedSerializer
from qcore.settings import Settings


class AppLike:
    def __init__(self, **settings):
        self.conf = Settings(default_module=None, environ={})
        self.conf.update(settings)


def key_of(identity, password=None):
    return PrivateKey(identity.key_file.read_bytes(), password)


def certificate_of(identity):
    return Certificate(identity.certificate_file.read_bytes())


def store_of(*identities):
    store = CertificateStore()
    for identity in identities:
        store.add_file(str(identity.certificate_file))
    return store


@pytest.fixture
def alice(identities):
    return identities["alice"]


@pytest.fixture
def bob(identities):
    return identities["bob"]


@pytest.fixture
def signer(alice):
    return SignedSerializer(key_of(alice), certificate_of(alice), store_of(alice))


def test_there_and_back(signer):
    data = [[1, "ü"], {"a": None}]
    assert signer.deserialize(signer.serialize(data)) == data


def test_layout_on_the_wire(signer, alice):
    parts = base64.b64decode(signer.serialize([1])).split(SEPARATOR, 4)
    assert base64.b64decode(parts[0]).decode() == certificate_of(alice).id
    assert len(base64.b64decode(parts[1])) == 256
    assert parts[2:] == [b"application/json", b"utf-8", b"[1]"]


def test_id_is_issuer_and_serial_number(alice):
    identity = certificate_of(alice).id
    assert identity.startswith("alice ")
    assert identity.removeprefix("alice ").isdigit()


def test_separators_in_the_body_do_no_harm(alice):
    signer = SignedSerializer(key_of(alice), certificate_of(alice), store_of(alice), serializer="pickle")
    data = {"x": SEPARATOR * 5}
    assert signer.deserialize(signer.serialize(data)) == data


def test_a_changed_body_is_refused(signer):
    signed = SignedBody.unpack(signer.serialize({"amount": 1}))
    changed = SignedBody(
        signed.signer, signed.signature, signed.content_type, signed.content_encoding, b'{"amount":9}'
    )
    with pytest.raises(SecurityError, match="bad signature"):
        signer.deserialize(changed.pack())


def test_a_body_is_not_decoded_before_its_signature_was_checked(signer):
    class Bomb:
        def __reduce__(self):
            return pytest.fail, ("decoded",)

    signed = SignedBody.unpack(signer.serialize(1))
    forged = SignedBody(
        signed.signer, signed.signature, "application/x-python-serialize", "binary", pickle.dumps(Bomb())
    )
    with pytest.raises(SecurityError):
        signer.deserialize(forged.pack())


def test_a_stranger_is_refused(signer, bob):
    stranger = SignedSerializer(key_of(bob), certificate_of(bob))
    with pytest.raises(SecurityError, match="unknown certificate"):
        signer.deserialize(stranger.serialize(1))


def test_a_borrowed_name_is_refused(signer, alice, bob):
    impostor = SignedSerializer(key_of(bob), certificate_of(alice))
    with pytest.raises(SecurityError, match="bad signature"):
        signer.deserialize(impostor.serialize(1))


def test_another_digest_is_refused(alice, signer):
    other = SignedSerializer(key_of(alice), certificate_of(alice), digest="sha512")
    with pytest.raises(SecurityError):
        signer.deserialize(other.serialize(1))


@pytest.mark.parametrize("body", [b"", b"no base64!", base64.b64encode(b"one\x00\x01two"), b"\xff\xfe"])
def test_other_bodies_are_refused(signer, body):
    with pytest.raises(SecurityError):
        signer.deserialize(body)


def test_signing_and_checking_need_their_parts(alice):
    with pytest.raises(SecurityError, match="security_key"):
        SignedSerializer(store=store_of(alice)).serialize(1)
    with pytest.raises(SecurityError, match="security_cert_store"):
        SignedSerializer(key_of(alice), certificate_of(alice)).deserialize(b"")


def test_encrypted_keys(identities):
    locked = identities["locked"]
    assert key_of(locked, b"open sesame").sign(b"x", digest_algorithm("sha256"))
    assert key_of(locked, "open sesame").sign(b"x", digest_algorithm("sha256"))
    for password in (None, b"wrong"):
        with pytest.raises(SecurityError, match="invalid private key"):
            key_of(locked, password)


def test_only_rsa(identities):
    with pytest.raises(SecurityError, match="RSA"):
        key_of(identities["curved"])
    with pytest.raises(SecurityError, match="RSA"):
        certificate_of(identities["curved"])


def test_broken_files(tmp_path):
    with pytest.raises(SecurityError, match="invalid certificate"):
        Certificate(b"nonsense")
    with pytest.raises(SecurityError, match="invalid private key"):
        PrivateKey(b"nonsense")
    with pytest.raises(SecurityError, match="no file matches"):
        CertificateStore.from_files(str(tmp_path / "*.pem"))


def test_expired_certificates(identities):
    late = identities["late"]
    assert certificate_of(late).has_expired()
    with pytest.raises(SecurityError, match="expired certificate"):
        store_of(late)
    with pytest.raises(SecurityError, match="expired certificate"):
        certificate_of(late).verify(b"", b"", digest_algorithm("sha256"))


def test_stores_of_directories_and_globs(tmp_path, alice, bob):
    for identity in (alice, bob):
        shutil.copy(identity.certificate_file, tmp_path)
    (tmp_path / "sub").mkdir()
    assert len(CertificateStore.from_files(str(tmp_path))) == 2
    assert len(CertificateStore.from_files(str(tmp_path / "al*.pem"))) == 1
    assert {certificate.id for certificate in store_of(alice, bob)} == {
        certificate_of(alice).id,
        certificate_of(bob).id,
    }


def test_duplicates_are_refused(alice):
    with pytest.raises(SecurityError, match="duplicate"):
        store_of(alice, alice)


@pytest.mark.parametrize("name", ["sha999", "Hash", "_x"])
def test_unknown_digests(name):
    with pytest.raises(SecurityError, match="security_digest"):
        digest_algorithm(name)


# --- app.setup_security() -----------------------------------------------------------------------------


@pytest.fixture
def kombu_state():
    """Puts kombu's registry back as it was."""
    saved = {
        name: (value.copy() if isinstance(value, (dict, set)) else value)
        for name, value in vars(registry).items()
    }
    yield
    vars(registry).update(saved)


@pytest.fixture
def settings(alice):
    return {
        "task_serializer": "auth",
        "accept_content": ["auth"],
        "security_key": str(alice.key_file),
        "security_certificate": str(alice.certificate_file),
        "security_cert_store": str(alice.certificate_file),
    }


@pytest.mark.usefixtures("kombu_state")
def test_setup(settings):
    setup_security(AppLike(**settings))
    content_type, encoding, body = serialization.dumps([1], "auth")
    assert (content_type, encoding) == ("application/data", "utf-8")
    accept = serialization.accepted_content_types(["auth"])
    assert serialization.loads(body, content_type, encoding, accept=accept) == [1]
    with pytest.raises(ContentDisallowed):
        serialization.loads(b"[1]", "application/json", "utf-8", accept=accept)
    with pytest.raises(DecodeError):
        serialization.loads(b"unsigned", content_type, encoding, accept=accept)


@pytest.mark.usefixtures("kombu_state")
def test_setup_disables_other_serializers(settings):
    setup_security(AppLike(**settings))
    with pytest.raises(kombu_serialization.ContentDisallowed):
        kombu_serialization.loads(b"[1]", "application/json", "utf-8")


@pytest.mark.usefixtures("kombu_state")
def test_setup_keeps_the_serializers_it_is_told_to(settings):
    setup_security(AppLike(**settings), allowed_serializers=["json"])
    assert kombu_serialization.loads(b"[1]", "application/json", "utf-8") == [1]


@pytest.mark.usefixtures("kombu_state")
def test_arguments_stand_in_for_settings(settings, alice):
    app = AppLike(task_serializer="auth", accept_content=["auth"])
    setup_security(
        app,
        key=str(alice.key_file),
        cert=str(alice.certificate_file),
        store=str(alice.certificate_file),
        digest="sha512",
    )
    assert serialization.dumps([1], "auth")[2]


@pytest.mark.parametrize("missing", ["security_key", "security_certificate", "security_cert_store"])
def test_missing_settings_are_named(settings, missing):
    settings.pop(missing)
    with pytest.raises(ImproperlyConfigured, match=missing):
        setup_security(AppLike(**settings))


@pytest.mark.parametrize("change", [{"task_serializer": "json"}, {"accept_content": ["auth", "json"]}])
def test_unsigned_messages_must_not_be_sent_or_accepted(settings, change):
    with pytest.raises(ImproperlyConfigured, match=r"accept_content = \['auth'\]"):
        setup_security(AppLike(**{**settings, **change}))


def test_unreadable_files_are_named(settings):
    with pytest.raises(ImproperlyConfigured, match="security_key: cannot read '/no/such/file'"):
        setup_security(AppLike(**{**settings, "security_key": "/no/such/file"}))
