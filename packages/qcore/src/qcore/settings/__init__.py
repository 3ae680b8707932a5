"""Settings: the option table, and `app.conf` built from it in layers."""

from .old_names import OLD_NAMES
from .option import Option
from .report import censor
from .settings import CONFIG_MODULE_VARIABLE, DEFAULT_MODULE, Settings
from .sources import ENVIRONMENT, Source
from .table import OPTIONS, REMOVED

__all__ = [
    "CONFIG_MODULE_VARIABLE",
    "DEFAULT_MODULE",
    "ENVIRONMENT",
    "OLD_NAMES",
    "OPTIONS",
    "REMOVED",
    "Option",
    "Settings",
    "Source",
    "censor",
]
