"""Benchmarks are run from the repository's root and are not installed, so their tests look for them there."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2]))
