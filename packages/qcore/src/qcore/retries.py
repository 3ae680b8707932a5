"""When the next try of a task is due: the back-off of automatic retries."""

from __future__ import annotations

import random
from collections.abc import Callable


def backoff_seconds(
    factor: float,
    retries: int,
    maximum: float,
    *,
    jitter: bool = False,
    randrange: Callable[[int], int] = random.randrange,
) -> float:
    """Exponential back-off: `min(maximum, factor * 2 ** retries)` seconds.

    With `jitter` ("full jitter") it is a random whole number of seconds from 0 to that, both included.

    Args:
        factor: seconds before the first retry; less than 1 counts as 1.
        retries: tries made so far, counted from 0.
        maximum: cap in seconds.
    """
    seconds: float = min(maximum, max(1, int(factor)) * 2.0 ** min(retries, 64))
    if jitter:
        seconds = randrange(int(seconds) + 1)
    return max(0, seconds)
