"""Back-off of automatic retries (4ART-05..08)."""

import pytest

from qcore.retries import backoff_seconds


@pytest.mark.parametrize(("retries", "seconds"), [(0, 1), (1, 2), (2, 4), (3, 8)])
def test_the_delay_doubles_with_every_retry(retries, seconds):
    assert backoff_seconds(1, retries, 600) == seconds


def test_the_factor_is_the_first_delay():
    assert backoff_seconds(5, 0, 600) == 5
    assert backoff_seconds(5, 2, 600) == 20


def test_the_delay_is_capped_even_after_thousands_of_retries():
    assert backoff_seconds(1, 100_000, 600) == 600


def test_a_factor_below_one_counts_as_one():
    assert backoff_seconds(0.2, 0, 600) == 1


def test_jitter_draws_from_nought_to_the_delay_included():
    assert backoff_seconds(4, 1, 600, jitter=True, randrange=lambda end: end - 1) == 8
    assert backoff_seconds(4, 1, 600, jitter=True, randrange=lambda end: 0) == 0
