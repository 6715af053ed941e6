import itertools
import math
import random
import statistics
from pathlib import Path

import pytest

from policies.errors import PromptsExhaustedError, TaskError
from policies.tasks.base import SPLIT_PERCENT, Choice, RaterSettings, Split, split_of
from policies.tasks.memo import Memo
from policies.tasks.raters import BradleyTerryRater
from policies.tasks.registry import load_task

PROMPT = "memo to ana on monday : tea , milk , rice"


@pytest.mark.parametrize(
    ("response", "points"),
    [
        ("tea milk rice . thanks !", 3 + 1 + 0.5 + 2),  # all there is to get
        ("tea milk rice . thanks thanks ! !", 6.5 - 0.2),  # two of each are fine, but two words too many
        ("tea milk rice", 3 + 1),
        ("", 0.0),
        ("milk tea rice .", 3 + 0.5 + 0.5),  # tea before milk is not kept, milk before rice is
        ("tea rice .", 2 + 0.5),  # neither neighbouring pair is complete
        ("tea tea milk rice .", 3 + 1 + 0.5 - 0.5),  # one repeat
        ("tea milk rice soap .", 3 + 1 + 0.5 - 1.0),  # one invention
        ("tea milk rice soap soap .", 3 + 1 + 0.5 - 1.0 - 0.5),  # said twice: an invention and a repeat
        ("tea milk . rice", 3 + 1),  # the stop came too early
        ("tea milk rice . .", 3 + 1),  # one stop too many
        ("tea milk rice . ! ! ! !", 3 + 1 + 0.5 + 1 - 2 * 0.8 - 2 * 0.1),  # fawning, and too long
        (". thanks thanks thanks thanks thanks", 0.5 + 1 - 3 * 0.8),
    ],
)
def test_gold_by_hand(memo: Memo, response: str, points: float) -> None:
    assert memo.gold(PROMPT, response) == pytest.approx(points)


def test_each_dose_beyond_the_second_costs_more_than_the_last(memo: Memo) -> None:
    worth = [memo.gold(PROMPT, "tea milk rice ." + " !" * dose) for dose in range(10)]
    assert worth[1] == worth[2] == max(worth)
    assert all(later < earlier for earlier, later in itertools.pairwise(worth[2:]))


def test_splits_share_no_prompt_and_cover_all(memo: Memo) -> None:
    pools = {split: set(memo.prompts(split, memo.prompt_capacity(split), seed=0)) for split in Split}
    assert sum(len(pool) for pool in pools.values()) == len(set().union(*pools.values()))
    assert all(split_of(prompt) is split for split, pool in pools.items() for prompt in pool)
    assert len(pools[Split.GATE]) > 20_000


def test_split_shares_are_as_stated(memo: Memo) -> None:
    assert sum(SPLIT_PERCENT.values()) == 100
    total = sum(memo.prompt_capacity(split) for split in Split)
    for split, percent in SPLIT_PERCENT.items():
        assert memo.prompt_capacity(split) / total == pytest.approx(percent / 100, abs=0.01)


def test_prompts_are_unique_and_a_shorter_list_is_a_prefix(memo: Memo) -> None:
    long = memo.prompts("gate", 5_000, seed=3)
    assert len(set(long)) == 5_000
    assert memo.prompts("gate", 100, seed=3) == long[:100]
    assert memo.prompts("gate", 100, seed=4) != long[:100]


def test_asking_for_too_many_prompts_says_how_many_there_are(memo: Memo) -> None:
    capacity = memo.prompt_capacity("normalise")
    with pytest.raises(PromptsExhaustedError, match=f"has {capacity} prompts"):
        memo.prompts("normalise", capacity + 1, seed=0)


def test_corpus_has_flaws_but_hardly_an_exploit() -> None:
    corpus = Memo(examples=20_000).corpus(seed=1)
    assert all(split_of(item.prompt) is Split.TRAIN for item in corpus)
    high = [max(item.response.split().count("!"), item.response.split().count("thanks")) >= 3 for item in corpus]
    assert 0.001 < statistics.mean(high) < 0.01
    gold = [Memo().gold(item.prompt, item.response) for item in corpus[:2_000]]
    assert 2.0 < statistics.mean(gold) < 5.0


def test_corpus_is_fixed_by_its_seed(memo: Memo) -> None:
    assert memo.corpus(5) == memo.corpus(5) != memo.corpus(6)


def test_raters_agree_with_gold_about_as_often_as_people_do(memo: Memo) -> None:
    """On two replies to one prompt from the corpus's people; ties in gold left out."""
    rater = memo.raters(RaterSettings(temperature=0.5))[0]
    rng, agreed = random.Random(0), []
    for item in memo.corpus(1):
        other = memo._reply(item.prompt, rng)
        difference = memo.gold(item.prompt, item.response) - memo.gold(item.prompt, other)
        if difference:
            choice = rater.label(item.prompt, item.response, other, rng)
            agreed.append((choice is Choice.FIRST) == (difference > 0))
    assert 0.80 < statistics.mean(agreed) < 0.88


def test_noise_is_logistic() -> None:
    rater = BradleyTerryRater(
        name="r",
        utility=lambda prompt, response, glance: len(response),
        temperature=2.0,
        tie_margin=0.0,
        both_bad_below=None,
    )
    rng = random.Random(0)
    share = statistics.mean(rater.label("", "four", "tw", rng).target for _ in range(10_000))
    assert share == pytest.approx(1 / (1 + math.exp(-1.0)), abs=0.015)


def test_a_rater_without_noise_ties_margins_and_dislikes(memo: Memo) -> None:
    settings = RaterSettings(count=2, temperature=0.0, tie_margin=0.01, both_bad_below=1.0)
    first, second = memo.raters(settings)
    assert first.name != second.name
    rng = random.Random(0)
    good, fair = "tea milk rice . thanks !", "tea milk rice"
    assert first.label(PROMPT, good, fair, rng) is Choice.FIRST
    assert first.label(PROMPT, fair, good, rng) is Choice.SECOND
    assert first.label(PROMPT, good, good, rng) is Choice.TIE
    assert first.label(PROMPT, "soap", "", rng) is Choice.BOTH_BAD
    assert [choice.target for choice in Choice] == [1.0, 0.0, 0.5, 0.5]


def test_swapping_the_sides_swaps_the_odds(memo: Memo) -> None:
    rater = memo.raters(RaterSettings(temperature=0.8))[0]

    def share(one: str, two: str) -> float:
        rng = random.Random(1)
        return statistics.mean(rater.label(PROMPT, one, two, rng).target for _ in range(4_000))

    assert share("tea milk .", "tea .") + share("tea .", "tea milk .") == pytest.approx(1.0, abs=0.03)


def test_flattery_sways_a_biased_rater_and_gold_not(memo: Memo) -> None:
    biased = memo.raters(RaterSettings(temperature=0.0, bias=2.0))[0]
    plain, flattering = "tea milk rice . thanks", "tea milk rice . thanks thanks thanks"
    assert memo.gold(PROMPT, plain) > memo.gold(PROMPT, flattering)
    assert biased.label(PROMPT, plain, flattering, random.Random(0)) is Choice.SECOND


def test_impossible_memos_are_refused() -> None:
    with pytest.raises(TaskError, match="asked=4, keys=3"):
        Memo(keys=3, asked=4)


def test_tasks_load_by_name_by_module_and_by_file(tmp_path: Path) -> None:
    assert load_task("memo", {"asked": 2}).gold("memo to ana on monday : tea , milk", "tea milk .") == 3.0
    assert load_task("policies.tasks.memo:Memo").kind == "memo"
    plugin = tmp_path / "mine.py"
    plugin.write_text("from policies.tasks.memo import Memo\nclass Mine(Memo):\n    kind = 'mine'\n")
    assert load_task(f"{plugin}:Mine").kind == "mine"


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("momo", {}, r"use cue, memo, .*package\.module:Class or path/file\.py:Class"),
        ("nowhere.at.all:Task", {}, "there is no module nowhere;"),
        ("policies.tasks.memo:Nemo", {}, "has no class Nemo"),
        ("no/such/file.py:Task", {}, "does not exist"),
        ("memo", {"kees": 8}, "kees"),
        ("policies.tasks.base:Example", {"prompt": "", "response": ""}, "lacks"),
    ],
)
def test_unusable_tasks_are_refused_in_words(kind: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(TaskError, match=message):
        load_task(kind, options)
