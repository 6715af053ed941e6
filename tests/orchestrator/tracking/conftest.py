"""Shared by the tests of the view."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

# In importlib mode pytest puts no test folder on the path, and the tests here share `mlflow_world`.
sys.path.insert(0, str(Path(__file__).parent))

from mlflow_world import CAMPAIGN, FirstUse, World, make_world


@pytest.fixture(scope="session")
def first_use(tmp_path_factory: pytest.TempPathFactory) -> FirstUse:
    """MLflow's empty tables, made by a process of their own that watches what this does to it."""
    folder = tmp_path_factory.mktemp("first")
    (folder / "home").mkdir()
    program = """
import logging, os, sys
from pathlib import Path
logging.basicConfig(level=logging.INFO)
from orchestrator.tracking import mlflow_view, tracker
assert "mlflow" not in sys.modules
mlflow_view.create_database(Path("home/mlflow.db").absolute())
import mlflow
assert logging.getLogger("sqlalchemy.engine").level == logging.NOTSET
assert mlflow.tracking._tracking_service.utils._tracking_uri is None
assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"
"""
    command = [sys.executable, "-c", program]
    return FirstUse(
        folder, subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    )


@pytest.fixture
def world(tmp_path: Path, first_use: FirstUse) -> Iterator[World]:
    world = make_world(tmp_path / "home", first_use)
    yield world
    world.ledger.close()


@pytest.fixture(scope="module")
def mirrored(tmp_path_factory: pytest.TempPathFactory, first_use: FirstUse) -> Iterator[World]:
    """A whole campaign in MLflow, for tests that leave it as it was."""
    world = make_world(tmp_path_factory.mktemp("mirrored") / "home", first_use)
    world.campaign()
    progress = world.tracker().sync(CAMPAIGN)
    assert (progress.behind, progress.mirrored) == (0, progress.head + 1)
    yield world
    world.ledger.close()
