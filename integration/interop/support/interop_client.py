"""A client that stays: reads lines of Python from its input, one JSON text each, and answers each with one.

`python -m interop_client interop_q` runs them with the names of that module. A reply is `{"answer": …}`, the
value of their variable `answer`, or `{"error": traceback}`.
"""

from __future__ import annotations

import importlib
import json
import sys
import traceback


def main(module: str) -> None:
    names = vars(importlib.import_module(module))
    for line in sys.stdin:
        scope = dict(names)
        try:
            exec(json.loads(line), scope)
            reply = json.dumps({"answer": scope["answer"]})
        except Exception:
            reply = json.dumps({"error": traceback.format_exc()})
        print(reply, flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
