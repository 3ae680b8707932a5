"""Errors of qbeat.

```
qcore.errors.QError
└── SchedulingError         a periodic task could not be sent
    └── BrokerAwayError     … because the broker cannot be reached; it is sent when the broker is back
ValueError
└── ParseException          a crontab field makes no sense
```
"""

from __future__ import annotations

from qcore.errors import QError


class SchedulingError(QError):
    """A periodic task could not be sent."""


class BrokerAwayError(SchedulingError):
    """A periodic task could not be sent because the broker cannot be reached."""


class ParseException(ValueError):
    """A crontab field makes no sense."""
