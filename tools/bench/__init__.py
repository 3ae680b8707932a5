"""Benchmarks: ours and other task queues, side by side on one machine. `./tools/bench/run --help`."""
