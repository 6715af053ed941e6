"""Shared by the tests that run whole campaigns: one tiny base model, and a warm process that forks the command line."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from small_campaigns import CommandLine, Small

# In importlib mode pytest puts no test folder on the path. `small_campaigns` lives in a folder of its own: were
# tests/ itself on the path, tests/orchestrator would stand before the package. It is imported by the fixtures that
# need it, so that tests of the pure core do not pay for it.
sys.path.insert(0, str(Path(__file__).parent / "helpers"))

from system_packages import pytest_make_collect_report, pytest_runtest_makereport  # noqa: F401 - hooks


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ordinary Hugging Face folder: width 32, one layer, grown for 150 steps. Grown once; never written to."""
    from small_campaigns import grow_base

    return grow_base(tmp_path_factory.mktemp("base"))


@pytest.fixture
def small(tiny_base: Path, tmp_path: Path) -> Iterator[Small]:
    """Makes campaigns of a few seconds, each in a home of its own below `tmp_path`."""
    from small_campaigns import Small

    made = Small(tiny_base, tmp_path)
    yield made
    made.close()


@pytest.fixture(scope="session")
def undisturbed(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Small]:
    """The smallest whole campaign, run to its end by nobody's interference. Look, do not touch."""
    from small_campaigns import Small

    made = Small(tiny_base, tmp_path_factory.mktemp("undisturbed"))
    made.campaign().run()
    yield made
    made.close()


@pytest.fixture(scope="session")
def command_line() -> Iterator[CommandLine]:
    """`ratchet`, without a fresh interpreter's seconds."""
    from small_campaigns import CommandLine

    with CommandLine() as warm:
        yield warm
