"""Texts of the log lines about tasks; assign your own to change them.

They are read when a line is written. `%(name)s` and `%(id)s` exist in every one; `LOG_SUCCESS` has
`%(runtime)s`, `%(return_value)s`, `%(args)s` and `%(kwargs)s` as well, the others `%(exc)s`, `%(traceback)s`
and `%(description)s` where there is one.
"""

from __future__ import annotations

LOG_RECEIVED = "Task %(name)s[%(id)s] received"
LOG_SUCCESS = "Task %(name)s[%(id)s] succeeded in %(runtime)ss: %(return_value)s"
LOG_FAILURE = "Task %(name)s[%(id)s] %(description)s: %(exc)s"
LOG_INTERNAL_ERROR = "Task %(name)s[%(id)s] %(description)s: %(exc)s"
LOG_IGNORED = "Task %(name)s[%(id)s] %(description)s"
LOG_REJECTED = "Task %(name)s[%(id)s] %(exc)s"
LOG_RETRY = "Task %(name)s[%(id)s] retry: %(exc)s"
