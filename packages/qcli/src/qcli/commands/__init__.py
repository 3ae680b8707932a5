"""One file per sub-command; each is imported only when it is called."""
