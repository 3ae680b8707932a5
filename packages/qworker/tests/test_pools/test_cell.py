"""The shared memory of a child."""

from __future__ import annotations

import os

from qworker.pools.cell import NEVER, RECALL, RUNNING, SINCE, Cell


def test_nothing_is_recalled_at_first():
    cell = Cell()
    assert cell.ints[RECALL] == NEVER
    cell.close()


def test_a_forked_child_and_its_parent_see_the_same_words():
    cell = Cell()
    pid = os.fork()
    if pid == 0:
        cell.ints[RUNNING] = 2**62
        cell.floats[SINCE] = 1.5
        os._exit(0)
    os.waitpid(pid, 0)
    assert cell.ints[RUNNING] == 2**62
    assert cell.floats[SINCE] == 1.5
    cell.close()
