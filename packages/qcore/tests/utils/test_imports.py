"""Importing by name."""

import os
import sys

import pytest

from qcore.errors import ImproperlyConfigured
from qcore.utils import imports


@pytest.fixture
def write(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = set(sys.modules)

    def write(name, text):
        (tmp_path / f"{name}.py").write_text(text)

    yield write
    for name in set(sys.modules) - before:
        del sys.modules[name]


@pytest.mark.parametrize("name", ["os.path:join", "os.path.join"])
def test_symbols(name):
    assert imports.import_symbol(name) is os.path.join


def test_a_module_is_a_symbol():
    assert imports.import_symbol("os.path") is os.path


@pytest.mark.parametrize(
    "name", ["os.path:nothing", "os.path.nothing", "no_such_module.x", "no_such_module:x", ":x", ""]
)
def test_symbols_that_do_not_exist(name):
    with pytest.raises(ImproperlyConfigured):
        imports.symbol_by_name(name)


def test_objects_are_symbols_already():
    assert imports.symbol_by_name(os) is os


def test_the_working_directory_is_importable_for_a_moment(write):
    write("here_only", "x = 1\n")
    path = list(sys.path)
    assert imports.import_module("here_only").x == 1
    assert sys.path == path


def test_a_module_that_imports_something_missing_is_broken_not_missing(write):
    write("broken_one", "import no_such_module_for_sure\n")
    assert imports.module_exists("broken_one")
    with pytest.raises(ModuleNotFoundError) as caught:
        imports.import_module("broken_one")
    assert not imports.is_missing(caught.value, "broken_one")


def test_missing_modules():
    assert not imports.module_exists("no_such_module_for_sure")
    assert not imports.module_exists("no_such_package_for_sure.module")
    with pytest.raises(ModuleNotFoundError) as caught:
        imports.import_module("no_such_package_for_sure.module")
    assert imports.is_missing(caught.value, "no_such_package_for_sure.module")


def test_where_an_import_broke(write):
    write("broken_two", "\n\nraise ValueError('mine')\n")
    with pytest.raises(ValueError, match="mine") as caught:
        imports.import_module("broken_two")
    assert imports.where_it_broke(caught.value).endswith("broken_two.py, line 3)")
    trimmed = imports.trimmed_traceback(caught.value, __file__)
    assert "broken_two.py" in trimmed
    assert "importlib" not in trimmed


def test_qualified_names():
    assert imports.qualified_name(os.path.join) == "posixpath.join"
    assert imports.qualified_name(imports) == "builtins.module"
