"""`ratchet gate`: the gate alone. What it costs and how often it errs, by simulation, before a label is bought."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from orchestrator.cli.compare import compare
from orchestrator.cli.output import console, json_option, print_json, say, table
from orchestrator.core.nulls import asked_of
from orchestrator.core.records import Purpose
from orchestrator.errors import UsageError

if TYPE_CHECKING:
    from orchestrator.core.planning import Outcome, Plan, Power, Truth
    from orchestrator.core.settings import CampaignSettings, GateSettings

T = TypeVar("T")
Command = TypeVar("Command", bound=Callable[..., Any])

PREDICTION_NAMES = ("informative", "uninformative", "half")
METHOD_NAMES = ("betting", "wilson", "clopper_pearson")
"""As the core has them; written out so that --help does not import its mathematics."""
TEST_NAMES = asked_of(Purpose.GATE)
SEARCH_TRIALS = 1000
CURVE_TRIALS = 500
CURVE_WIN_RATES = (0.55, 0.60, 0.65, 0.70)
CURVE_GRID = tuple(round(0.52 + 0.03 * place, 2) for place in range(10))
CURVE_OVER_PROMISES = (0.0, 0.05, 0.10)

MOST_LABELS = 1_000_000
"""What a simulation takes at most, here and below: beyond, memory or patience end first."""
trial_count = click.IntRange(1, 1_000_000)
attempt_count = click.IntRange(1, 1_000)


class Rate(click.FloatRange):
    """A number in a range; NaN, which no comparison refuses, is in none."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        if number is not None and math.isnan(number):
            self.fail(f"{value!r} is not a number", param, ctx)
        return number


share = Rate(0, 1)
new_png = click.Path(dir_okay=False, path_type=Path)


def _all_of(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


truth_options = _all_of(
    click.option(
        "--over-promise", type=Rate(-1, 1), metavar="D",
        help="True mean of the prediction less the outcome.  [default: 0; with half: 0.5 less the win rate]",
    ),
    click.option(
        "--predictions", type=click.Choice(PREDICTION_NAMES), default="informative", show_default=True,
        help="Whether the reward model's predictions know anything of the single comparison.",
    ),
    click.option(
        "--accuracy", type=Rate(0.5, 0.95), default=0.65, show_default=True,
        help="Of the reward model where neither policy is better: how far predictions vary.",
    ),
    click.option("--ties", type=Rate(0, 1, max_open=True), default=0.0, help="Share of ties."),
    click.option("--direction-win-rate", type=share, metavar="W", help="Best against worst of its own samples."),
    click.option("--direction-over-promise", type=Rate(-1, 1), metavar="D", help="Likewise.  [default: 0]"),
    click.option("--wrong-reward", type=share, metavar="M", help="Share of reward paid to wrong behaviour."),
    click.option("--creep-win-rate", type=share, metavar="W", help="Against the base."),
    click.option("--audit-excess", type=Rate(-1, 1), metavar="E", help="Raters' favour over an auditor's."),
)  # fmt: skip

gate_options = _all_of(
    click.option("--config", type=click.Path(dir_okay=False, path_type=Path), help="A campaign file to plan for."),
    click.option("--limit", type=Rate(0, 1, min_open=True, max_open=True), help="Over-promise allowed."),
    click.option("--min-labels", type=click.IntRange(1, MOST_LABELS), help="No pass before so many."),
    click.option("--max-labels", type=click.IntRange(1, MOST_LABELS), help="No label beyond so many."),
    click.option("--method", type=click.Choice(METHOD_NAMES), help="How evidence is weighed."),
    click.option("--audit-limit", type=Rate(0, 1, min_open=True, max_open=True), help="Of the excess."),
    click.option("--hold", is_flag=True, help="Ask for no worse than 0.03 below even, as `advance: once` does."),
    click.option(
        "--test", "tests", type=click.Choice((*TEST_NAMES, "all")), multiple=True, default=("all",),
        help="Ask these tests alone of candidate against approved; may be repeated.",
    ),
    click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the labels drawn."),
    click.option("--plot", type=new_png, metavar="FILE.png", help="Draw it into this file."),
)  # fmt: skip


@click.group()
def gate() -> None:
    """The gate alone: plan its labels, question two models.

    \b
    Example:
      ratchet gate power --win-rate 0.65 --over-promise 0.03 --alpha 0.0125
      ratchet gate simulate --win-rate 0.5 --over-promise 0 --alpha 0.05 --attempts 5 --trials 5000
    """


gate.add_command(compare)


@gate.command()
@click.option("--win-rate", type=share, required=True, metavar="W", help="True, of candidate against approved.")
@click.option(
    "--alpha", type=Rate(0, 1, min_open=True, max_open=True), metavar="A",
    help="Error budget of the attempt.  [default: a first attempt's, of --config]",
)  # fmt: skip
@truth_options
@gate_options
@click.option("--trials", type=trial_count, default=2000, show_default=True, help="Attempts simulated.")
@click.option("--steps", type=click.IntRange(min=1), metavar="N", help="A phase of N steps; suggest how many to run.")
@click.option("--reached", type=share, metavar="W", help="Predicted win rate after --steps.  [default: W + D]")
@json_option
def power(plot: Path | None, steps: int | None, reached: float | None, as_json: bool, **given: Any) -> None:
    """Labels that one attempt at level A needs to pass, and what to aim for where the gate's labels do not suffice.

    labels_median and labels_p80 count attempts that never pass as needing more than --max-labels, and are null where
    that is so. The win rate and the cap suggested are the smallest with which four attempts of five pass.

    \b
    Example:
      ratchet gate power --win-rate 0.62 --over-promise 0.03 --alpha 0.005 --steps 40
      ratchet gate power --win-rate 0.65 --over-promise 0 --alpha 0.05 --limit 0.1 --test over_promise --json
    """
    import numpy as np

    from orchestrator.core import planning

    _refuse_lost(plot)
    with _usage_errors():
        asked = _asked(given, attempts=1)
        start = np.random.default_rng(given["seed"])
        with _spinner("drawing attempts"):
            found = planning.power(asked.truth, asked.plan, trials=given["trials"], rng=start)
        told = _told(asked) | _power_document(asked, found)
        with _spinner("looking for a win rate and a number of labels that suffice"):
            told |= _advice(asked, given, steps, reached)
        if plot is not None:
            _plot_power(plot, asked, given)
    if as_json:
        print_json(told)
    else:
        _print_power(told)


@gate.command()
@click.option("--win-rate", type=share, metavar="W", help="True, of candidate against approved, at every attempt.")
@click.option(
    "--alpha", type=Rate(0, 1, min_open=True, max_open=True), metavar="A",
    help="Error budget of all stages together.  [default: that of --config]",
)  # fmt: skip
@click.option("--attempts", type=attempt_count, metavar="K", help="A stage's.  [default: of --config, or 4]")
@click.option("--stages", type=attempt_count, metavar="S", help="To pass, all.  [default: of --config, or 1]")
@click.option(
    "--trials",
    type=trial_count,
    default=1000,
    show_default=True,
    metavar="T",
    help="Campaigns simulated.",
)
@click.option(
    "--candidates", type=click.Choice(("fixed", "reference", "adversarial")), default="fixed", show_default=True,
    help="fixed: the rates given. reference: plausible ones, drawn. adversarial: another null true at each attempt.",
)  # fmt: skip
@truth_options
@gate_options
@json_option
def simulate(candidates: str, plot: Path | None, as_json: bool, **given: Any) -> None:
    """Spend A over a stage's attempts, each on fresh labels; a trial passes if any attempt does.

    With several stages a trial is a campaign, passes if every stage does, ends with a stage that does not, and what a
    stage leaves of A carries over to the next. Where the rates make a null true, what passes is a false pass.

    \b
    Example:
      ratchet gate simulate --win-rate 0.5 --over-promise 0 --limit 0.1 --alpha 0.05 --attempts 5 --trials 5000
      ratchet gate simulate --candidates reference --alpha 0.1 --stages 4 --attempts 5
    """
    import numpy as np

    from orchestrator.core import planning

    _refuse_lost(plot)
    with _usage_errors():
        if (candidates == "fixed") != (given["win_rate"] is not None):
            raise UsageError("say --win-rate W for candidates that are all alike, or --candidates reference alone")
        asked = _asked(given | {"win_rate": 0.6 if given["win_rate"] is None else given["win_rate"]}, attempts=4)
        rng = np.random.default_rng(given["seed"])
        draw = {
            "fixed": lambda: planning.always(asked.truth),
            "reference": lambda: planning.reference_candidates,
            "adversarial": lambda: planning.adversary(asked.plan, rng),
        }[candidates]
        trials = (planning.simulate(draw(), asked.plan, rng) for _ in range(given["trials"]))
        found = planning.summarise(list(_tracked(trials, given["trials"])), asked.plan)
        told = _told(asked) if candidates == "fixed" else _told_of_plan(asked.plan) | {"true_nulls": None}
        told |= {"candidates": candidates} | _outcome_document(found, told["true_nulls"])
        if plot is not None:
            _plot_simulation(plot, found, asked.plan)
    if as_json:
        print_json(told)
    else:
        _print_simulation(told)


# --- from options to a plan -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Asked:
    truth: "Truth"
    plan: "Plan"
    truth_at: "Callable[[float, float | None], Truth]"
    """By win rate and over-promise, all else as asked."""


def _asked(given: dict[str, Any], *, attempts: int) -> _Asked:
    from orchestrator.core.budget import attempt_alpha
    from orchestrator.core.planning import GATE_TESTS, Plan, Truth
    from orchestrator.core.settings import Advance
    from orchestrator.core.worlds import Predictions, gate_world

    file = _campaign_file(given)
    settings = _gate_settings(given, file)
    one_attempt = "stages" not in given
    stages, alpha = given.get("stages") or 1, given["alpha"]
    attempts = given.get("attempts") or attempts
    if file is not None:
        stages = given.get("stages") or (1 if one_attempt else file.protocol.stages)
        attempts = given.get("attempts") or (1 if one_attempt else file.protocol.gates)
        whole = file.gate.alpha
        first = attempt_alpha(whole, (), stage=0, stages=file.protocol.stages, attempts=file.protocol.gates)
        alpha = alpha or (first if one_attempt else whole)
    if alpha is None:
        raise UsageError("how much error is allowed? say --alpha A, or name a campaign file with --config")
    if given["audit_excess"] is not None and settings.audit.limit is None:
        raise UsageError("the audit refuses nothing without a limit; say --audit-limit too")
    if given["direction_over_promise"] is not None and given["direction_win_rate"] is None:
        raise UsageError("--direction-over-promise needs --direction-win-rate")
    predictions, accuracy, ties = Predictions(given["predictions"]), given["accuracy"], given["ties"]
    best = given["direction_win_rate"]
    direction = (
        None if best is None else gate_world(best, given["direction_over_promise"], accuracy=accuracy, ties=ties)
    )

    def truth_at(win_rate: float, over_promise: float | None) -> Truth:
        return Truth(
            gate_world(win_rate, over_promise, predictions, accuracy=accuracy, ties=ties),
            direction=direction,
            wrong_reward=given["wrong_reward"],
            creep_win_rate=given["creep_win_rate"],
            audit_excess=given["audit_excess"],
        )

    named = GATE_TESTS if "all" in given["tests"] else given["tests"]
    once = file is not None and file.protocol.advance is Advance.ONCE
    plan = Plan(settings, alpha, stages, attempts, hold=given["hold"] or once, tests=frozenset(named))
    return _Asked(truth_at(given["win_rate"], given["over_promise"]), plan, truth_at)


def _campaign_file(given: dict[str, Any]) -> "CampaignSettings | None":
    from orchestrator.config import load_settings

    if given["config"] is None:
        return None
    file = load_settings(given["config"])
    if not file.protocol.gates:
        raise UsageError(f"{given['config']}: `advance: always` has no gate to plan; name another campaign file")
    return file


def _gate_settings(given: dict[str, Any], file: "CampaignSettings | None") -> "GateSettings":
    from pydantic import ValidationError

    from orchestrator.core.settings import GateSettings

    known = {} if file is None else file.gate.model_dump()
    names = {"limit": "over_promise_limit", "min_labels": "min_labels", "max_labels": "max_labels", "method": "method"}
    known |= {name: given[option] for option, name in names.items() if given[option] is not None}
    largest = known.get("max_labels", GateSettings().max_labels)
    if given["min_labels"] is None and largest < known.get("min_labels", GateSettings().min_labels):
        known["min_labels"] = largest
    audit = GateSettings().audit.model_dump() | known.get("audit", {})
    audit["labels"] = min(audit["labels"], largest)
    if given["audit_limit"] is not None:
        audit["limit"] = given["audit_limit"]
    try:
        return GateSettings.model_validate(known | {"audit": audit})
    except ValidationError as error:
        raise UsageError(f"{error.errors()[0]['msg'].removeprefix('Value error, ')}; change one of the two") from error


@contextmanager
def _usage_errors() -> Iterator[None]:
    from orchestrator.core.worlds import ImpossibleWorldError

    try:
        yield
    except ImpossibleWorldError as error:
        raise UsageError(str(error)) from error


# --- documents --------------------------------------------------------------------------------------------


def _told_of_plan(plan: "Plan") -> dict[str, Any]:
    settings = plan.settings
    return {
        "alpha": plan.alpha, "stages": plan.stages, "attempts": plan.attempts, "limit": settings.over_promise_limit,
        "min_labels": settings.min_labels, "max_labels": settings.max_labels, "method": settings.method.value,
        "hold": plan.hold, "tests": [name for name in TEST_NAMES if name in plan.tests],
    }  # fmt: skip


def _told(asked: _Asked) -> dict[str, Any]:
    """What was asked, with what follows from it without any simulation."""
    truth, plan = asked.truth, asked.plan
    unasked = {
        "direction": truth.direction is None and plan.settings.direction is not None,
        "path": truth.wrong_reward is None and plan.settings.path is not None,
        "creep": truth.creep_win_rate is None and plan.settings.creep is not None,
        "audit": truth.audit_excess is None and plan.settings.audit.limit is not None,
    }
    return _told_of_plan(plan) | {
        "win_rate": truth.gate.win_rate,
        "over_promise": truth.gate.over_promise,
        "over_promise_top_half": truth.gate.top_half_over_promise,
        "true_nulls": list(plan.true_nulls(truth)),
        "not_simulated": [queue for queue, is_so in unasked.items() if is_so],
    }


def _rate(name: str, found: Any) -> dict[str, float]:
    return {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}


def _by_truth(passed: float, true_nulls: Sequence[str] | None) -> dict[str, float | None]:
    """A share that passed, under the name that the truth gives it."""
    known = true_nulls is not None
    return {
        "false_pass_rate": passed if known and true_nulls else None,
        "false_refusal_rate": 1 - passed if known and not true_nulls else None,
    }


def _power_document(asked: _Asked, found: "Power") -> dict[str, Any]:
    passed = found.passed
    return {
        "trials": passed.trials,
        "labels_median": found.needed(0.5),
        "labels_p80": found.needed(0.8),
        **_rate("pass_rate_at_max", passed),
        **_by_truth(passed.value, asked.plan.true_nulls(asked.truth)),
        "labels_spent_mean": float(found.spent_T.mean()),
    }


def _advice(asked: _Asked, given: dict[str, Any], steps: int | None, reached: float | None) -> dict[str, Any]:
    """What to aim for, so that four attempts of five pass."""
    from orchestrator.core import planning

    over_promise = given["over_promise"] if given["predictions"] == "half" else asked.truth.gate.over_promise
    trials, seed = min(given["trials"], SEARCH_TRIALS), given["seed"]
    wanted = planning.win_rate_needed(
        lambda win_rate: asked.truth_at(win_rate, over_promise),
        asked.plan,
        highest=1 - given["ties"] / 2 - max(over_promise or 0.0, 0.0),
        trials=trials,
        seed=seed,
    )
    # A phase stops at what is predicted, and predictions of one half predict nothing.
    predicted = None if wanted is None or over_promise is None else wanted + over_promise
    told: dict[str, Any] = {
        "max_labels_for_80": planning.max_labels_needed(asked.truth, asked.plan, trials=trials, seed=seed),
        "win_rate_for_80": wanted,
        "predicted_win_rate_for_80": predicted,
    }
    if steps is None:
        return told
    came_to = asked.truth.gate.win_rate + asked.truth.gate.over_promise if reached is None else reached
    enough = None if predicted is None or predicted <= 0.5 else planning.steps_needed(steps, came_to, predicted)
    return told | {"steps": steps, "reached": came_to, "steps_for_80": enough}


def _outcome_document(found: "Outcome", true_nulls: Sequence[str] | None) -> dict[str, Any]:
    passed = found.passed
    return {
        "trials": passed.trials,
        **_rate("pass_rate", passed),
        **_by_truth(passed.value, true_nulls),
        **_rate("wrong_approval_rate", found.wrong),
        "labels_median": found.labels(0.5),
        "labels_p80": found.labels(0.8),
        "advanced_within": [found.advanced_within(count).value for count in range(1, found.attempts + 1)],
        "labels_per_advance": found.labels_per_advance,
        "labels_per_attempt": found.labels_per_attempt,
    }


# --- for people -------------------------------------------------------------------------------------------


def _print_power(told: dict[str, Any]) -> None:
    most = told["max_labels"]
    click.echo(_sentence(told) + "\n")
    rows = [
        (f"passes within {most} labels", _interval(told, "pass_rate_at_max")),
        *_rows_by_truth(told),
        ("labels until it passes, median", told["labels_median"] or f"more than {most}"),
        ("labels until it passes, four of five", told["labels_p80"] or f"more than {most}"),
        ("labels until it is settled either way, mean", round(told["labels_spent_mean"])),
    ]
    table([f"one attempt, {told['trials']} times", "value"], rows)
    click.echo("")
    wanted, predicted = told["win_rate_for_80"], told["predicted_win_rate_for_80"]
    if wanted is None:
        click.echo(f"No win rate passes four attempts of five with {most} labels.")
    else:
        click.echo(f"Four attempts of five pass with {most} labels from a win rate of {wanted:.3f} on, all else equal.")
    if predicted is not None and 0.5 < predicted < 1:
        click.echo(f"With its over-promise that is predicted as {predicted:.3f}; to end phases there:")
        click.echo(f"  phase.stop.predicted_win_rate: {predicted:.3g}")
    if told["max_labels_for_80"] is not None:
        click.echo(f"At this win rate, they pass with  gate.max_labels: {told['max_labels_for_80']}")
    elif not told["true_nulls"]:
        click.echo("At this win rate, no affordable number of labels lets four of five pass.")
    if told.get("steps_for_80") is not None:
        click.echo(
            f"{told['steps']} steps reached {told['reached']:.3f}; if log-odds grow in proportion to steps:\n"
            f"  phase.steps: {told['steps_for_80']}"
        )


def _print_simulation(told: dict[str, Any]) -> None:
    click.echo(_sentence(told) + "\n")
    what = "a stage" if told["stages"] == 1 else f"all {told['stages']} stages"
    within = ", ".join(f"{share:.3f}" for share in told["advanced_within"])
    rows = [
        (f"{what} passed", _interval(told, "pass_rate")),
        *_rows_by_truth(told),
        ("anything wrongly approved", _interval(told, "wrong_approval_rate")),
        ("labels, median", told["labels_median"]),
        ("labels, four of five", told["labels_p80"]),
        ("labels an attempt, mean", round(told["labels_per_attempt"])),
        ("labels an advance", _whole(told["labels_per_advance"])),
        (f"stages that pass within 1 … {told['attempts']} attempts", within),
    ]
    table([f"{told['trials']} trials", "value"], rows)


def _sentence(told: dict[str, Any]) -> str:
    if "win_rate" not in told:
        who = f"{told['candidates']} candidates"
    else:
        nulls = f"true nulls: {', '.join(told['true_nulls'])}" if told["true_nulls"] else "every null is false"
        who = (
            f"win rate {told['win_rate']:.3f}, over-promise {told['over_promise']:+.3f} "
            f"({told['over_promise_top_half']:+.3f} in the top half); {nulls}"
        )
    stages = "one stage" if told["stages"] == 1 else f"{told['stages']} stages"
    where = f"{stages} of up to {told['attempts']} attempts, " if "candidates" in told else ""
    lines = [
        who,
        f"{where}alpha {told['alpha']:g}, {told['min_labels']} to {told['max_labels']} labels, "
        f"limit {told['limit']:g}, {told['method']}",
    ]
    if told.get("not_simulated"):
        lines.append(f"taken for granted: {', '.join(told['not_simulated'])}; their own options put them to the test")
    return "\n".join(lines)


def _rows_by_truth(told: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    if told["false_pass_rate"] is not None:
        yield "which is the false-pass rate: a null is true", told["false_pass_rate"]
    if told["false_refusal_rate"] is not None:
        yield "false-refusal rate: no null is true", told["false_refusal_rate"]


def _interval(told: dict[str, Any], name: str) -> str:
    return f"{told[name]:.3f} [{told[f'{name}_low']:.3f}, {told[f'{name}_high']:.3f}]"


def _whole(count: float) -> int | str:
    return round(count) if count < float("inf") else "none advanced"


# --- pictures and progress --------------------------------------------------------------------------------


def _plot_power(path: Path, asked: _Asked, given: dict[str, Any]) -> None:
    import numpy as np

    from orchestrator.core import planning
    from orchestrator.core.worlds import ImpossibleWorldError
    from orchestrator.report.plans import power_figure

    half = given["predictions"] == "half"
    chosen, own = asked.truth.gate.win_rate, asked.truth.gate.over_promise

    def at(win_rate: float, over_promise: float) -> "Power | None":
        try:
            truth = asked.truth_at(win_rate, None if half else over_promise)
        except ImpossibleWorldError:
            return None
        rng = np.random.default_rng(given["seed"])
        return planning.power(truth, asked.plan, trials=min(given["trials"], CURVE_TRIALS), rng=rng)

    points = [
        *((win_rate, own) for win_rate in {chosen, *CURVE_WIN_RATES}),
        *((win_rate, promised) for promised in _over_promises(own, half) for win_rate in CURVE_GRID),
    ]  # fmt: skip
    found = {}
    for point in _tracked(points, len(points)):
        drawn = at(*point)
        if drawn is not None:
            found[point] = drawn
    by_over_promise: dict[float, dict[float, float]] = {}
    for (win_rate, promised), drawn in found.items():
        if win_rate in CURVE_GRID:
            by_over_promise.setdefault(promised, {})[win_rate] = drawn.passed.value
    figure = power_figure(
        {win_rate: drawn for (win_rate, promised), drawn in found.items()
         if promised == own and (win_rate == chosen or win_rate in CURVE_WIN_RATES)},
        by_over_promise,
        chosen=chosen, over_promise=None if half else own, max_labels=asked.plan.settings.max_labels,
        title=_heading(asked.plan),
    )  # fmt: skip
    _save(figure, path)


def _over_promises(own: float, half: bool) -> tuple[float, ...]:
    return (own,) if half else tuple({own, *CURVE_OVER_PROMISES})


def _plot_simulation(path: Path, found: "Outcome", plan: "Plan") -> None:
    from orchestrator.report.plans import simulation_figure

    _save(simulation_figure(found, title=_heading(plan)), path)


def _heading(plan: "Plan") -> str:
    limit, method = plan.settings.over_promise_limit, plan.settings.method.value
    over = f" over {plan.stages} × {plan.attempts} attempts" if plan.stages * plan.attempts > 1 else ""
    return f"alpha {plan.alpha:g}{over}, limit {limit:g}, {method}"


def _refuse_lost(path: Path | None) -> None:
    """Before minutes go into a picture that has no place."""
    if path is not None and not path.parent.is_dir():
        raise UsageError(f"{path}: there is no folder {path.parent}; make it, or name another file with --plot")


def _save(figure: Any, path: Path) -> None:
    from orchestrator.report.drawing import to_png

    try:
        path.write_bytes(to_png(figure))
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}; name another file with --plot") from error
    say(f"drawn: {path}")


def _tracked(items: Iterable[T], total: int) -> Iterable[T]:
    """With a bar on stderr, where that is a terminal."""
    from rich.progress import track

    screen = console()
    return track(items, "simulating", total=total, console=screen, transient=True, disable=not screen.is_terminal)


@contextmanager
def _spinner(what: str) -> Iterator[None]:
    screen = console()
    if not screen.is_terminal:
        yield
        return
    with screen.status(what):
        yield
