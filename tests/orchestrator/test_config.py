"""Campaign files: every shipped one loads, one of them explains every key, and paths hold from any folder."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError
from small_campaigns import document

from orchestrator.config import load_settings, parse_settings
from orchestrator.core.settings import CampaignSettings
from orchestrator.errors import ConfigError, UsageError
from orchestrator.names import checked_campaign_name

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.name)
def test_every_shipped_file_loads_or_says_what_it_misses(path: Path) -> None:
    try:
        assert load_settings(path).name == path.stem
    except ConfigError as error:
        problem = str(error)
    else:
        return
    assert re.search(r"(task\.files\.\w+|base\.model): no such file or folder", problem), problem


def keys_of(model: type[BaseModel], place: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, field in model.model_fields.items():
        yield (*place, name)
        inner = [field.annotation, *getattr(field.annotation, "__args__", ())]
        for part in inner:
            if isinstance(part, type) and issubclass(part, BaseModel):
                yield from keys_of(part, (*place, name))


@pytest.mark.parametrize("place", list(keys_of(CampaignSettings)), ids=".".join)
def test_the_quickstart_explains_every_key(place: tuple[str, ...]) -> None:
    """As a key or in a comment, inside its section."""
    text = (CONFIGS / "quickstart.yaml").read_text()
    section = re.search(rf"^{place[0]}:.*?(?=^\w|\Z)", text, re.MULTILINE | re.DOTALL)
    assert section, f"no section {place[0]}"
    assert re.search(rf"\b{place[-1]}:", section[0])


def test_paths_are_absolute_afterwards(tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.py").write_text("class Rater: ...\nclass Task: ...\n")
    (tmp_path / "texts.jsonl").write_text("{}\n")
    (tmp_path / "model").symlink_to(tiny_base)
    monkeypatch.chdir(tmp_path)
    data = document(
        Path("./model"),
        task={"kind": "mine.py:Task", "files": {"corpus": "texts.jsonl"}},
        feedback={"rater": "mine.py:Rater", "checks": {"file": "texts.jsonl"}},
        gate={"audit": {"evaluator": "mine.py:Rater"}},
    )
    settings = parse_settings(data, source="here.yaml")
    assert settings.task.kind == f"{tmp_path / 'mine.py'}:Task"
    assert settings.feedback.rater == f"{tmp_path / 'mine.py'}:Rater"
    assert settings.gate.audit.evaluator == f"{tmp_path / 'mine.py'}:Rater"
    assert settings.feedback.checks is not None
    assert settings.feedback.checks.file == str(tmp_path / "texts.jsonl")
    assert settings.task.files == {"corpus": str(tmp_path / "texts.jsonl")}
    assert settings.base.model == str(tiny_base)


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({"name": "other"}, True),
        ({"resources": {"workers": 2}}, True),
        ({"tracking": {"mlflow": "default"}}, True),
        ({"notify": {"command": ["true"]}}, True),
        ({"priority": 7}, True),
        ({"prices": {"label_usd": 2.0}}, True),
        ({"seed": 6}, False),
        ({"phase": {"steps": 3}}, False),
        ({"gate": {"alpha": 0.5}}, False),
        ({"approval": {"approvers": 2}}, False),
    ],
)
def test_the_digest_covers_what_decides_results(tmp_path: Path, change: dict[str, Any], same: bool) -> None:
    plain = CampaignSettings.model_validate(document(tmp_path))
    changed = CampaignSettings.model_validate(document(tmp_path, **change))
    assert (plain.digest() == changed.digest()) is same


def test_more_than_one_mistake_is_counted(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"and 1 more") as refused:
        parse_settings(document(tmp_path, seed="x", phase={"stpes": 1}), source="a.yaml")
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"seed": True}, r"seed: wants a whole number, .* \(got true\)"),
        ({"seed": "5"}, r"seed: wants a whole number, .* \(got '5'\)"),
        ({"phase": {"learning_rate": True}}, r"phase\.learning_rate: wants a number, .* \(got true\)"),
        ({"evaluation": {"prompts": False}}, r"evaluation\.prompts: wants a whole number, .* \(got false\)"),
        ({"approval": {"self_approval": "yes"}}, r"approval\.self_approval: wants true or false \(got 'yes'\)"),
        ({"feedback": {"rater": 5}}, r"feedback\.rater: wants text; .* \(got 5\)"),
        ({"phase": {"algorithm": True}}, r"phase\.algorithm: should be 'rloo', .* \(got true\)"),
        ({"gate": {"max_labels": True}}, r"gate\.max_labels: wants a whole number, .* \(got true\)"),
        ({"gate": {"min_labels": 0}}, r"gate\.min_labels: should be greater than or equal to 1 \(got 0\)"),
        ({"prices": [1]}, r"prices: wants a section of `key: value` lines \(got \[1\]\)"),
        ({"feedback": {"raters": "ann"}}, r"feedback\.raters: wants a list \(got 'ann'\)"),
    ],
)
def test_a_value_of_another_type_is_told_in_one_line(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse_settings({**document(tmp_path), **change}, source="a.yaml")
    assert re.fullmatch(f"a.yaml: {said}", str(refused.value))


@pytest.mark.parametrize(
    "name",
    [
        *("a", "7", "a.b-c_d", "x" * 64, "console", "con-1", "com", "", "Upper", "con", "CON", "nul.txt", "lpt0"),
        *("a.", ".a", "-a", "_a", "a b", "a\n", "a/b", "é", "x" * 65),
    ],
)
def test_a_file_and_the_ledger_take_the_same_names(tmp_path: Path, name: str) -> None:
    by_file = by_ledger = True
    try:
        CampaignSettings.model_validate(document(tmp_path, name=name))
    except ValidationError:
        by_file = False
    try:
        checked_campaign_name(name)
    except UsageError:
        by_ledger = False
    assert by_file is by_ledger is (name in ("a", "7", "a.b-c_d", "x" * 64, "console", "con-1", "com"))


def test_a_tripwire_is_no_file_and_may_be_named_like_a_device(tmp_path: Path) -> None:
    tripwires = [{"name": "aux", "pattern": "x"}]
    settings = CampaignSettings.model_validate(document(tmp_path, gate={"vetoes": {"tripwires": tripwires}}))
    assert settings.gate.vetoes.tripwires[0].name == "aux"


def test_an_override_is_read_as_yaml_is(tmp_path: Path, tiny_base: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(json.dumps(document(tiny_base)))
    settings = load_settings(file, ["seed=9", "phase.learning_rate=1", "approval.override=true", "name=other"])
    assert (settings.seed, settings.phase.learning_rate, settings.approval.override) == (9, 1.0, True)
    for override in ("seed=true", "seed='9'", "approval.override=yes", "name=5"):
        with pytest.raises(ConfigError, match=f"{override.partition('=')[0]}: wants "):
            load_settings(file, [override])
