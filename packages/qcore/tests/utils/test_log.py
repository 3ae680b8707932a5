"""Loggers for tasks (4LOG-02, 4LOG-03, N-122)."""

import logging

import pytest

from qcore.utils.log import TASK_LOGGER, get_logger, get_task_logger, level_number


def test_task_loggers_descend_from_ours():
    logger = get_task_logger("proj.some.tasks")
    assert logger.name == "proj.some.tasks"
    assert logger.parent is logging.getLogger(TASK_LOGGER)
    assert get_task_logger("proj.some.tasks") is logger


def test_general_loggers_are_ordinary():
    assert get_logger("proj.general") is logging.getLogger("proj.general")


@pytest.mark.parametrize("name", ["q", "q.task"])
def test_our_names_are_reserved(name):
    with pytest.raises(RuntimeError, match="reserved"):
        get_task_logger(name)


@pytest.mark.parametrize(
    ("level", "number"), [("info", 20), ("WARNING", 30), ("15", 15), (10, 10), (None, 0)]
)
def test_levels(level, number):
    assert level_number(level) == number


def test_unknown_levels_are_refused():
    with pytest.raises(ValueError, match="loud"):
        level_number("loud")
