"""One module per library: the same task, and what a client does with it.

Each has the task `noop(number)` and these functions, called by `bench.client` in the library's environment:
`send(number)`, `send_many(numbers)` (None where the library has no bulk call), `call(number)` (send, wait for
the result, return it) and `close()`. Settings come from the environment: `BENCH_BROKER`, `BENCH_RESULTS` (a
URL, or empty: no results), `BENCH_QUEUE`, `BENCH_LEDGER`. All acknowledge after the task ran, if they can.
"""
