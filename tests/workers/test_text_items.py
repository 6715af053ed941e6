"""Work items on real text: a tokenizer grown on the corpus, and evaluation where nobody can score."""

from pathlib import Path

import pytest

from orchestrator.artifacts import ArtifactStore
from orchestrator.core.events import BaseReady, Evaluated, EventBody
from orchestrator.core.settings import BaseSettings, SeedlingSettings, TaskSettings
from orchestrator.core.work import Evaluate, PrepareBase, Work
from orchestrator.errors import WorkFailedError
from orchestrator.ports import Claim
from workers.local import InProcessWorkers

GOLD = "class Length:\n    def __init__(self, *, files): ...\n    def gold(self, prompt, response): return 1.0\n"


@pytest.fixture
def task(tmp_path: Path) -> TaskSettings:
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("".join(f"film {n} number{n} shows us {n} things and then ends\n" for n in range(300)))
    options = {"prompt_words": 3, "bpe_vocabulary": 300}
    return TaskSettings(kind="text", files={"corpus": str(corpus)}, options=options)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "artifacts"


def do(root: Path, work: Work) -> EventBody:
    return InProcessWorkers(root).run(work, Claim("w", "w", 1), lambda *_: None).body


def grown(root: Path, task: TaskSettings) -> str:
    seedling = SeedlingSettings(width=16, layers=1, heads=2, steps=3, batch_size=8)
    body = do(root, PrepareBase(seed=0, task=task, base=BaseSettings(seedling=seedling)))
    assert isinstance(body, BaseReady)
    return body.checkpoint


def test_one_corpus_grows_one_base(root: Path, task: TaskSettings) -> None:
    assert grown(root, task) == grown(root, task)


def test_without_gold_samples_are_kept_and_nobody_scores_them(root: Path, task: TaskSettings) -> None:
    body = do(root, Evaluate(seed=0, task=task, checkpoint=grown(root, task), prompts=5, max_response_tokens=8))
    assert isinstance(body, Evaluated)
    assert (body.gold_mean, body.gold_se, body.responses, body.gold_by_step) == (None, None, 10, ())
    rows = list(ArtifactStore(root).read_lines(body.samples))
    assert len(rows) == 10
    assert all(row["gold"] is None and row["prompt"].startswith("film") for row in rows)


def test_with_gold_it_is_measured(tmp_path: Path, root: Path, task: TaskSettings) -> None:
    (tmp_path / "length.py").write_text(GOLD)
    scored = task.model_copy(update={"options": {**task.options, "gold": f"{tmp_path / 'length.py'}:Length"}})
    body = do(root, Evaluate(seed=0, task=scored, checkpoint=grown(root, task), prompts=5, max_response_tokens=8))
    assert isinstance(body, Evaluated)
    assert body.gold_mean == 1.0


def test_a_missing_corpus_fails_the_work_in_words(root: Path, task: TaskSettings) -> None:
    gone = task.model_copy(update={"files": {"corpus": "gone.txt"}})
    with pytest.raises(WorkFailedError, match=r"preparing the base model: gone\.txt, after row 0: cannot be read"):
        grown(root, gone)
