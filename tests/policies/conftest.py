"""One tiny seedling for all: grown once, opened often."""

from pathlib import Path

import pytest
import torch

from policies import language_model, seedling
from policies.language_model import LanguageModel
from policies.seedling import SeedlingSettings
from policies.tasks.memo import Memo

TINY = SeedlingSettings(width=32, layers=2, heads=2, steps=120, batch_size=32, max_tokens=64)


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Several threads add floats in an order that varies; one does not."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def memo() -> Memo:
    return Memo(examples=2_000)


@pytest.fixture(scope="session")
def seedling_dir(memo: Memo, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("seedling")
    seedling.grow(memo, TINY, seed=7, out_dir=folder)
    return folder


@pytest.fixture
def tiny(seedling_dir: Path) -> LanguageModel:
    """A fresh copy each time, since training changes weights in place."""
    return language_model.load(seedling_dir)
