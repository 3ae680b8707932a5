from typing import Any

from qcore.backend.exceptions import RemoteError, from_wire, to_wire
from qcore.errors import ChordError, WorkerLostError


def always(value: Any) -> bool:
    return True


class Loud(Exception):
    class Inner(Exception):
        pass


def test_the_wire_form_has_type_arguments_and_module() -> None:
    assert to_wire(KeyError("a", 1), always) == {
        "exc_type": "KeyError",
        "exc_message": ["a", 1],
        "exc_module": "builtins",
    }


def test_our_errors_have_the_names_that_every_client_knows() -> None:
    assert to_wire(ChordError("x"), always)["exc_module"] == "celery.exceptions"
    assert type(
        from_wire({"exc_type": "WorkerLostError", "exc_message": ["x"], "exc_module": "billiard.exceptions"})
    ) is (WorkerLostError)


def test_arguments_that_cannot_be_encoded_become_text() -> None:
    wire = to_wire(ValueError(1, always), lambda value: value in (1, [1]))
    assert wire["exc_message"][0] == 1
    assert "function always" in wire["exc_message"][1]


def test_a_class_within_a_class_is_found() -> None:
    assert type(from_wire(to_wire(Loud.Inner("x"), always))) is Loud.Inner


def test_old_records_have_a_text() -> None:
    found = from_wire({"exc_type": "ValueError", "exc_message": "text", "exc_module": "builtins"})
    assert (type(found), found.args) == (ValueError, ("text",))


def test_what_is_no_exception_is_never_called() -> None:
    found = from_wire({"exc_type": "system", "exc_message": ["true"], "exc_module": "os"})
    assert isinstance(found, RemoteError)
    assert type(found).__name__ == "system"


def test_a_module_that_nothing_loaded_stays_unloaded() -> None:
    found = from_wire({"exc_type": "Error", "exc_message": [], "exc_module": "antigravity"})
    assert isinstance(found, RemoteError)


def test_garbage_is_an_error_too() -> None:
    assert isinstance(from_wire("nonsense"), RemoteError)
    assert isinstance(from_wire({"exc_type": None}), RemoteError)
