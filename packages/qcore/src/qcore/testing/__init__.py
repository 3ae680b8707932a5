"""For tests: conformance suites, and helpers to run tasks without a worker process."""
