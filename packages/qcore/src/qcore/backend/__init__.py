"""Result stores: the contract, the record, and those that need no server."""

from .contract import Backend
from .record import ResultRecord

__all__ = ["Backend", "ResultRecord"]
