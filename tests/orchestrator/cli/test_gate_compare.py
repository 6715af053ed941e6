"""`ratchet gate compare`: two existing models, real ones, through the command line to a verdict."""

import json
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from foreign_models import TASK, classifier, gpt2, grown, llama
from small_campaigns import Campaign, CommandLine, Ended, against_the_candidate, for_the_candidate

from orchestrator.config import load_comparison
from orchestrator.core.settings import CampaignSettings
from orchestrator.home import Home
from orchestrator.runner import read_settings

FILE: dict[str, Any] = {
    "name": "unused",
    "seed": 5,
    "task": TASK,
    "base": {"seedling": {}},
    "phase": {"steps": 7, "max_response_tokens": 12},
    "feedback": {"options": {"temperature": 0.0}},
    "gate": {"max_labels": 120},
    "approval": {"by": "gate"},
    "evaluation": {"prompts": 8},
    "resources": {"address": "in_process"},
    "tracking": {"mlflow": "none"},
}
PEOPLE = {"feedback": {"rater": "people"}, "approval": {"by": "person"}, "gate": {"max_labels": 40}}

Compare = Callable[..., Ended]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of models: `young` has learned next to nothing, `old` more; the rest come from elsewhere."""
    folder = tmp_path_factory.mktemp("models")
    grown(folder / "young", steps=5)
    grown(folder / "old", steps=300)
    gpt2(folder / "gpt2")
    llama(folder / "llama")
    classifier(folder / "reward")
    classifier(folder / "two-outputs", outputs=2)
    return folder


@pytest.fixture
def compare(command_line: CommandLine, models: Path, tmp_path: Path) -> Compare:
    """`ratchet gate compare A B` on models by name, in a home of its own; keyword arguments change the file."""

    def run(a: str, b: str, *options: str, kill: str = "", **changes: Any) -> Ended:
        file = tmp_path / "gate.yaml"
        file.write_text(yaml.safe_dump({**FILE, **changes}))
        named = [str(models / name) if (models / name).exists() else name for name in (a, b)]
        failpoint = {"RATCHET_FAILPOINT": kill} if kill else {}
        return command_line(tmp_path, "gate", "compare", *named, str(file), *options, **failpoint)

    return run


@pytest.fixture
def ratchet(command_line: CommandLine, tmp_path: Path) -> Compare:
    return lambda *words, **options: command_line(tmp_path, *words, **options)


@pytest.fixture
def campaign(tmp_path: Path) -> Iterator[Callable[[str], Campaign]]:
    ledgers = []

    def opened(name: str) -> Campaign:
        home = Home(tmp_path / "home")
        ledgers.append(home.ledger())
        return Campaign(home, read_settings(ledgers[-1], name), ledgers[-1])

    yield opened
    for ledger in ledgers:
        ledger.close()


# --- verdicts ------------------------------------------------------------------------------------------------


def test_the_better_model_passes(compare: Compare, ratchet: Compare, models: Path) -> None:
    ended = compare("young", "old", "--json")
    assert ended.code == 0, ended.stderr
    document = ended.json
    assert (document["campaign"], document["verdict"], document["status"]) == (
        "old-against-young",
        "advance",
        "finished",
    )
    assert document["approved"] == document["candidate"] != document["start"]
    assert document["win_rate_low"] > 0.5
    assert document["over_promise"] is None
    assert any(note.startswith("over_promise: not questioned") for note in document["notes"])
    shown = ratchet("campaign", "show", "old-against-young", "--json").json
    assert shown["approved"] == {"digest": document["candidate"], "stage": 1}
    assert shown["costs"]["labels"]["gate"] == document["labels"] > 0
    assert (shown["costs"]["gradient_steps"], shown["costs"]["labels"]["initial"]) == (0, 0)
    assert ratchet("ledger", "verify", "old-against-young").code == 0


def test_the_worse_model_is_refused(compare: Compare) -> None:
    ended = compare("old", "young")
    assert ended.code == 4, ended.stderr
    assert "young-against-old: MODEL_B was refused" in ended.stdout
    assert "improvement: win rate" in ended.stdout


def test_people_label_and_approve(compare: Compare, ratchet: Compare, campaign: Callable[[str], Campaign]) -> None:
    ended = compare("young", "old", "--name", "ours", "--json", **PEOPLE)
    assert ended.code == 3, ended.stderr
    assert "ratchet review label ours" in ended.stderr
    assert (ended.json["verdict"], ended.json["status"]) == (None, "waiting")
    assert ratchet("campaign", "resume", "ours").code == 3
    ours = campaign("ours")
    ours.label(for_the_candidate)
    ended = ratchet("campaign", "resume", "ours", "--json")
    assert ended.code == 3
    candidate = ended.json["attempts"][0]["candidate"]
    assert ended.json["approved"]["digest"] != candidate
    approve = ("review", "approve", "ours", "--reviewer", "eve", "--reason", "reads well", "--candidate", candidate)
    assert ratchet(*approve).code == 0
    assert ratchet("campaign", "resume", "ours").code == 0
    assert campaign("ours").state.approved == candidate


def test_people_refuse(compare: Compare, ratchet: Compare, campaign: Callable[[str], Campaign]) -> None:
    assert compare("young", "old", "--name", "ours", **PEOPLE).code == 3
    campaign("ours").label(against_the_candidate)
    assert ratchet("campaign", "resume", "ours").code == 4


def test_a_reward_model_is_held_to_what_it_predicted(
    compare: Compare, campaign: Callable[[str], Campaign], models: Path
) -> None:
    ended = compare("young", "old", "--name", "ours", "--reward-model", str(models / "reward"), "--json")
    document = ended.json
    assert (ended.code, document["verdict"]) in ((0, "advance"), (4, "rollback")), ended.stderr
    assert not any(note.startswith("over_promise") for note in document["notes"])
    tests = {test["name"]: test for test in document["tests"]}
    assert tests.keys() == {"improvement", "over_promise", "over_promise_top_half"}
    state = campaign("ours").state
    batch, judged = state.gate_batch(state.attempts[0]), tests["over_promise"]["labels"]
    assert batch is not None
    assert max(batch.p_hat) - min(batch.p_hat) > 0.1, "it knows no difference"
    promised = sum(batch.p_hat[:judged]) / judged
    assert document["over_promise"] == pytest.approx(promised - document["win_rate"])


@pytest.mark.parametrize(("a", "b"), [("gpt2", "llama"), ("gpt2", "old")])
def test_models_of_other_architectures_and_tokenizers(compare: Compare, a: str, b: str) -> None:
    ended = compare(a, b, "--json")
    assert ended.code in (0, 4), ended.stderr
    assert ended.json["verdict"] == ("advance" if ended.code == 0 else "rollback")
    assert ended.json["win_rate"] is not None


def test_a_checkpoint_of_this_home_goes_by_its_digest(compare: Compare) -> None:
    first = compare("old", "young", "--json").json
    again = compare(first["start"][:12], first["candidate"], "--name", "again", "--json")
    assert again.code == 4, again.stderr
    assert (again.json["start"], again.json["candidate"]) == (first["start"], first["candidate"])
    # What a gate refused is no approved checkpoint: as MODEL_B alone may it come again.
    assert_refused(compare(first["candidate"], first["start"], "--name", "never"), "names 0 approved checkpoints")


def test_a_campaign_file_may_name_the_candidate(ratchet: Compare, models: Path, tmp_path: Path) -> None:
    file = tmp_path / "file.yaml"
    given = {
        "name": "filed",
        "base": {"model": str(models / "young")},
        "candidate": {"model": str(models / "old")},
        "protocol": {"stages": 1, "attempts": 1},
    }
    file.write_text(yaml.safe_dump({**FILE, **given}))
    ended = ratchet("campaign", "start", str(file), "--json")
    assert ended.code == 0, ended.stderr
    assert ended.json["attempts"][0]["verdict"] == "advance"


def test_the_report_tells_of_it(compare: Compare, ratchet: Compare, tmp_path: Path) -> None:
    compare("young", "old", "--name", "ours")
    ended = ratchet("report", "ours")
    assert ended.code == 0, ended.stderr
    page = next((tmp_path / "home" / "reports").rglob("*.html")).read_text()
    assert "Two existing models are compared, and nothing is trained" in page
    assert "It was given, to be judged against" in page
    assert "Trained for" not in page


# --- killed ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kill", ["artifact.before_rename:kill@2", "runner.after_append:kill@5"])
def test_killed_and_resumed_it_ends_the_same(
    compare: Compare, ratchet: Compare, campaign: Callable[[str], Campaign], models: Path, kill: str
) -> None:
    promised = ("--reward-model", str(models / "reward"))
    assert compare("young", "old", "--name", "whole", *promised).code in (0, 4)
    assert compare("young", "old", "--name", "killed", *promised, kill=kill).code == -signal.SIGKILL
    assert ratchet("campaign", "resume", "killed").code in (0, 4)
    whole, killed = campaign("whole"), campaign("killed")
    assert killed.state.ended_by is not None
    assert killed.digest == whole.digest
    assert killed.state.approved == whole.state.approved
    assert killed.ledger.verify("killed").ok


# --- mistakes ------------------------------------------------------------------------------------------------


def assert_refused(ended: Ended, *words: str) -> None:
    assert ended.code == 2, ended
    assert "Traceback" not in ended.stderr
    for word in words:
        assert word in ended.stderr, ended.stderr


def test_mistakes_are_told_before_anything_is_on_disk(compare: Compare, models: Path, tmp_path: Path) -> None:
    shutil.copytree(models / "old", models / "copy", dirs_exist_ok=True)
    (models / "empty").mkdir(exist_ok=True)
    reward = ("--reward-model", str(models / "two-outputs"))
    assert_refused(compare("old", "old"), "is base.model itself", "nothing to compare")
    assert_refused(compare("old", "copy"), "nothing to compare")
    assert_refused(compare("empty", "old"), "base.model", "no config.json")
    assert_refused(compare("old", "empty"), "candidate.model", "no config.json")
    assert_refused(compare("old", "./nowhere"), "candidate.model", "no such file or folder")
    assert_refused(compare("old", "deadbeef"), "names 0 artifacts of this home")
    assert_refused(compare("deadbeef", "old"), "names 0 approved checkpoints")
    assert_refused(compare("young", "old", *reward), "candidate.reward_model", "has 2 outputs")
    assert_refused(compare("young", "old", "--reward-model", str(models / "llama")), "outputs")
    assert_refused(compare("young", "old", gate={"max_labels": 100_000}), "gate prompts", "gate.max_labels")
    assert_refused(compare("young", "old", feedback={"rater": "nobody.here:Rater"}), "feedback.rater")
    assert_refused(compare("young", "old", "--set", "protocol.stages=2"), "judged by one gate")
    assert_refused(compare("young", "old", phase={"stpes": 3}), "phase.stpes", "did you mean 'steps'")
    assert not (tmp_path / "home").exists()


def test_a_task_without_raters_is_refused(compare: Compare, tmp_path: Path) -> None:
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("".join(f"film {n} number{n} shows us {n} things and then ends\n" for n in range(900)))
    task = {"kind": "text", "files": {"corpus": str(corpus)}, "options": {"prompt_words": 3}}
    assert_refused(compare("young", "old", task=task), "no simulated raters", "feedback.rater: people")


def test_a_name_serves_once(compare: Compare) -> None:
    assert compare("young", "old").code == 0
    assert_refused(compare("young", "old"), "old-against-young exists already", "--name")


# --- the file ------------------------------------------------------------------------------------------------


def settings_from(folder: Path, file: dict[str, Any], **options: Any) -> CampaignSettings:
    path = folder / "file.yaml"
    path.write_text(yaml.safe_dump(file))
    return load_comparison(path, "org/Old Model", "org/NEW_model.v2", **options)


def test_of_the_file_what_judges_counts(tmp_path: Path) -> None:
    learning = {
        "phase": {"algorithm": "dpo", "steps": 3, "max_response_tokens": 9},
        "protocol": {"reward_model": "none"},
    }
    settings = settings_from(tmp_path, {**FILE, **learning}, overrides=["base.revision=v1", "gate.alpha=0.3"])
    assert settings.name == "new_model.v2-against-old-model"
    assert (settings.base.model, settings.base.revision) == ("org/Old Model", "v1")
    assert settings.candidate is not None
    assert (settings.candidate.model, settings.candidate.reward_model) == ("org/NEW_model.v2", None)
    assert (settings.protocol.stages, settings.protocol.attempts) == (1, 1)
    assert (settings.gate.alpha, settings.gate.max_labels, settings.phase.max_response_tokens) == (0.3, 120, 9)
    assert settings.feedback.options == {"temperature": 0.0}


def test_a_file_needs_no_base_and_its_reward_model_stays(tmp_path: Path) -> None:
    file = {key: value for key, value in FILE.items() if key not in ("base", "name")}
    filed = {**file, "candidate": {"model": "x", "reward_model": "org/reward"}}
    assert settings_from(tmp_path, filed).candidate.reward_model == "org/reward"  # type: ignore[union-attr]
    assert settings_from(tmp_path, filed, reward_model="mine").candidate.reward_model == "mine"  # type: ignore[union-attr]
    assert json.loads(settings_from(tmp_path, file).model_dump_json())["candidate"]["reward_model"] is None
