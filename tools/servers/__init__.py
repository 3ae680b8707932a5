"""Servers for the integration tests: used where they are, started where they are not, left as found."""

from servers.session import NAMES, PREFIX_VARIABLE, Found, Servers

__all__ = ["NAMES", "PREFIX_VARIABLE", "Found", "Servers"]
