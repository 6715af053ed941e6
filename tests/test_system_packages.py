"""A missing system package is a skip on a person's machine and a failure where every change is checked."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = """
import pytest

@pytest.fixture
def database():
    pytest.skip("needs a PostgreSQL: set RATCHET_TEST_POSTGRES_URL")

def test_postgres(database): ...
def test_browser(): pytest.skip("needs a browser")
def test_module(): pytest.importorskip("no_such_module")
def test_data(): pytest.skip("ukp is not here")
def test_nothing(): ...
"""


@pytest.mark.parametrize(
    ("ci", "outcome"), [("", "1 passed, 5 skipped"), ("1", "2 failed, 1 passed, 1 skipped, 2 errors")]
)
def test_what_the_system_lacks(tmp_path: Path, ci: str, outcome: str) -> None:
    (tmp_path / "test_it.py").write_text(TESTS)
    (tmp_path / "test_whole.py").write_text('import pytest\npytest.importorskip("no_such_module")\n')
    helpers = Path(__file__).parent / "helpers"
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "system_packages", "--continue-on-collection-errors", "."],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(helpers), "RATCHET_CI": ci},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert outcome in ended.stdout, ended.stdout
    assert ended.returncode == (1 if ci else 0)
