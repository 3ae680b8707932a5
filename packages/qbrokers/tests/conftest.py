from __future__ import annotations

import sys
from pathlib import Path

# Helpers shared by the test modules; the import mode of the suite adds no path of its own.
sys.path.insert(0, str(Path(__file__).parent))
