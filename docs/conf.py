"""Sphinx settings of the documentation. `tools/hatch run docs:build` builds it; a warning fails the build."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "q"
author = "the q family developers"
project_copyright = "2026, the q family developers"

extensions = ["myst_parser", "reference"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build", "_ext"]

myst_enable_extensions = ["colon_fence", "deflist", "fieldlist"]
myst_heading_anchors = 3

html_theme = "furo"
html_title = "q"
