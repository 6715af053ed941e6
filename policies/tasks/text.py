"""The text task: go on from the first words of real texts.

Prompt    the first words of a text
Response  the rest of it

Files   corpus: the texts (see `text_files` for the formats). Other roles belong to the plug-ins.
Gold and simulated raters are plug-ins; a task without gold is watched by people alone, one without raters is
labelled by people or by `feedback.rater`. `sentiment.Sentiment` is an example of both.

A prompt may open several texts; it is one prompt all the same, and its hash alone decides its split. The base
model never reads the texts behind gate and evaluation prompts, so what it says there it has not learnt by heart.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Protocol

from policies.errors import TaskError
from policies.tasks.base import Example, Rater, RaterSettings, Split, split_of
from policies.tasks.pools import PromptPools
from policies.tasks.registry import make
from policies.tasks.text_files import read_texts

CORPUS: Final = "corpus"
CORPUS_SPLITS: Final = frozenset({Split.TRAIN, Split.LABEL, Split.NORMALISE})
"""Splits whose texts a base model is grown on."""


class GoldPlugin(Protocol):
    """Scores responses better than raters can. Made with `files=`, the campaign's files by role."""

    def gold(self, prompt: str, response: str) -> float:
        """As `Task.gold`."""
        ...


class RatersPlugin(Protocol):
    """Makes simulated raters. Made with `files=`, the campaign's files by role."""

    def raters(self, settings: RaterSettings) -> Sequence[Rater]:
        """As `Task.raters`."""
        ...


class Text:
    """The task `text`."""

    kind = "text"

    def __init__(
        self,
        *,
        files: Mapping[str, str],
        gold: str | None = None,
        raters: str | None = None,
        field: str = "text",
        column: int | None = None,
        lowercase: bool = False,
        prompt_words: int = 4,
        min_words: int = 8,
        max_words: int = 40,
        bpe_vocabulary: int = 2048,
    ) -> None:
        """Say how texts are read and cut.

        Args:
            files: files by role; `corpus` is needed.
            gold: the gold scorer, `package.module:Class` or `path/file.py:Class`; None = there is no gold.
            raters: the simulated raters, named likewise; None = the task cannot simulate any.
            field: of a .jsonl object, the one that holds the text.
            column: of a .tsv or .txt line, the tab-separated one, from 1, that holds the text.
            lowercase: whether texts are made lower case, which helps a small model.
            prompt_words: how many words of a text are its prompt.
            min_words: texts with fewer words, prompt included, are left out.
            max_words: texts with more words give a prompt but no example for the base model: cut short, they would
                teach it never to end.
            bpe_vocabulary: tokens of the tokenizer that a seedling trains on the corpus.
        """
        if CORPUS not in files:
            raise TaskError("text: needs a corpus; give --set task.files.corpus=FILE (.txt, .tsv, .jsonl, or .gz)")
        if not 1 <= prompt_words < min_words <= max_words:
            raise TaskError(
                f"text: need 1 <= prompt_words < min_words <= max_words, got {prompt_words}, {min_words}, {max_words}"
            )
        if column is not None and column < 1:
            raise TaskError(f"text: column counts from 1, got {column}")
        self.files = dict(files)
        self.field, self.column, self.lowercase = field, column, lowercase
        self.prompt_words, self.min_words, self.max_words = prompt_words, min_words, max_words
        self.bpe_vocabulary = bpe_vocabulary
        self._gold: GoldPlugin | None = self._plugin(gold, "gold")
        self._raters: RatersPlugin | None = self._plugin(raters, "raters")

    @property
    def has_gold(self) -> bool:
        """Whether there is a gold scorer."""
        return self._gold is not None

    def corpus(self, seed: int) -> list[Example]:
        """Give the texts behind the prompts of CORPUS_SPLITS, in the order of the file, whatever the seed."""
        return [
            example
            for example in self._examples
            if split_of(example.prompt) in CORPUS_SPLITS
            and self.prompt_words + len(example.response.split()) <= self.max_words
        ]

    def prompts(self, split: str, count: int, seed: int) -> list[str]:
        """Give `count` different prompts of a split; see `Task.prompts`."""
        return self._pools.take(split, count, seed)

    def prompt_capacity(self, split: str) -> int:
        """Count the prompts of a split."""
        return len(self._pools[split])

    def gold(self, prompt: str, response: str) -> float:
        """Score a response by the plug-in.

        Raises:
            TaskError: if there is none; ask `has_gold` first.
        """
        if self._gold is None:
            raise TaskError("text: there is no gold scorer; name one as task.options.gold")
        return self._gold.gold(prompt, response)

    def raters(self, settings: RaterSettings) -> Sequence[Rater]:
        """Make the plug-in's raters.

        Raises:
            TaskError: if there is none.
        """
        if self._raters is None:
            raise TaskError(
                "text: no simulated raters; name some as task.options.raters, or set feedback.rater: people"
            )
        return self._raters.raters(settings)

    @cached_property
    def _examples(self) -> list[Example]:
        examples = []
        for text in read_texts(Path(self.files[CORPUS]), field=self.field, column=self.column):
            words = (text.lower() if self.lowercase else text).split()
            if len(words) >= self.min_words:
                examples.append(Example(" ".join(words[: self.prompt_words]), " ".join(words[self.prompt_words :])))
        if not examples:
            raise TaskError(
                f"{self.files[CORPUS]}: no text of at least {self.min_words} words; lower task.options.min_words"
            )
        return examples

    @cached_property
    def _pools(self) -> PromptPools:
        return PromptPools(
            dict.fromkeys(example.prompt for example in self._examples),
            owner="the corpus",
            advice="ask for fewer labels or attempts, raise task.options.prompt_words, or bring more text",
        )

    def _plugin(self, name: str | None, what: str) -> Any:
        if name is None:
            return None
        return make(name, {"files": self.files}, what=f"task.options.{what}", members=(what,))
