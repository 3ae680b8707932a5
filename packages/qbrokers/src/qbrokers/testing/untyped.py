"""kombu for the tests: it says that it has types, but most of its calls have none."""

from __future__ import annotations

import importlib
from typing import Any

kombu: Any = importlib.import_module("kombu")
Hub: Any = importlib.import_module("kombu.asynchronous").Hub
Mailbox: Any = importlib.import_module("kombu.pidbox").Mailbox
