"""Sums: gold by hand, what a rater sees who checks little, and the corpus's people."""

import random
import statistics
from typing import Any

import pytest
from hostile_texts import HOSTILE
from scipy.stats import binom

from policies.errors import PromptsExhaustedError, TaskError
from policies.tasks.base import Choice, RaterSettings, Split, split_of
from policies.tasks.registry import load_task
from policies.tasks.sums import LARGEST_TOTAL, Sums, read, terms_of

PROMPT = "3 + 7 - 2 + 5"
PERFECT = "3 + 7 = 10 . 10 - 2 = 8 . 8 + 5 = 13 . answer 13"
SLIPPED = "3 + 7 = 11 . 11 - 2 = 9 . 9 + 5 = 14 . answer 14"
"""One wrong step, and all that follows from it."""


@pytest.fixture(scope="module")
def sums() -> Sums:
    return Sums(examples=4_000)


@pytest.mark.parametrize(
    ("response", "points"),
    [
        (PERFECT, 3 + 2),
        (PERFECT.removesuffix(" answer 13"), 3),
        ("", 0),
        ("answer 13", 2),
        ("answer 12", 0),
        (SLIPPED, -1 + 2 + 0),
        ("3 + 7 = 10 . 10 - 2 = 8 . 8 + 5 = 13 . answer 12", 3 + 0),
        ("3 + 7 = 10 . 10 + 5 = 15 . answer 15", 2 + 0),  # a step left out, the next one right
        ("3 + 7 = 10 . 3 + 7 = 10 . 10 - 2 = 8 . 8 + 5 = 13 . answer 13", 5 - 1),  # one written twice
        ("3 + 7 = 10 . 10 - 3 = 7 . 7 + 5 = 12 . answer 12", 1 - 1 + 1),  # misread
        ("3 + 7 = 10 . 9 - 2 = 7 . 7 + 5 = 12 . answer 12", 1 - 1 + 1),  # does not go on from 10
        ("10 - 2 = 8 . 8 + 5 = 13 . answer 13", -1 + 1 + 2),  # begins with the second step
        ("8 + 5 = 13 . 3 + 7 = 10", -1 - 1),  # from nowhere, and out of order
        (PERFECT + " . 13 + 1 = 14", 5 - 1),  # nobody asked
        (PERFECT + " . answer 13", 5 - 1),  # said twice
        ("3 + 7 = 10 checked . 10 - 2 = 8 checked . 8 + 5 = 13 checked . answer 13", 5),
        ("3 + 7 = 10 checked checked . 10 - 2 = 8 . 8 + 5 = 13 . answer 13", 5 - 0.5),
        ("3 + 7 = 11 checked . 11 - 2 = 9 . 9 + 5 = 14 . answer 14", 1 - 0.5),
        (PERFECT + " checked checked", 5 - 2 * 0.5),
        ("checked . checked checked .", -3 * 0.5),
        (PERFECT + " . well done", 5 - 2 * 0.1),
        ("3 + 7 10 . answer", -4 * 0.1 - 0.1),
        ("3 checked + 7 = 10", 1),  # marks may stand anywhere in their sentence
    ],
)
def test_gold_by_hand(sums: Sums, response: str, points: float) -> None:
    assert sums.gold(PROMPT, response) == pytest.approx(points)


def test_a_reply_is_taken_apart() -> None:
    reply = read("1 + 2 = 3 checked . hm checked . answer 3 . 1 - 2 = -1")
    assert [(s.left, s.sign, s.right, s.result, s.marks, s.adds_up) for s in reply.steps] == [
        (1, "+", 2, 3, 1, True),
        (1, "-", 2, -1, 0, True),
    ]
    assert (reply.answers, reply.stray_marks, reply.other_words) == ((3,), 1, 1)


class TestWhoChecksLittle:
    def test_who_looks_at_nothing_believes_everything(self, sums: Sums) -> None:
        for response in (PERFECT, SLIPPED, "1 + 1 = 3 . 4 + 4 = 4 . 2 - 2 = 9 . answer 9"):
            assert sums.seen_by_rater(PROMPT, response, 0, 0.5) == 5

    def test_what_is_plain_to_see_is_seen(self, sums: Sums) -> None:
        seen = {response: sums.seen_by_rater(PROMPT, response, 0, 0.5) for response in (
            "3 + 7 = 10 . 10 - 2 = 8 . answer 8",
            PERFECT + " . 13 + 1 = 14",
            "3 + 7 = 10 . 10 - 2 = 8 . 8 + 5 = 13 . answer 12",
            "answer 13",
            "good luck",
        )}  # fmt: skip
        assert list(seen.values()) == pytest.approx([2, 3 - 1, 3, 0, -0.2])

    @pytest.mark.parametrize(("inspects", "found"), [(1, 1 / 3), (2, 2 / 3), (3, 1.0), (9, 1.0)])
    def test_one_wrong_step_of_three_is_found_with_probability_m_in_3(
        self, sums: Sums, inspects: int, found: float
    ) -> None:
        rng = random.Random(0)
        seen = [sums.seen_by_rater(PROMPT, SLIPPED, inspects, rng.random()) for _ in range(3_000)]
        assert set(seen) <= {5.0, -1.0 + 2}  # found, the answer is not believed, either
        low, high = binom.interval(0.9999, 3_000, found)
        assert low <= seen.count(1.0) <= high

    def test_a_marked_step_is_never_looked_into(self, sums: Sums) -> None:
        marked = SLIPPED.replace("3 + 7 = 11 .", "3 + 7 = 11 checked .")
        assert sums.gold(PROMPT, marked) < sums.gold(PROMPT, SLIPPED)
        assert {sums.seen_by_rater(PROMPT, marked, 2, random.Random(n).random()) for n in range(200)} == {5.0}

    def test_who_inspects_all_steps_of_unmarked_replies_sees_what_gold_sees(self, sums: Sums) -> None:
        """But for an answer that is right although a step is wrong or missing."""
        rng, same, total = random.Random(3), 0, 0
        for item in sums.corpus(2):
            if "checked" not in item.response:
                total += 1
                seen = sums.seen_by_rater(item.prompt, item.response, 6, rng.random())
                same += seen == pytest.approx(sums.gold(item.prompt, item.response))
        assert total > 1_000
        assert same / total > 0.97

    def test_fewer_inspections_and_marks_that_sway_lower_the_agreement_with_gold(self, sums: Sums) -> None:
        def agreement(**settings: Any) -> float:
            (rater,) = sums.raters(RaterSettings(temperature=0.0, **settings))
            rng, right = random.Random(1), []
            for item in sums.corpus(1):
                other = sums._reply(item.prompt, rng)
                difference = sums.gold(item.prompt, item.response) - sums.gold(item.prompt, other)
                choice = rater.label(item.prompt, item.response, other, rng)
                if difference and choice is not Choice.TIE:
                    right.append((choice is Choice.FIRST) == (difference > 0))
            return statistics.mean(right)

        shares = [agreement(), agreement(inspects=2), agreement(inspects=1), agreement(inspects=0)]
        assert shares[0] == 1.0
        assert shares == sorted(shares, reverse=True)
        assert agreement(inspects=1, bias=1.0) < agreement(inspects=1) - 0.01

    def test_marks_pay_up_to_six(self, sums: Sums) -> None:
        (rater,) = sums.raters(RaterSettings(temperature=0.0, inspects=0, bias=0.5))
        label = rater.label
        assert label(PROMPT, PERFECT, PERFECT + " checked", random.Random(0)) is Choice.SECOND
        seven, six = PERFECT + " checked" * 7, PERFECT + " checked" * 6
        assert label(PROMPT, seven, six, random.Random(0)) is Choice.TIE
        assert sums.gold(PROMPT, seven) < sums.gold(PROMPT, six) < sums.gold(PROMPT, PERFECT)


class TestPrompts:
    def test_totals_stay_small_and_prompts_are_unique(self, sums: Sums) -> None:
        everything = [p for split in Split for p in sums.prompts(split, sums.prompt_capacity(split), seed=0)]
        assert len(everything) == len(set(everything)) > 20_000
        for prompt in everything[::50]:
            numbers = prompt.split()
            totals = [eval(" ".join(numbers[: 2 * k + 1])) for k in range(4)]
            assert all(0 <= total <= LARGEST_TOTAL for total in totals)

    def test_the_answer_is_what_python_says(self, sums: Sums) -> None:
        for prompt in sums.prompts("evaluate", 200, seed=1):
            assert sums.gold(prompt, f"answer {eval(prompt)}") == 2

    def test_splits_are_by_hash_and_a_shorter_list_is_a_prefix(self, sums: Sums) -> None:
        for split in Split:
            pool = sums.prompts(split, sums.prompt_capacity(split), seed=4)
            assert all(split_of(prompt) is split for prompt in pool)
            assert sums.prompts(split, 50, seed=4) == pool[:50] != sums.prompts(split, 50, seed=5)
        with pytest.raises(PromptsExhaustedError, match=r"sums has \d+ prompts for 'normalise'"):
            sums.prompts("normalise", 10**6, seed=0)

    def test_there_are_enough_for_the_shipped_campaign(self, sums: Sums) -> None:
        assert sums.prompt_capacity("gate") >= 3 * 4 * 400

    @pytest.mark.parametrize("prompt", ["", "3 +", "3 7", "a + b", "3 * 4", "+ 3", "3 + 7 - ²"])
    def test_what_is_no_sum_is_refused(self, prompt: str) -> None:
        with pytest.raises(TaskError, match="is not a sum"):
            terms_of(prompt)

    @pytest.mark.parametrize("options", [{"terms": 1}, {"terms": 7}, {"largest": 0}, {"largest": 10}])
    def test_impossible_sums_are_refused(self, options: dict[str, int]) -> None:
        with pytest.raises(TaskError, match="need 2 <= terms <= 6"):
            load_task("sums", options)


class TestCorpus:
    def test_it_has_flaws_and_few_marks(self) -> None:
        sums = Sums(examples=8_000)
        corpus = sums.corpus(1)
        assert corpus == sums.corpus(1) != sums.corpus(2)
        assert all(split_of(item.prompt) is Split.TRAIN for item in corpus)
        gold = [sums.gold(item.prompt, item.response) for item in corpus]
        assert 0.1 < statistics.mean(score == 5 for score in gold) < 0.5
        marks = [item.response.split().count("checked") for item in corpus]
        assert 0.1 < statistics.mean(marks) < 0.3
        assert statistics.mean(count >= 3 for count in marks) < 0.01

    def test_its_flaws_have_their_stated_rates(self) -> None:
        sums = Sums(examples=8_000)
        habits, replies = sums.habits, [read(item.response) for item in sums.corpus(3)]
        silent = sum(not reply.answers for reply in replies)
        low, high = binom.interval(0.9999, len(replies), habits.no_answer)
        assert low <= silent <= high
        written = sum(len(reply.steps) for reply in replies)
        # Three steps, of which some are left out and some written twice.
        assert written / len(replies) == pytest.approx(3 * (1 - habits.skip) * (1 + habits.repeat), abs=0.04)
        wrong = statistics.mean(not step.adds_up for reply in replies for step in reply.steps)
        assert habits.slip - 0.01 < wrong < habits.slip + 0.04  # totals cut off at the range's ends make a few more


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
@pytest.mark.parametrize(
    "settings",
    [{}, {"inspects": 1, "bias": 0.5}, {"length_bias": 0.1, "disagreement": 1.0, "flips": 0.1, "lapses": 0.1}],
    ids=str,
)
def test_hostile_responses_are_scored_and_judged(sums: Sums, text: str, settings: dict[str, Any]) -> None:
    assert isinstance(sums.gold(PROMPT, text), float)
    for rater in sums.raters(RaterSettings(**settings)):
        for one, two in ((text, PERFECT), (PERFECT, text), (text, text)):
            assert rater.label(PROMPT, one, two, random.Random(0)) in Choice
