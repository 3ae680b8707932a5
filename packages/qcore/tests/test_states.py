"""Sets and order of states (4STA)."""

from hypothesis import given
from hypothesis import strategies as st

from qcore import states


def test_sets():
    assert {"SUCCESS", "FAILURE", "REVOKED"} == states.READY_STATES
    assert {"FAILURE", "REVOKED"} == states.PROPAGATE_STATES
    assert {"RETRY", "FAILURE", "REVOKED"} == states.EXCEPTION_STATES
    assert {"PENDING", "RECEIVED", "STARTED", "REJECTED", "RETRY"} == states.UNREADY_STATES


def test_ready_and_unready_share_nothing():
    assert not states.READY_STATES & states.UNREADY_STATES


def test_order():
    order = [
        "SUCCESS",
        "FAILURE",
        "PROGRESS",
        "REVOKED",
        "STARTED",
        "RECEIVED",
        "REJECTED",
        "RETRY",
        "PENDING",
    ]
    assert sorted(order, key=states.precedence) == order


def test_states_compare_by_rank():
    assert states.state("SUCCESS") > "PENDING"
    assert states.state("PENDING") < "STARTED"
    assert states.state("PROGRESS") > "REVOKED"
    assert states.state("FAILURE") >= "FAILURE"


@given(st.text(), st.text())
def test_exactly_one_of_two_states_is_not_lower(one, other):
    first = states.state(one)
    assert (first < other) != (first >= other)
    assert (first > other) != (first <= other)
