"""Results: what a call returns, and how to wait for it."""

from qcore.states import READY_STATES

from .base import ResultBase
from .eager import EagerResult
from .graph import DependencyGraph
from .joining import allow_join_result, assert_will_not_block, denied_join_result, task_join_will_block
from .sets import GroupResult, ResultSet
from .single import AsyncResult
from .tuples import result_from_tuple

__all__ = [
    "READY_STATES",
    "AsyncResult",
    "DependencyGraph",
    "EagerResult",
    "GroupResult",
    "ResultBase",
    "ResultSet",
    "allow_join_result",
    "assert_will_not_block",
    "denied_join_result",
    "result_from_tuple",
    "task_join_will_block",
]
