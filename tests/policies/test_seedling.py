"""Growing seedlings: what a seed alone decides."""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from policies import seedling
from policies.seedling import SeedlingSettings
from policies.tasks.memo import Memo

SMALL = SeedlingSettings(width=16, layers=1, heads=2, steps=2, batch_size=4)


def test_seedlings_that_grow_side_by_side_are_those_that_grow_alone(memo: Memo, tmp_path: Path) -> None:
    """Initial weights come from torch's global generator, which threads share."""

    def weights(name: str, seed: int) -> str:
        seedling.grow(memo, SMALL, seed=seed, out_dir=tmp_path / name)
        return hashlib.sha256((tmp_path / name / "model.safetensors").read_bytes()).hexdigest()

    alone = [weights(f"alone{seed}", seed) for seed in range(8)]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda seed: weights(f"together{seed}", seed), range(8)))
    assert together == alone
    assert len(set(alone)) == 8
