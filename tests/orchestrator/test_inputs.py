"""A campaign goes on only with the files that it began with."""

from pathlib import Path

import pytest

from orchestrator.campaigns import create, require_same_inputs, settings_for_run
from orchestrator.config import input_digests, load_settings
from orchestrator.errors import ConfigError
from orchestrator.home import Home

CAMPAIGN = """
name: words
task: {kind: text, files: {corpus: corpus.txt}, options: {prompt_words: 1, min_words: 2, raters: 'rater.py:Rater'}}
base: {seedling: {steps: 1}}
protocol: {stages: 1, attempts: 1}
phase: {steps: 1, prompts_per_step: 1}
feedback: {initial_labels: 10}
gate: {min_labels: 1, max_labels: 1}
evaluation: {prompts: 0}
"""
RATER = """
class Rater:
    name = "first"

    def __init__(self, files):
        pass

    def raters(self, settings):
        return [self]

    def label(self, prompt, response_1, response_2, rng):
        raise AssertionError
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "words.yaml").write_text(CAMPAIGN)
    (tmp_path / "corpus.txt").write_text("".join(f"w{i} goes here\n" for i in range(2000)))
    (tmp_path / "rater.py").write_text(RATER)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_inputs_are_digested_wherever_the_command_runs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load_settings(folder / "words.yaml")
    before = input_digests(settings)
    monkeypatch.chdir("/")
    assert input_digests(settings) == before
    assert set(before) == {"task.files.corpus", "task.options.raters"}


@pytest.mark.parametrize("changed", ["corpus.txt", "rater.py"])
def test_a_changed_file_is_refused_at_resume(folder: Path, changed: str) -> None:
    home = Home(folder / "home")
    create(load_settings(folder / "words.yaml"), home, author="ana")
    with home.ledger() as ledger:
        require_same_inputs(ledger, "words")
        with (folder / changed).open("a") as file:
            file.write("\n# one more line\n")
        with pytest.raises(ConfigError, match=r"not the one that campaign words began with"):
            require_same_inputs(ledger, "words")


def test_a_missing_file_is_refused_at_resume(folder: Path) -> None:
    home = Home(folder / "home")
    create(load_settings(folder / "words.yaml"), home, author="ana")
    (folder / "corpus.txt").unlink()
    with home.ledger() as ledger, pytest.raises(ConfigError, match=r"task\.files\.corpus"):
        require_same_inputs(ledger, "words")


def test_a_campaign_under_way_takes_other_resources_and_nothing_else(folder: Path) -> None:
    home = Home(folder / "home")
    create(load_settings(folder / "words.yaml"), home, author="ana")
    with home.ledger() as ledger:
        assert settings_for_run(ledger, "words", ["resources.workers=3"]).resources.workers == 3
        for decides in ("gate.alpha=0.9", "seed=1", "name=other", "approval.by=gate"):
            with pytest.raises(ConfigError, match="nothing that decides results"):
                settings_for_run(ledger, "words", [decides])


def test_check_items_and_the_auditors_code_are_inputs_too(folder: Path) -> None:
    (folder / "checks.jsonl").write_text("{}\n")
    given = ["feedback.checks={file: checks.jsonl}", "gate.audit.evaluator=rater.py:Rater"]
    digests = input_digests(load_settings(folder / "words.yaml", given))
    assert set(digests) == {
        "task.files.corpus",
        "task.options.raters",
        "feedback.checks.file",
        "gate.audit.evaluator",
    }
