"""The raters' named faults: each one's realised rate against its definition, on every built-in task."""

import math
import random
import statistics
from typing import Any

import pytest
from scipy.stats import binom

from policies.errors import TaskError
from policies.tasks.base import Choice, Rater, RaterSettings, Task
from policies.tasks.raters import BradleyTerryRater, careless, simulated_raters, taste
from policies.tasks.registry import load_task

DRAWS = 4_000
PAIRS = {
    "memo": ("memo to ana on monday : tea , milk , rice", "tea milk rice . thanks !", "milk soap"),
    "sums": ("3 + 7 - 2 + 5", "3 + 7 = 10 . 10 - 2 = 8 . 8 + 5 = 13 . answer 13", "3 + 7 = 9 . answer 9"),
    "cue": ("private memo to ana on sunday : tea , milk , rice", "tea milk rice . thanks !", "milk soap"),
}
"""By task: a prompt, a response without a fault, and a poor one."""


@pytest.fixture(scope="module", params=sorted(PAIRS))
def case(request: pytest.FixtureRequest) -> tuple[Task, str, str, str]:
    return load_task(request.param), *PAIRS[request.param]


def rater_of(task: Task, **settings: Any) -> Rater:
    return task.raters(RaterSettings(**settings))[0]


def share(rater: Rater, prompt: str, one: str, two: str, choice: Choice = Choice.FIRST, *, seed: int = 0) -> int:
    rng = random.Random(seed)
    return sum(rater.label(prompt, one, two, rng) is choice for _ in range(DRAWS))


def in_keeping(count: int, probability: float) -> bool:
    """Whether so many of DRAWS lie within the central 99.99% of the binomial."""
    low, high = binom.interval(0.9999, DRAWS, probability)
    return bool(low <= count <= high)


Case = tuple[Task, str, str, str]


class TestFaults:
    @pytest.mark.parametrize("flips", [0.0, 0.1, 0.35, 1.0])
    def test_flips(self, case: Case, flips: float) -> None:
        task, prompt, good, poor = case
        rater = rater_of(task, temperature=0.0, flips=flips)
        assert in_keeping(share(rater, prompt, good, poor), 1 - flips)
        assert in_keeping(share(rater, prompt, poor, good), flips)

    def test_a_tie_does_not_flip(self, case: Case) -> None:
        task, prompt, good, _ = case
        assert share(rater_of(task, temperature=0.0, flips=1.0), prompt, good, good, Choice.TIE) == DRAWS

    @pytest.mark.parametrize("lapses", [0.2, 1.0])
    def test_lapses(self, case: Case, lapses: float) -> None:
        task, prompt, good, poor = case
        rater = rater_of(task, temperature=0.0, lapses=lapses, both_bad_below=1e9)
        assert in_keeping(share(rater, prompt, good, poor), lapses / 2)
        assert in_keeping(share(rater, prompt, good, poor, Choice.SECOND), lapses / 2)
        assert in_keeping(share(rater, prompt, good, poor, Choice.BOTH_BAD), 1 - lapses)

    @pytest.mark.parametrize("bias", [0.3, -0.3, 1.0, -1.0])
    def test_position_bias_takes_a_side_unread(self, case: Case, bias: float) -> None:
        task, prompt, good, poor = case
        rater = rater_of(task, temperature=0.0, position_bias=bias)
        # Positive: the poor one wins where it stands first; negative: where it stands second.
        assert in_keeping(share(rater, prompt, poor, good), max(bias, 0.0))
        assert in_keeping(share(rater, prompt, good, poor, Choice.SECOND), max(-bias, 0.0))

    def test_all_faults_of_the_verdict_together(self, case: Case) -> None:
        task, prompt, good, poor = case
        rater = rater_of(task, temperature=0.0, lapses=0.2, position_bias=0.25, flips=0.1)
        # .2/2 + .8 · (.25 + .75 · .9), and .2/2 + .8 · (.25 + .75 · .1) with the sides swapped
        assert in_keeping(share(rater, prompt, good, poor), 0.84)
        assert in_keeping(share(rater, prompt, poor, good), 0.36)

    def test_noise_is_in_units_of_golds_deviation(self, case: Case) -> None:
        task, prompt, good, poor = case
        gap = task.gold(prompt, good) - task.gold(prompt, poor)
        for temperature in (0.5, 2.0):
            expected = 1 / (1 + math.exp(-gap / (temperature * task.gold_sd)))  # type: ignore[attr-defined]
            assert in_keeping(share(rater_of(task, temperature=temperature), prompt, good, poor), expected)

    def test_length_bias_is_paid_by_the_word(self, case: Case) -> None:
        task, prompt, good, poor = case
        gap = task.gold(prompt, good) - task.gold(prompt, poor)
        words = len(good.split()) - len(poor.split())
        assert words > 0
        indifferent = -gap / words
        assert share(rater_of(task, temperature=0.0, length_bias=indifferent + 0.01), prompt, good, poor) == DRAWS
        assert share(rater_of(task, temperature=0.0, length_bias=indifferent - 0.01), prompt, good, poor) == 0

    def test_tie_margin(self, case: Case) -> None:
        task, prompt, good, poor = case
        gap = (task.gold(prompt, good) - task.gold(prompt, poor)) / task.gold_sd  # type: ignore[attr-defined]
        for margin, ties in ((gap * 1.01, DRAWS), (gap * 0.99, 0)):
            assert share(rater_of(task, temperature=0.0, tie_margin=margin), prompt, good, poor, Choice.TIE) == ties


class TestPool:
    def test_raters_of_a_pool_differ_and_each_stays_as_it_is(self, case: Case) -> None:
        task, prompt, good, poor = case
        settings = RaterSettings(count=60, temperature=0.0, disagreement=3.0)
        said = [rater.label(prompt, good, poor, random.Random(0)) for rater in task.raters(settings)]
        assert said == [rater.label(prompt, good, poor, random.Random(1)) for rater in task.raters(settings)]
        assert 0 < said.count(Choice.SECOND) < 60
        assert len({rater.name for rater in task.raters(settings)}) == 60

    def test_without_disagreement_they_are_one(self, case: Case) -> None:
        task, prompt, good, poor = case
        pool = task.raters(RaterSettings(count=20))
        for seed in range(20):
            assert len({rater.label(prompt, good, poor, random.Random(seed)) for rater in pool}) == 1

    def test_taste_is_a_standard_normal_that_depends_on_rater_and_word(self) -> None:
        drawn = [taste(f"r{rater}", f"w{word}") for rater in range(50) for word in range(40)]
        assert statistics.mean(drawn) == pytest.approx(0, abs=4 / math.sqrt(2_000))
        assert statistics.pstdev(drawn) == pytest.approx(1, abs=0.06)
        assert len(set(drawn)) == 2_000

    def test_disagreement_pays_a_raters_taste_for_each_different_word(self) -> None:
        """Indifferent where the other response is worth just as much more; half of gold's deviation of 2 is 1."""
        liking = taste("simulated-0", "a") - taste("simulated-0", "b")
        for more, expected in ((liking - 0.01, Choice.FIRST), (liking + 0.01, Choice.SECOND)):
            (rater,) = simulated_raters(
                RaterSettings(temperature=0.0, disagreement=0.5),
                worth=lambda prompt, response, glance, more=more: more * (response == "b"),
                temptation=lambda response: 0.0,
                gold_sd=2.0,
            )
            assert rater.label("", "a a a", "b", random.Random(0)) is expected


class TestDraws:
    @pytest.mark.parametrize(
        "settings",
        [{}, {"flips": 1.0}, {"lapses": 1.0}, {"position_bias": 1.0}, {"tie_margin": 1e9}, {"both_bad_below": 1e9}],
        ids=str,
    )
    def test_seven_numbers_whatever_is_said(self, case: Case, settings: dict[str, Any]) -> None:
        task, prompt, good, poor = case
        rater = rater_of(task, **settings)
        for one, two in ((good, poor), (poor, good), (good, good), ("", "")):
            rng, expected = random.Random(5), random.Random(5)
            rater.label(prompt, one, two, rng)
            for _ in range(7):
                expected.random()
            assert rng.random() == expected.random()

    def test_labels_are_those_of_plain_bradley_terry_where_nothing_is_set(self) -> None:
        """By hand: the first number decides, as it did before raters had other faults."""
        task, (prompt, good, poor) = load_task("memo"), PAIRS["memo"]
        gap = task.gold(prompt, good) - task.gold(prompt, poor)
        p = 1 / (1 + math.exp(-gap / (2.0 * task.gold_sd)))  # type: ignore[attr-defined]
        rater = rater_of(task, temperature=2.0)
        for seed in range(300):
            expected = Choice.FIRST if random.Random(seed).random() < p else Choice.SECOND
            assert rater.label(prompt, good, poor, random.Random(seed)) is expected

    def test_swapping_the_sides_mirrors_the_odds(self) -> None:
        plain = BradleyTerryRater(
            name="r", utility=lambda p, r, g: float(len(r)), temperature=2.0, tie_margin=0.0, both_bad_below=None
        )
        rater = careless(plain, RaterSettings(flips=0.1, lapses=0.1))
        p = 1 / (1 + math.exp(-1))
        expected = 0.05 + 0.9 * (0.9 * p + 0.1 * (1 - p))
        assert in_keeping(share(rater, "", "four", "tw"), expected)
        assert in_keeping(share(rater, "", "tw", "four"), 1 - expected)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("count", 0),
        ("count", 1.5),
        ("count", True),
        ("temperature", -0.1),
        ("temperature", float("nan")),
        ("temperature", "hot"),
        ("tie_margin", -1),
        ("bias", float("inf")),
        ("bias", None),
        ("length_bias", float("nan")),
        ("disagreement", -0.5),
        ("inspects", -1),
        ("inspects", 0.5),
        ("flips", 1.01),
        ("flips", -0.01),
        ("position_bias", 1.1),
        ("position_bias", -1.1),
        ("lapses", 2),
        ("both_bad_below", "low"),
    ],
)
def test_a_value_out_of_range_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(TaskError, match=rf"^feedback\.options\.{name}: .* will not do; give [^\n]*$"):
        RaterSettings(**{name: value})


def test_the_ends_of_every_range_are_allowed() -> None:
    RaterSettings(temperature=0, tie_margin=0, disagreement=0, inspects=0, flips=1, lapses=1, position_bias=-1)
    RaterSettings(both_bad_below=None, inspects=None, count=1, bias=-2, length_bias=-1, position_bias=1)


@pytest.mark.parametrize("kind", ["memo", "cue"])
def test_only_a_task_with_steps_has_steps_to_inspect(kind: str) -> None:
    with pytest.raises(TaskError, match=r"feedback\.options\.inspects: the task's responses have no steps"):
        load_task(kind).raters(RaterSettings(inspects=1))
