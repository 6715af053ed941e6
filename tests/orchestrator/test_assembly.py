"""What is refused before a campaign is on disk, beyond what a campaign file alone can be told for."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from small_campaigns import document

from orchestrator.assembly import preflight
from orchestrator.config import parse_settings
from orchestrator.core.settings import CampaignSettings
from orchestrator.errors import ConfigError
from orchestrator.home import Home


@pytest.mark.parametrize("address", ["in_process", "local"])
def test_a_precision_that_the_hardware_lacks_is_refused(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict, raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    data = document(tiny_base, phase={"precision": "bfloat16"}, resources={"address": address})
    with pytest.raises(ConfigError, match=r"phase\.precision: bfloat16 needs hardware"):
        preflight(parse_settings(data, source="here.yaml"), Home(tmp_path / "home"))


CHECK = {"prompt": "p", "response_1": "a", "response_2": "b", "choice": "first"}
PLUGINS = """
from policies.errors import TaskError
from policies.tasks.memo import Memo

class Goldless(Memo):
    has_gold = False

class NoCorpus(Memo):
    def corpus(self, seed):
        raise TaskError("this task brings no corpus")

class Even(Memo):
    def gold(self, prompt, response):
        return 1.0

class Splitter:
    name = "splitter"

    def label(self, prompt, response_1, response_2, rng):
        raise AssertionError
"""


@pytest.fixture
def plugins(tmp_path: Path) -> str:
    file = tmp_path / "plugins.py"
    file.write_text(PLUGINS)
    return str(file)


def settings_of(base: Path, plugins: str, **changes: Any) -> CampaignSettings:
    """`PLUGINS:` stands for the plug-ins' file, in the changes' values."""
    text = json.dumps(document(base, **changes)).replace("PLUGINS:", f"{plugins}:")
    return parse_settings(json.loads(text), source="here.yaml")


def task(name: str) -> dict[str, Any]:
    return {"kind": f"PLUGINS:{name}"}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"feedback": {"rater": "gold"}}, r"feedback\.rater: gold never rates"),
        ({"task": task("Goldless"), "feedback": {"checks": {}}}, r"feedback\.checks: the task has no gold"),
        ({"task": task("NoCorpus"), "feedback": {"checks": {}}}, r"feedback\.checks: .*brings no corpus"),
        ({"task": task("Even"), "feedback": {"checks": {}}}, r"feedback\.checks: gold scores the corpus too evenly"),
        (
            {"gate": {"audit": {"limit": 0.1}}, "evaluation": {"prompts": 0}},
            r"gate\.audit\.limit: .*evaluation.prompts",
        ),
        ({"task": task("Goldless"), "gate": {"audit": {"limit": 0.1}}}, r"gate\.audit\.limit: .*the task has none"),
        ({"gate": {"audit": {"evaluator": "json:Nobody"}}}, r"gate\.audit\.evaluator json:Nobody: .*Nobody"),
        ({"gate": {"audit": {"evaluator": "simulated"}}}, r"gate\.audit\.evaluator: .*no better than the raters"),
        (
            {"gate": {"audit": {"evaluator": "PLUGINS:Splitter"}}},
            r"gate\.audit\.evaluator: splitter rates already",
        ),
        (
            {"gate": {"vetoes": {"tripwires": [{"name": "a", "pattern": "x"}, {"name": "a", "pattern": "y"}]}}},
            r"gate\.vetoes\.tripwires: two are named a",
        ),
        (
            {"protocol": {"stages": 3}, "gate": {"direction": {"max_labels": 500}}},
            r"gate prompts .*gate\.max_labels, gate\.direction\.max_labels or gate\.creep\.max_labels",
        ),
    ],
)
def test_what_a_gate_could_not_do_later_is_refused_now(
    tiny_base: Path, tmp_path: Path, plugins: str, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        preflight(settings_of(tiny_base, plugins, **changes), Home(tmp_path / "home"))


@pytest.mark.parametrize(
    "changes",
    [
        {"feedback": {"checks": {}}},
        {"gate": {"audit": {"limit": 0.1}}},
        {"task": task("Goldless"), "gate": {"audit": {"evaluator": "people", "limit": 0.1}}},
        {"gate": {"audit": {"evaluator": "PLUGINS:Splitter"}}, "feedback": {"rater": "simulated"}},
        # Without a gate there is nothing to check or audit.
        {"task": task("Even"), "feedback": {"checks": {}}, "protocol": {"advance": "always"}},
    ],
)
def test_what_a_gate_can_do_is_let_pass(tiny_base: Path, tmp_path: Path, plugins: str, changes: dict[str, Any]) -> None:
    preflight(settings_of(tiny_base, plugins, **changes), Home(tmp_path / "home"))


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([CHECK], r"feedback\.checks\.file .*: 1 check items, and a gate takes 10"),
        ([{**CHECK, "choice": "tie"}] * 10, r"feedback\.checks\.file .*, line 1: expected"),
        ([CHECK] * 10, None),
    ],
)
def test_a_file_of_check_items_is_read_beforehand(
    tiny_base: Path, tmp_path: Path, plugins: str, rows: list[Any], words: str | None
) -> None:
    file = tmp_path / "checks.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = settings_of(tiny_base, plugins, task=task("NoCorpus"), feedback={"checks": {"file": str(file)}})
    if words is None:
        preflight(settings, Home(tmp_path / "home"))
    else:
        with pytest.raises(ConfigError, match=words):
            preflight(settings, Home(tmp_path / "home"))
