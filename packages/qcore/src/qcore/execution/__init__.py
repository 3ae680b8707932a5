"""How one task runs: a list of named steps over one record."""
