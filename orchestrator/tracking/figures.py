"""Figures that the mirror does not take straight from an event: totals, a phase's steps, a verdict in words.

Functions of what they are given, under the names that MLflow shows. Nothing here calls MLflow; only the mirror uses it.
"""

import json
from pathlib import Path
from typing import Final

from orchestrator import gate_words, views
from orchestrator.core.attribution import Attribution, Estimate
from orchestrator.core.events import ROLLOUT_STEPS
from orchestrator.core.gate import GateVerdict
from orchestrator.core.settings import PriceSettings
from orchestrator.core.state import Attempt, CampaignState
from orchestrator.tracking.mlflow_view import safe_key

_STEP_METRICS: Final = {
    "reward": "proxy/reward",
    "reward_spread": "proxy/spread",
    "kl_nats": "kl/nats",
    "kl_coefficient": "kl/coefficient",
    "return_": "phase/return",
}
"""Columns of a phase's step table that have names of their own; every other number becomes `phase/COLUMN`."""
_ATTRIBUTED: Final = ("over_credit", "reward_model", "raters", "off_distribution")


def totals(state: CampaignState, prices: PriceSettings) -> dict[str, float | None]:
    spent = views.costs(state, prices)
    labels = spent.pop("labels")
    numbers = {**{f"labels_{purpose}": count for purpose, count in labels.items()}, **spent}
    return {f"cost/{name}": value for name, value in numbers.items()} | {"gate/alpha_spent": state.alpha_spent}


def gate_metrics(state: CampaignState, attempt: Attempt, verdict: GateVerdict) -> dict[str, float | None]:
    """Every number of a verdict: the tests, the labels by queue, the error budget by then."""
    numbers: dict[str, float | None] = {
        "gate/win_rate": verdict.win_rate,
        "gate/win_rate_low": verdict.win_rate_low,
        "gate/over_promise": verdict.over_promise,
        "gate/over_promise_high": verdict.over_promise_high,
        "gate/alpha": verdict.alpha,
        "gate/alpha_spent": state.alpha_spent,
        "gate/labels": verdict.labels,
        "gate/skipped": verdict.skipped,
    }
    for test in verdict.tests:
        figures = {"estimate": test.estimate, "bound": test.bound, "limit": test.limit}
        numbers |= {f"gate/{safe_key(test.name)}/{figure}": value for figure, value in figures.items()}
    return numbers | {f"gate/labels/{panel.purpose.value}": len(panel.labels) for panel in state.panels(attempt)}


def attribution_metrics(attribution: Attribution | None) -> dict[str, float | None]:
    """Where over-credit comes from, with 95% intervals; what is unknown has no metric."""
    numbers: dict[str, float | None] = {}
    for name in _ATTRIBUTED:
        estimate: Estimate | None = getattr(attribution, name, None)
        if estimate is not None:
            key = f"attribution/{name}"
            numbers |= {key: estimate.mean, f"{key}_low": estimate.low, f"{key}_high": estimate.high}
    return numbers


def step_metrics(folder: Path) -> list[tuple[int, dict[str, float | None]]]:
    """Metrics of each step of a phase, from the table in its artifact; none where there is no table.

    Raises:
        ValueError: the table cannot be read.
    """
    table = folder / ROLLOUT_STEPS
    lines = table.read_text(encoding="utf-8").splitlines() if table.exists() else []
    metrics: list[tuple[int, dict[str, float | None]]] = []
    for place, row in enumerate(json.loads(line) for line in lines if line.strip()):
        numbers: dict[str, float | None] = {
            _STEP_METRICS.get(key, f"phase/{safe_key(key)}"): float(value)
            for key, value in row.items()
            if key != "step" and isinstance(value, int | float) and not isinstance(value, bool)
        }
        metrics.append((int(row.get("step", place)), numbers))
    return metrics


def verdict_text(campaign: str, attempt: Attempt, verdict: GateVerdict) -> str:
    budget = "no gate" if verdict.alpha is None else f"alpha {verdict.alpha:.4g}"
    lines = [
        f"{campaign} {attempt.place}: {verdict.verdict.value} ({budget}, {verdict.labels} labels)",
        f"candidate {attempt.candidate or 'none'}",
        *(f"- {reason}" for reason in verdict.reasons),
    ]
    for test in verdict.tests:
        estimate = "unknown" if test.estimate is None else f"{test.estimate:.3f}"
        evidence = (
            f"all {test.cap} labels at once"
            if test.log_e_value is None
            else f"log evidence {test.log_e_value:.2f} of {test.log_threshold:.2f} nats"
        )
        lines.append(
            f"  {test.name}: estimate {estimate}, bound {test.bound:.3f}, limit {test.limit:.3f}, {evidence}, "
            f"{'passed' if test.passed else 'not passed'}"
        )
    lines += [f"note: {note}" for note in verdict.notes]
    if attempt.attribution is not None:
        lines += gate_words.attribution_told(attempt.attribution.model_dump(mode="json"))
    return "\n".join(lines) + "\n"
