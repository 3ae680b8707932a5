"""What the type checker must know of tasks; checked by mypy only, never run.

A line with `type: ignore` must be an error without it: mypy reports ignores that are not needed.
"""

from __future__ import annotations

from typing import assert_type

from qcore import App, Task
from qcore.results import AsyncResult

app = App("sample")


@app.task
def add(x: int, y: int) -> int:
    return x + y


@app.task(bind=True, max_retries=5)
def describe(self: Task[[int], str], x: int) -> str:
    return f"{self.name} {x}"


@app.task
async def fetch(url: str) -> bytes:
    return url.encode()


assert_type(add(1, 2), int)
assert_type(add.delay(1, 2), AsyncResult[int])
assert_type(add.delay(1, y=2).get(), int)
assert_type(describe.delay(1), AsyncResult[str])
assert_type(fetch.delay("x"), AsyncResult[bytes])

add.delay(1, "x")  # type: ignore[arg-type]
add.delay(1)  # type: ignore[call-arg]
describe.delay("x")  # type: ignore[arg-type]
fetch.delay(1)  # type: ignore[arg-type]


async def main() -> None:
    assert_type(await fetch("x"), bytes)
    assert_type(await (await add.adelay(1, 2)), int)
