"""deptry for every package: what it imports is declared, and what it declares is imported."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def main() -> int:
    failed = False
    members = sorted(ROOT.glob("packages/*/pyproject.toml"))
    siblings = {member.parent.name for member in members}
    for member in members:
        unused = "|".join(sorted(used_without_import(member) | siblings))
        argv = [sys.executable, "-m", "deptry", "src", "--no-ansi", "--per-rule-ignores", f"DEP002={unused}"]
        done = subprocess.run(argv, cwd=member.parent, capture_output=True, text=True, check=False)
        if done.returncode:
            failed = True
            print(f"{member.parent.name}:\n{done.stdout}{done.stderr}")
    return int(failed)


def used_without_import(member: Path) -> set[str]:
    """What may be declared and not imported, besides siblings (found by entry point).

    That is extras, since another library picks them up (redis-py its hiredis), and what only
    one platform needs.
    """
    project = tomllib.loads(member.read_text())["project"]
    conditional = [text for text in project["dependencies"] if ";" in text]
    extras = [text for extra in project.get("optional-dependencies", {}).values() for text in extra]
    return {re.split(r"[\s\[<>=!~;]", text)[0] for text in conditional + extras}


if __name__ == "__main__":
    sys.exit(main())
