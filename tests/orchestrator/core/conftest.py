"""Shared by the tests of the core."""

import sys
from pathlib import Path

import hypothesis

# In importlib mode pytest puts no test folder on the path, and the tests here share `fake_world`.
sys.path.insert(0, str(Path(__file__).parent))

# A machine busy with something else must not fail a test.
hypothesis.settings.register_profile("core", deadline=None)
hypothesis.settings.load_profile("core")
