"""Entry points."""

import sys

import pytest

from qcore import plugins
from qcore.errors import ImproperlyConfigured, MissingPackageError


def write_distribution(path, entry_points):
    info = path / "plugpack-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plugpack\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(entry_points)


@pytest.fixture
def installed(tmp_path, monkeypatch):
    write_distribution(
        tmp_path,
        "[qtest.group]\n"
        "good = plugpack_good:Thing\nbroken = plugpack_broken:Thing\nabsent = plugpack_good:Nothing\n",
    )
    (tmp_path / "plugpack_good.py").write_text("class Thing: pass\n")
    (tmp_path / "plugpack_broken.py").write_text("import no_such_library_for_sure\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    plugins.refresh()
    yield
    plugins.refresh()


@pytest.mark.usefixtures("installed")
def test_what_is_installed_is_found():
    assert plugins.available("qtest.group") == ("absent", "broken", "good")
    assert plugins.load("qtest.group", "good").__name__ == "Thing"


@pytest.mark.usefixtures("installed")
def test_a_missing_library_is_named():
    with pytest.raises(MissingPackageError, match="no_such_library_for_sure"):
        plugins.load("qtest.group", "broken")


@pytest.mark.usefixtures("installed")
def test_the_extra_that_brings_a_missing_library_is_named(tmp_path):
    metadata = tmp_path / "plugpack-1.0.dist-info" / "METADATA"
    metadata.write_text(
        metadata.read_text()
        + "Requires-Dist: no-such-library-for-sure>=1; extra == 'shiny'\nProvides-Extra: shiny\n"
    )
    with pytest.raises(MissingPackageError, match=r"pip install 'plugpack\[shiny\]'"):
        plugins.load("qtest.group", "broken")


@pytest.mark.usefixtures("installed")
def test_everything_is_loaded_in_order(tmp_path):
    write_distribution(tmp_path / "more", "[qtest.other]\nb = os:sep\na = os.path:join\n")
    sys.path.insert(0, str(tmp_path / "more"))
    plugins.refresh()
    try:
        assert [name for name, _ in plugins.load_all("qtest.other")] == ["a", "b"]
    finally:
        sys.path.remove(str(tmp_path / "more"))


@pytest.mark.usefixtures("installed")
def test_an_entry_point_to_nothing_is_named():
    with pytest.raises(ImproperlyConfigured, match="plugpack_good:Nothing"):
        plugins.load("qtest.group", "absent")


@pytest.mark.usefixtures("installed")
def test_an_unknown_name_lists_what_is_there():
    with pytest.raises(ImproperlyConfigured, match="absent, broken, good"):
        plugins.load("qtest.group", "other")


def test_find_gives_none_for_what_nobody_offers():
    assert plugins.find("qtest.group", "other") is None


def test_a_known_extension_says_what_to_install(monkeypatch):
    monkeypatch.setattr(plugins, "_group", lambda group: {})
    with pytest.raises(
        MissingPackageError, match=r"`app\.events` needs the package qevents: pip install qevents"
    ):
        plugins.load("qcore.extensions", "events")
