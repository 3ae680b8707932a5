"""Node names and file path variables (WS-07..09, PT)."""

import pytest

from qcore.utils import nodes


@pytest.fixture(autouse=True)
def host(monkeypatch):
    monkeypatch.setattr(nodes, "gethostname", lambda: "george.example.com")


@pytest.mark.parametrize(
    ("template", "name"),
    [
        ("worker1@%h", "worker1@george.example.com"),
        ("worker1@%n", "worker1@george"),
        ("worker1@%d", "worker1@example.com"),
        ("100%%@%h", "100%@george.example.com"),
        ("worker1", "q@worker1"),
        ("worker1@", "worker1@george.example.com"),
        ("w%i@%h", "w%i@george.example.com"),
    ],
)
def test_hostname_option(template, name):
    assert nodes.expand_nodename(template) == name


def test_default_name():
    assert nodes.default_nodename() == "q@george.example.com"
    assert nodes.default_nodename("a@b") == "a@b"
    assert nodes.default_nodename(None, "celery") == "celery@george.example.com"


def test_split():
    assert nodes.split_nodename("a@b@c") == ("a", "b@c")
    assert nodes.split_nodename("b") == (None, "b")


@pytest.mark.parametrize(
    ("template", "path"),
    [
        ("%p.log", "george@foo.example.com.log"),
        ("%h.log", "foo.example.com.log"),
        ("%n.log", "george.log"),
        ("%d.log", "example.com.log"),
        ("/a%%b/%x", "/a%b/%x"),
    ],
)
def test_paths(template, path):
    assert nodes.expand_path(template, "george@foo.example.com", 0) == path


@pytest.mark.parametrize(
    ("template", "files"),
    [
        ("%n-%i.log", ["worker1-0.log", "worker1-1.log", "worker1-2.log"]),
        ("%n%I.log", ["worker1.log", "worker1-1.log", "worker1-2.log"]),
    ],
)
def test_one_file_per_process(template, files):
    assert [nodes.expand_path(template, "worker1@example.com", index) for index in range(3)] == files


def test_the_process_index_may_be_filled_in_later():
    half = nodes.expand_path("%n%I%%.log", "w@h")
    assert half == "w%I%%.log"
    assert nodes.expand_path(half, "w@h", 2) == "w-2%.log"


def test_anonymous_names():
    assert nodes.anonymous_nodename(7) == "gen7@george.example.com"
