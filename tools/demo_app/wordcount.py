"""Count the words of many files: the app of the demo."""

import re
from collections import Counter
from pathlib import Path

from qcore import App, Task

app = App("wordcount")

WORD = re.compile(r"[A-Za-z][A-Za-z'_]+")


@app.task
def count_words(path: str) -> dict[str, int]:
    """The twenty most frequent words of one file, and how many words it has in all."""
    words = WORD.findall(Path(path).read_text(errors="replace").lower())
    return {"": len(words), **dict(Counter(words).most_common(20))}


@app.task
def merge(counts: list[dict[str, int]]) -> dict[str, int]:
    """Runs once every file is counted, with all their results."""
    total: Counter[str] = Counter()
    for count in counts:
        total.update(count)
    return dict(total.most_common(11))


@app.task(bind=True, autoretry_for=(ConnectionError,), retry_backoff=1, retry_jitter=False)
def fetch_title(self: Task[[str], str], name: str) -> str:
    """Fails twice; is tried again after one second, then after two more."""
    if self.request.retries < 2:
        raise ConnectionError("the title server is busy")
    return f"Words of {name}"
