"""A wrong call fails before it is sent, in the words of Python itself (4ARG)."""

import pytest

from qcore.arguments import ArgumentCheck


def add(x, y): ...
def optional(x, y=1): ...
def keyword_only(x, *, y): ...
def anything(*args, **kwargs): ...
def positional_only(x, /, y): ...
def bound(self, x): ...


CALLS = [((), {}), ((1,), {}), ((1, 2), {}), ((1, 2, 3), {}), ((1,), {"y": 2}), ((1,), {"x": 2}), ((), {"z": 1}),
         ((1, 2), {"z": 1}), ((), {"x": 1, "y": 2}), ((1,), {"z": 2})]  # fmt: skip


@pytest.mark.parametrize("fun", [add, optional, keyword_only, anything])
@pytest.mark.parametrize(("args", "kwargs"), CALLS)
def test_the_check_says_what_python_says(fun, args, kwargs):
    try:
        fun(*args, **kwargs)
        expected = None
    except TypeError as exc:
        expected = str(exc)

    if expected is None:
        ArgumentCheck(fun)(args, kwargs)
    else:
        with pytest.raises(TypeError) as caught:
            ArgumentCheck(fun)(args, kwargs)
        assert str(caught.value) == expected


def test_positional_only_arguments_are_not_taken_by_name():
    with pytest.raises(TypeError):
        ArgumentCheck(positional_only)((), {"x": 1, "y": 2})


def test_self_is_not_counted_for_bound_tasks():
    ArgumentCheck(bound, bound=True)((1,), {})
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'x'"):
        ArgumentCheck(bound, bound=True)((), {})


def test_a_builtin_without_signature_is_not_checked():
    ArgumentCheck(max)((1, 2, 3), {})
