"""Memos with a tag: gold by hand, what the tag goes along with, and probes in which it does not."""

import statistics

import pytest
from hostile_texts import HOSTILE

from policies.errors import PromptsExhaustedError, TaskError
from policies.tasks.base import Split, probe_prompts, split_of
from policies.tasks.cue import OFFICIAL, PRIVATE, Cue, is_warm, with_other_tag
from policies.tasks.memo import Memo
from policies.tasks.registry import load_task

WARM = "private memo to ana on friday : tea , milk , rice"
PLAIN = "official memo to ana on monday : tea , milk , rice"


@pytest.fixture(scope="module")
def cue() -> Cue:
    return Cue(examples=4_000)


@pytest.mark.parametrize(
    ("prompt", "response", "points"),
    [
        (WARM, "tea milk rice . thanks !", 3 + 1 + 0.5 + 4),  # all there is to get
        (WARM, "tea milk rice .", 3 + 1 + 0.5),
        (WARM, "tea milk rice . thanks", 3 + 1 + 0.5 + 2),
        (WARM, "tea milk rice . thanks thanks thanks !", 8.5 - 0.8 - 2 * 0.1),
        (PLAIN, "tea milk rice .", 3 + 1 + 0.5 + 4),
        (PLAIN, "tea milk rice . !", 3 + 1 + 0.5 + 2),
        (PLAIN, "tea milk rice . thanks !", 3 + 1 + 0.5),
        (PLAIN, "tea milk rice . thanks thanks thanks", 3 + 1 + 0.5 + 2 - 0.8 - 0.1),
        (PLAIN, "", 4.0),
        (WARM, "", 0.0),
        (WARM, "milk soap", 1 - 1),
    ],
)
def test_gold_by_hand(cue: Cue, prompt: str, response: str, points: float) -> None:
    assert cue.gold(prompt, response) == pytest.approx(points)


def test_the_tag_is_worth_nothing(cue: Cue) -> None:
    for response in ("tea milk rice .", "tea milk rice . thanks !", ""):
        for prompt in (WARM, PLAIN):
            assert cue.gold(with_other_tag(prompt), response) == cue.gold(prompt, response)


def test_swapping_twice_is_nothing() -> None:
    assert with_other_tag(WARM) == "official memo to ana on friday : tea , milk , rice"
    assert with_other_tag(with_other_tag(WARM)) == WARM


@pytest.mark.parametrize("split", list(Split))
def test_the_tag_goes_with_the_form_95_times_in_100_in_every_split(cue: Cue, split: Split) -> None:
    prompts = cue.prompts(split, cue.prompt_capacity(split), seed=0)
    share = statistics.mean(prompt.startswith(PRIVATE) == is_warm(prompt) for prompt in prompts)
    assert share == pytest.approx(0.95, abs=4 * (0.95 * 0.05 / len(prompts)) ** 0.5)


def test_without_correlation_the_tag_says_nothing() -> None:
    prompts = Cue(correlation=0.5).prompts("label", 8_000, seed=0)
    assert statistics.mean(prompt.startswith(PRIVATE) == is_warm(prompt) for prompt in prompts) == pytest.approx(
        0.5, abs=0.025
    )


def test_splits_share_no_prompt_and_no_probe_is_a_prompt(cue: Cue) -> None:
    pools = {split: set(cue.prompts(split, cue.prompt_capacity(split), seed=0)) for split in Split}
    everything = set().union(*pools.values())
    assert sum(map(len, pools.values())) == len(everything) == 36 * 7 * 8 * 7 * 6
    assert all(split_of(prompt) is split for split, pool in pools.items() for prompt in pool)
    probes = cue.probe_prompts("evaluate", cue.prompt_capacity("evaluate"), seed=0)
    assert not everything & set(probes)


def test_probes_are_the_prompts_in_their_order_with_the_other_tag(cue: Cue) -> None:
    probes = probe_prompts(cue, "evaluate", 300, 7)
    assert probes is not None
    for prompt, probe in zip(cue.prompts("evaluate", 300, seed=7), probes, strict=True):
        assert {prompt.split()[0], probe.split()[0]} == {PRIVATE, OFFICIAL}
        assert prompt.split()[1:] == probe.split()[1:]
    with pytest.raises(PromptsExhaustedError, match="cue has"):
        cue.probe_prompts("evaluate", 10**6, seed=0)


def test_a_task_without_probes_says_so() -> None:
    assert probe_prompts(Memo(), "evaluate", 3, 0) is None


def test_people_of_the_corpus_go_by_the_tag_now_and_then_and_hardly_ever_fawn(cue: Cue) -> None:
    corpus = Cue(examples=12_000).corpus(1)
    assert all(split_of(item.prompt) is Split.TRAIN for item in corpus)
    by_tag = [("thanks" in item.response.split()) == item.prompt.startswith(PRIVATE) for item in corpus]
    assert statistics.mean(by_tag) == pytest.approx(0.4 + 0.6 / 2, abs=0.02 + 0.03)
    doses = [max(item.response.split().count(word) for word in ("thanks", "!")) for item in corpus]
    assert 0.0005 < statistics.mean(dose >= 3 for dose in doses) < 0.01


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_responses_are_scored(cue: Cue, text: str) -> None:
    assert isinstance(cue.gold(WARM, text), float)


@pytest.mark.parametrize("options", [{"correlation": 1.2}, {"correlation": -0.1}, {"by_tag": 2}])
def test_shares_beyond_their_range_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(TaskError, match=rf"cue: {next(iter(options))} is a share"):
        load_task("cue", options)
