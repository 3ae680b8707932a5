"""What happens in a q cluster: event receiver, cluster state, cameras, dumper."""

__version__ = "26.1.0"
