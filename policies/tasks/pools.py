"""A task's prompts, dealt to the splits by the hash of their text."""

import random
from collections.abc import Iterable

from policies.errors import PromptsExhaustedError
from policies.tasks.base import Split, split_of


class PromptPools:
    """All prompts of a task that can list them, in the order given."""

    def __init__(self, prompts: Iterable[str], *, owner: str, advice: str) -> None:
        """Deal the prompts; `owner` and `advice` fill the error for asking too many."""
        self._owner, self._advice = owner, advice
        self._pools: dict[Split, list[str]] = {split: [] for split in Split}
        for prompt in prompts:
            self._pools[split_of(prompt)].append(prompt)

    def __getitem__(self, split: str) -> list[str]:
        """Give all prompts of a split."""
        return self._pools[Split(split)]

    def take(self, split: str, count: int, seed: int) -> list[str]:
        """Give `count` different prompts of a split; see `Task.prompts`.

        Raises:
            PromptsExhaustedError: if the split has fewer.
        """
        pool = list(self[split])
        if count > len(pool):
            raise PromptsExhaustedError(
                f"{self._owner} has {len(pool)} prompts for {split!r}, {count} were asked for; {self._advice}"
            )
        random.Random(seed).shuffle(pool)
        return pool[:count]
