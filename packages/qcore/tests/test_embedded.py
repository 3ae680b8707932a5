"""The embedded default (DESIGN D4)."""

import pytest

from qcore.embedded import embedded_default
from qcore.errors import ImproperlyConfigured
from qcore.settings import Settings


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def make(**settings):
    conf = Settings(default_module=None, environ={})
    conf.update(settings)
    return conf


def test_in_force_without_any_broker(here):
    embedded = embedded_default(make())
    assert embedded.broker_url == f"sqlite:///{here}/.q/broker.db"
    assert embedded.result_backend == f"db+sqlite:///{here}/.q/results.db"


@pytest.mark.parametrize(
    "setting", ["broker_url", "broker_read_url", "broker_write_url", "broker_host", "broker_transport"]
)
def test_not_in_force_when_a_broker_is_named(here, setting):
    assert embedded_default(make(**{setting: "memory"})) is None


def test_looking_makes_no_files(here):
    embedded_default(make())
    assert list(here.iterdir()) == []


def test_the_directory_keeps_itself_out_of_repositories(here):
    embedded = embedded_default(make()).ensure()
    assert (here / ".q" / ".gitignore").read_text() == "*\n"
    (here / ".q" / ".gitignore").write_text("mine")
    embedded.ensure()
    assert (here / ".q" / ".gitignore").read_text() == "mine"


def test_only_the_owner_may_look_into_it(here):
    embedded_default(make()).ensure()
    assert (here / ".q").stat().st_mode & 0o077 == 0


def test_a_directory_that_cannot_be_made_tells_the_way_out(here):
    (here / ".q").write_text("a file")
    with pytest.raises(ImproperlyConfigured, match="Q_BROKER_URL"):
        embedded_default(make()).ensure()


def test_odd_names_of_directories_are_quoted(tmp_path, monkeypatch):
    odd = tmp_path / "a b?c#d"
    odd.mkdir()
    monkeypatch.chdir(odd)
    assert embedded_default(make()).broker_url.endswith("/a%20b%3Fc%23d/.q/broker.db")


def test_it_says_where_it_is(here):
    assert str(here) in str(embedded_default(make()))
