"""`ratchet gate power` and `simulate`: their documents, what they advise, and their refusals."""

from collections.abc import Callable
from pathlib import Path

import pytest
from scipy.stats import binom
from small_campaigns import CommandLine, Ended

from orchestrator.cli.gate import METHOD_NAMES, PREDICTION_NAMES, TEST_NAMES
from orchestrator.core.planning import GATE_TESTS
from orchestrator.core.settings import Method
from orchestrator.core.worlds import Predictions

Run = Callable[..., Ended]


@pytest.fixture
def run(command_line: CommandLine, tmp_path: Path) -> Run:
    return lambda *arguments, **options: command_line(tmp_path, "gate", *map(str, arguments), **options)


def test_the_names_offered_are_what_there_is() -> None:
    assert tuple(Predictions) == PREDICTION_NAMES
    assert tuple(Method) == METHOD_NAMES
    assert GATE_TESTS == TEST_NAMES


class TestPower:
    def test_the_document_has_all_that_was_promised(self, run: Run) -> None:
        ended = run("power", "--win-rate", 0.7, "--over-promise", 0, "--alpha", 0.05, "--trials", 200, "--json")
        assert (ended.code, ended.stderr) == (0, "")
        found = ended.json
        assert 40 <= found["labels_median"] <= found["labels_p80"] <= 400
        assert found["pass_rate_at_max"] > 0.9
        assert found["pass_rate_at_max_low"] < found["pass_rate_at_max"] < found["pass_rate_at_max_high"]
        assert found["false_refusal_rate"] == pytest.approx(1 - found["pass_rate_at_max"])
        assert (found["false_pass_rate"], found["true_nulls"]) == (None, [])
        assert (found["limit"], found["alpha"], found["max_labels"]) == (0.15, 0.05, 400)

    def test_one_test_alone(self, run: Run) -> None:
        """Science's table: T2 at limit .10 and bias 0 needs 139 labels in the median with another kind of bet."""
        ended = run(
            "power", "--win-rate", 0.6, "--over-promise", 0, "--alpha", 0.05, "--limit", 0.1, "--test", "over_promise",
            "--trials", 200, "--json",
        )  # fmt: skip
        assert ended.json["tests"] == ["over_promise"]
        assert ended.json["labels_median"] == pytest.approx(139, abs=30)

    def test_too_few_labels_are_null_and_told_what_would_do(self, run: Run) -> None:
        arguments = ("power", "--win-rate", 0.57, "--alpha", 0.01, "--steps", 40, "--trials", 100)
        found = run(*arguments, "--json").json
        assert (found["labels_median"], found["labels_p80"]) == (None, None)
        assert found["max_labels_for_80"] > 400
        assert 0.57 < found["win_rate_for_80"] == found["predicted_win_rate_for_80"] < 0.7
        assert found["steps_for_80"] > 40
        told = run(*arguments).stdout
        assert f"phase.stop.predicted_win_rate: {found['predicted_win_rate_for_80']:.3g}" in told
        assert f"gate.max_labels: {found['max_labels_for_80']}" in told
        assert f"phase.steps: {found['steps_for_80']}" in told
        assert "if log-odds grow in proportion to steps" in told
        assert "taken for granted: direction, path, creep" in told

    def test_an_over_promise_belongs_to_what_is_predicted(self, run: Run) -> None:
        arguments = ("power", "--win-rate", 0.65, "--alpha", 0.05, "--trials", 50, "--json")
        found = run(*arguments, "--over-promise", 0.04).json
        assert found["predicted_win_rate_for_80"] == pytest.approx(found["win_rate_for_80"] + 0.04)
        half = run(*arguments, "--predictions", "half", "--steps", 40).json
        assert half["over_promise"] == pytest.approx(-0.15)
        assert (half["predicted_win_rate_for_80"], half["steps_for_80"]) == (None, None)

    def test_a_true_null_has_a_false_pass_rate(self, run: Run) -> None:
        arguments = ("power", "--win-rate", 0.8, "--over-promise", 0.15, "--alpha", 0.05, "--trials", 300)
        found = run(*arguments, "--json").json
        assert found["true_nulls"] == ["over_promise"]
        assert found["false_pass_rate"] == found["pass_rate_at_max"] <= 0.1
        assert (found["false_refusal_rate"], found["max_labels_for_80"], found["win_rate_for_80"]) == (None, None, None)
        told = run(*arguments).stdout
        assert "true nulls: over_promise" in told
        assert "false-pass rate" in told

    def test_a_campaign_file_gives_gate_and_budget(self, run: Run, tmp_path: Path) -> None:
        file = tmp_path / "mine.yaml"
        file.write_text(
            "name: mine\ntask: {kind: memo}\nbase: {seedling: {}}\nprotocol: {stages: 3, attempts: 4}\n"
            "gate: {alpha: 0.12, max_labels: 90, over_promise_limit: 0.2, path: null}\n"
        )
        found = run("power", "--win-rate", 0.7, "--config", file, "--trials", 20, "--json").json
        assert found["alpha"] == pytest.approx(0.12 / 3 / 4)
        assert (found["max_labels"], found["limit"], found["not_simulated"]) == (90, 0.2, ["direction", "creep"])
        whole = run("simulate", "--win-rate", 0.7, "--config", file, "--trials", 5, "--max-labels", 60, "--json").json
        assert (whole["alpha"], whole["stages"], whole["attempts"], whole["max_labels"]) == (0.12, 3, 4, 60)

    def test_further_queues_take_part_where_their_rates_are_given(self, run: Run) -> None:
        rates = ("--direction-win-rate", 0.4, "--wrong-reward", 0.2, "--creep-win-rate", 0.8)
        found = run("power", "--win-rate", 0.8, "--alpha", 0.05, *rates, "--trials", 100, "--json").json
        assert (found["true_nulls"], found["not_simulated"]) == (["direction"], [])
        assert found["pass_rate_at_max"] <= 0.15
        audited = ("--audit-excess", 0.3, "--audit-limit", 0.2)
        found = run("power", "--win-rate", 0.8, "--alpha", 0.05, *audited, "--trials", 100, "--json").json
        assert found["true_nulls"] == ["audit"]


class TestSimulate:
    def test_the_document_has_all_that_was_promised(self, run: Run) -> None:
        ended = run(
            "simulate", "--win-rate", 0.58, "--over-promise", 0, "--alpha", 0.05, "--attempts", 2, "--trials", 200,
            "--json",
        )  # fmt: skip
        assert (ended.code, ended.stderr) == (0, "")
        found = ended.json
        assert found["trials"] == 200
        assert found["pass_rate_low"] < found["pass_rate"] < found["pass_rate_high"]
        assert found["false_refusal_rate"] == pytest.approx(1 - found["pass_rate"])
        assert found["advanced_within"] == sorted(found["advanced_within"])
        assert found["advanced_within"][-1] == found["pass_rate"]
        assert 40 <= found["labels_median"] <= found["labels_p80"] <= 800

    @pytest.mark.parametrize(
        "truth",
        [
            ("--win-rate", 0.5, "--over-promise", 0),
            ("--win-rate", 0.5, "--predictions", "half"),
            ("--win-rate", 0.5, "--over-promise", 0, "--predictions", "uninformative", "--accuracy", 0.55),
            ("--win-rate", 0.6, "--over-promise", 0.1),
            ("--win-rate", 0.85, "--over-promise", 0.1, "--ties", 0.1),
        ],
        ids=lambda truth: " ".join(map(str, truth)),
    )
    def test_a_stage_of_true_nulls_passes_at_most_alpha_often(self, run: Run, truth: tuple[str, ...]) -> None:
        found = run(
            "simulate", *truth, "--limit", 0.1, "--alpha", 0.05, "--attempts", 5, "--trials", 200, "--json"
        ).json
        assert found["true_nulls"]
        assert found["false_pass_rate"] == found["pass_rate"] == found["wrong_approval_rate"]
        assert found["pass_rate"] * 200 <= binom.ppf(0.9999, 200, 0.05)

    def test_the_same_seed_says_the_same(self, run: Run) -> None:
        arguments = ("simulate", "--win-rate", 0.6, "--alpha", 0.05, "--trials", 30, "--json")
        assert run(*arguments).stdout == run(*arguments).stdout
        assert run(*arguments).stdout != run(*arguments, "--seed", 1).stdout

    def test_whole_campaigns_of_plausible_candidates(self, run: Run) -> None:
        arguments = ("simulate", "--candidates", "reference", "--alpha", 0.1, "--stages", 2, "--attempts", 4)
        found = run(*arguments, "--trials", 40, "--json").json
        assert found["true_nulls"] is None
        assert (found["false_pass_rate"], found["false_refusal_rate"]) == (None, None)
        assert len(found["advanced_within"]) == 4
        assert found["labels_per_advance"] > found["labels_per_attempt"]
        told = run(*arguments, "--trials", 10).stdout
        assert "reference candidates" in told
        assert "all 2 stages passed" in told

    def test_an_adversary(self, run: Run) -> None:
        arguments = ("simulate", "--candidates", "adversarial", "--alpha", 0.05, "--attempts", 5, "--trials", 50)
        found = run(*arguments, "--json").json
        assert found["wrong_approval_rate"] == found["pass_rate"] <= 0.2

    def test_a_fixed_sample_uses_every_label(self, run: Run) -> None:
        arguments = ("simulate", "--win-rate", 0.7, "--alpha", 0.05, "--attempts", 1, "--trials", 20, "--json")
        found = run(*arguments, "--method", "clopper_pearson", "--max-labels", 120).json
        assert (found["labels_median"], found["labels_p80"], found["method"]) == (120, 120, "clopper_pearson")


@pytest.mark.parametrize(
    "arguments",
    [
        ("power", "--win-rate", 0.6, "--alpha", 0.05, "--trials", 20, "--max-labels", 60),
        ("power", "--win-rate", 0.6, "--alpha", 0.05, "--trials", 20, "--max-labels", 60, "--predictions", "half"),
        ("simulate", "--win-rate", 0.6, "--alpha", 0.05, "--trials", 20),
        ("simulate", "--win-rate", 0.2, "--alpha", 0.05, "--trials", 5),
    ],
)
def test_plots_are_written(run: Run, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    ended = run(*arguments, "--plot", "it.png")
    assert ended.code == 0, ended.stderr
    assert "drawn: it.png" in ended.stderr
    assert (tmp_path / "it.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("power", "--win-rate", 0.6), "how much error is allowed? say --alpha A"),
        (("power", "--win-rate", 0.95, "--over-promise", 0.1, "--alpha", 0.05), "lower one of the two"),
        (
            ("power", "--win-rate", 0.65, "--over-promise", 0.1, "--predictions", "half", "--alpha", 0.05),
            "leave the over-promise out",
        ),
        (("power", "--win-rate", 0.6, "--alpha", 0.05, "--audit-excess", 0.1), "say --audit-limit too"),
        (("power", "--win-rate", 0.6, "--alpha", 0.05, "--direction-over-promise", 0.1), "needs --direction-win-rate"),
        (("power", "--win-rate", 0.5, "--alpha", 0.05, "--steps", 40, "--trials", 5), "give one between 0.5 and 1"),
        (("power", "--win-rate", 0.6, "--alpha", 0.05, "--config", "none.yaml"), "none.yaml"),
        (("power", "--win-rate", 0.6, "--alpha", 0.05, "--plot", "no/it.png", "--trials", 5), "name another file"),
        (("simulate", "--win-rate", 0.6, "--alpha", 0.05, "--min-labels", 500), "min_labels 500 exceeds"),
        (("simulate", "--alpha", 0.05), "say --win-rate W"),
        (("simulate", "--alpha", 0.05, "--win-rate", 0.6, "--candidates", "reference"), "say --win-rate W"),
        (("simulate", "--alpha", 1.5, "--win-rate", 0.6), "--alpha"),
    ],
    ids=lambda given: "" if isinstance(given, str) else " ".join(map(str, given)),
)
def test_refusals_name_the_next_action(run: Run, arguments: tuple[str, ...], said: str) -> None:
    ended = run(*arguments)
    assert (ended.code, ended.stdout) == (2, "")
    assert said in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_campaign_without_a_gate_has_none_to_plan(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "online.yaml"
    file.write_text("name: online\ntask: {kind: memo}\nbase: {seedling: {}}\nprotocol: {advance: always}\n")
    ended = run("power", "--win-rate", 0.6, "--config", file)
    assert ended.code == 2
    assert "has no gate to plan" in ended.stderr
