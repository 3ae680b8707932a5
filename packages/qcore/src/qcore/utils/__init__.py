"""Small pure helpers without knowledge of tasks."""

from .ids import is_uuid, uuid
from .imports import import_symbol, qualified_name, symbol_by_name
from .nodes import default_nodename, expand_nodename, expand_path, gethostname, make_nodename, split_nodename
from .saferepr import saferepr
from .text import mask_url, pluralize, shorten

__all__ = [
    "default_nodename",
    "expand_nodename",
    "expand_path",
    "gethostname",
    "import_symbol",
    "is_uuid",
    "make_nodename",
    "mask_url",
    "pluralize",
    "qualified_name",
    "saferepr",
    "shorten",
    "split_nodename",
    "symbol_by_name",
    "uuid",
]
