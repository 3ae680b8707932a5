"""Build every package, and see that each wheel and source archive holds exactly the files of its `src`.

An unanchored line in `.gitignore` is enough for a builder to leave out a module without a word.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).resolve().parents[2]
DIST = ROOT / "dist"


def main() -> int:
    shutil.rmtree(DIST, ignore_errors=True)
    env = {name: value for name, value in os.environ.items() if name not in ("HATCH_ENV", "HATCH_ENV_ACTIVE")}
    # The members know no other environment than the default one.
    build = ["hatch", "-e", "default", "build", "--all"]
    done = subprocess.run(build, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        print(done.stdout + done.stderr)
        return done.returncode
    problems = [
        problem
        for member in sorted(ROOT.glob("packages/*/pyproject.toml"))
        for problem in check(member.parent)
    ]
    print("\n".join(problems) or f"{len(list(DIST.iterdir()))} archives hold what they should")
    return int(bool(problems))


def check(package: Path) -> list[str]:
    """What is wrong with the archives of one package."""
    name = package.name
    wheels, sources = list(DIST.glob(f"{name}-*.whl")), list(DIST.glob(f"{name}-*.tar.gz"))
    if len(wheels) != 1 or len(sources) != 1:
        return [f"{name}: expected one wheel and one source archive, got {len(wheels)} and {len(sources)}"]
    wanted = source_files(package / "src")
    return [
        f"{archive.name}: {fault} {path}"
        for archive, held in ((wheels[0], wheel_files(wheels[0])), (sources[0], sdist_files(sources[0])))
        for fault, paths in (("lacks", wanted - held), ("should not hold", held - wanted))
        for path in sorted(paths)
    ]


def source_files(source: Path) -> set[str]:
    files = [path.relative_to(source) for path in source.rglob("*") if path.is_file()]
    hidden = ("__pycache__", ".")
    return {path.as_posix() for path in files if not any(part.startswith(hidden) for part in path.parts)}


def wheel_files(path: Path) -> set[str]:
    with zipfile.ZipFile(path) as archive:
        return {name for name in archive.namelist() if ".dist-info/" not in name}


def sdist_files(path: Path) -> set[str]:
    with tarfile.open(path) as archive:
        parts = [PurePosixPath(member.name).parts for member in archive.getmembers() if member.isfile()]
    return {"/".join(names[2:]) for names in parts if len(names) > 2 and names[1] == "src"}


if __name__ == "__main__":
    sys.exit(main())
