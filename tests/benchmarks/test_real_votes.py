"""The study on real votes: who is asked about what, and whose votes they are."""

import json
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import real_votes
from benchmarks.real_votes import Pair, Question, Queue, comparisons, deal, logits, open_gates, read_pairs
from policies.reward_model import Scores
from policies.seedling import SeedlingSettings

SAID = ("a1", "a2", "a1", "equal", "a1")
ROW = {
    "topic": "tea-or-coffee-_tea",
    "arg1": "It wakes you up gently.",
    "arg2": "It is nice and it keeps for years in a tin.",
    "votes": [{"worker": name, "vote": vote} for name, vote in zip("abcde", SAID, strict=True)],
    "gold": "a1",
}
PAIR = Pair.of(ROW)


@pytest.fixture(scope="module")
def ukp() -> list[Pair]:
    from label_data import folder

    name = "votes.jsonl.gz"
    return read_pairs(folder("ukp-convarg1", name) / name)


class Nth(random.Random):
    """Draws the n-th of however many."""

    def __init__(self, n: int) -> None:
        super().__init__(0)
        self.n = n

    def randrange(self, *_: int) -> int:
        return self.n


class ByLength:
    """A reward of one logit a word."""

    def score(self, prompts: Sequence[str], responses: Sequence[str]) -> Scores:
        words_B = torch.tensor([float(len(text.split())) for text in responses])
        return Scores(words_B, words_B.unsqueeze(0))

    def logit(self, difference_B: torch.Tensor) -> torch.Tensor:
        return difference_B

    def normalised(self, prompts: Sequence[str], responses: Sequence[str]) -> "ByLength":
        return self

    def save(self, out_dir: Path) -> None: ...


class TestPair:
    def test_it_holds_what_people_said(self) -> None:
        assert PAIR.votes == (1.0, 0.0, 1.0, 0.5, 1.0)
        assert PAIR.share == pytest.approx(0.7)
        assert (PAIR.debate, PAIR.prompt) == ("tea-or-coffee-", "tea or coffee tea")

    def test_the_second_argument_has_six_words_more(self) -> None:
        assert PAIR.longer == 0.0
        assert Pair("t", "two words", "no more", (1.0,)).longer == 0.5

    def test_swapped_sides_flip_votes_and_length(self) -> None:
        swapped = PAIR.swapped()
        assert (swapped.first, swapped.second) == (PAIR.second, PAIR.first)
        assert swapped.votes == (0.0, 1.0, 0.0, 0.5, 0.0)
        assert swapped.longer == 1.0
        assert swapped.swapped() == PAIR

    def test_the_corrupted_labels_say_nothing_but_length(self) -> None:
        (honest,), (corrupted,) = (
            comparisons([PAIR], lambda pair: pair.share),
            comparisons([PAIR], lambda pair: pair.longer),
        )
        assert honest.target == pytest.approx(0.7)
        assert corrupted == replace(honest, target=0.0)


class TestDeal:
    @pytest.mark.parametrize("seed", [0, 1, 7])
    def test_no_debate_is_learned_from_and_asked_about(self, ukp: list[Pair], seed: int) -> None:
        for learn, ask in deal(ukp, 3, seed):
            assert {pair.debate for pair in learn}.isdisjoint(pair.debate for pair in ask)
            assert {pair.prompt for pair in learn}.isdisjoint(pair.prompt for pair in ask)
            assert len(learn) + len(ask) == len(ukp) == 12_885

    def test_every_pair_is_asked_about_in_one_part(self, ukp: list[Pair]) -> None:
        asked = Counter(pair for _, ask in deal(ukp, 3, seed=0) for pair in ask)
        assert asked == Counter(ukp)

    def test_both_sides_of_twelve_debates(self, ukp: list[Pair]) -> None:
        sides = {pair.topic for pair in ukp}
        assert (len(sides), len({pair.debate for pair in ukp})) == (24, 12)
        assert sum(len(pair.votes) for pair in ukp) == 64_286

    def test_seeds_deal_differently(self, ukp: list[Pair]) -> None:
        first, second = ({pair.debate for pair in deal(ukp, 3, seed)[0][1]} for seed in (0, 1))
        assert first != second


class TestQuestion:
    def test_the_candidate_takes_the_larger_reward_and_its_votes(self) -> None:
        assert Question.of(PAIR, 2.0).votes == PAIR.votes
        assert Question.of(PAIR, -2.0).votes == (0.0, 1.0, 0.0, 0.5, 0.0)
        assert Question.of(PAIR, -2.0).p_hat == pytest.approx(1 / (1 + np.exp(-2.0)))

    def test_the_order_of_the_arguments_does_not_matter(self) -> None:
        assert Question.of(PAIR, 0.3) == Question.of(PAIR.swapped(), -0.3)

    def test_a_tie_goes_to_the_first_and_promises_nothing(self) -> None:
        assert Question.of(PAIR, 0.0) == Question(0.5, PAIR.votes)

    @pytest.mark.parametrize(("n", "better"), [(0, 1.0), (1, 1.0), (3, 1.0)])
    def test_the_better_evaluator_is_the_majority_of_the_others(self, n: int, better: float) -> None:
        # Less the n-th: 0 1 ½ 1; 1 1 ½ 1; 1 0 1 1.
        assert Question.of(PAIR, 1.0).drawn(Nth(n)) == (PAIR.votes[n], better)

    def test_it_is_half_where_the_others_are_even(self) -> None:
        assert Question(0.6, (1.0, 1.0, 0.0, 0.5)).drawn(Nth(0)) == (1.0, 0.5)
        assert Question(0.6, (1.0, 0.0, 0.0)).drawn(Nth(1)) == (0.0, 0.5)

    def test_the_drawn_vote_does_not_sway_the_better_evaluator(self) -> None:
        for vote in (0.0, 0.5, 1.0):
            assert Question(0.6, (vote, 1.0, 0.0, 0.0)).drawn(Nth(0))[1] == 0.0

    def test_every_vote_is_drawn_alike(self) -> None:
        rng = random.Random(0)
        drawn = Counter(Question.of(PAIR, 1.0).drawn(rng)[0] for _ in range(5_000))
        # Three of five, one of five; six standard errors are .042 and .034.
        assert drawn[1.0] / 5_000 == pytest.approx(0.6, abs=0.042)
        assert drawn[0.5] / 5_000 == pytest.approx(0.2, abs=0.034)


class TestQueue:
    def test_labels_are_votes_of_their_own_pairs_and_no_pair_comes_twice(self, ukp: list[Pair]) -> None:
        logit_N = logits(ByLength(), ukp)
        # A promise of its own for each pair, so that it can be found again.
        questions = [
            Question(0.5 + place / (2 * len(ukp)), Question.of(pair, logit).votes)
            for place, (pair, logit) in enumerate(zip(ukp, logit_N, strict=True))
        ]
        votes = {question.p_hat: question.votes for question in questions}
        queue = Queue.of(questions, 400, random.Random(3))
        assert len(set(queue.p_hat)) == len(queue.outcomes) == len(queue.better) == 400
        assert all(vote in votes[p] for p, vote in zip(queue.p_hat, queue.outcomes, strict=True))
        assert queue.p_hat != sorted(queue.p_hat)

    def test_two_rewards_are_asked_about_the_same_pairs_and_votes(self) -> None:
        pairs = [Pair(f"topic-{n}", "a", "b", (1.0, 0.0, 0.5, float(n % 2))) for n in range(50)]
        one, other = (
            Queue.of([Question.of(pair, logit) for pair in pairs], 30, random.Random(5)) for logit in (1.0, -1.0)
        )
        assert other.outcomes == [1.0 - vote for vote in one.outcomes]


class TestStudy:
    def test_a_reward_gives_each_pair_the_logit_of_its_first_argument(self) -> None:
        assert logits(ByLength(), [PAIR, PAIR.swapped()]).tolist() == [-6.0, 6.0]

    def test_length_that_is_sure_of_itself_is_refused_and_the_reward_model_is_named(self, ukp: list[Pair]) -> None:
        logit_N = logits(ByLength(), ukp)
        found = real_votes.on_unseen(ukp, logit_N)
        # The longer argument gets .64 of the votes, and is promised nearly all of them.
        by_hand = np.mean(
            [pair.share if logit >= 0 else 1 - pair.share for pair, logit in zip(ukp, logit_N, strict=True)]
        )
        assert found["win_rate"] == pytest.approx(by_hand)
        assert found["sides_with_longer"] == 1.0
        questions = [Question.of(pair, logit) for pair, logit in zip(ukp, logit_N, strict=True)]
        for verdict in open_gates(questions, queues=5, seed=0)["gates"]["limit .15"]:
            assert verdict["verdict"] == "rollback"
            assert "over_promise" in verdict["failed"]
            assert verdict["causes"] == ["reward_model"]

    def test_the_same_choices_promised_no_more_than_they_win_pass(self, ukp: list[Pair]) -> None:
        logit_N = np.sign(logits(ByLength(), ukp)) * 0.56  # .636
        questions = [Question.of(pair, logit) for pair, logit in zip(ukp, logit_N, strict=True)]
        verdicts = open_gates(questions, queues=20, seed=0)["gates"]["limit .15"]
        assert sum(verdict["verdict"] == "advance" for verdict in verdicts) >= 15

    def test_a_small_study_gives_its_tables_and_plots(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(real_votes, "SEEDLING", SeedlingSettings(width=16, layers=1, heads=2, steps=2))
        monkeypatch.setattr(real_votes, "VOCABULARY", 300)
        rng = random.Random(0)
        words = ["tea", "is", "good", "and", "warm", "but", "coffee", "wakes", "people"]
        pairs = [
            Pair(
                f"debate-{n % 3}_{side}",
                *(" ".join(rng.choices(words, k=rng.randint(2, 9))) for _ in range(2)),
                votes=tuple(rng.choices((0.0, 0.5, 1.0), k=5)),
            )
            for n in range(60)
            for side in ("yes", "no")
        ]
        outcomes = [real_votes.run(pairs, seed=0, part=part, parts=3, labels=40, queues=2) for part in range(2)]
        assert [outcome["arms"]["honest"]["pairs"] for outcome in outcomes] == [40, 40]
        for outcome in outcomes:
            corrupted, calibrated = outcome["arms"]["length"], outcome["arms"]["length_true"]
            assert corrupted["win_rate"] == calibrated["win_rate"]
        done = tmp_path / "done.jsonl"
        done.write_text("\n".join(json.dumps(outcome) for outcome in outcomes))
        wanted = ["--seeds", "0", "--parts", "2", "--outcomes", str(done), "--out", str(tmp_path)]
        monkeypatch.setattr("sys.argv", ["real_votes", str(tmp_path / "not read"), *wanted])
        real_votes.main()
        assert "over-promise" in capsys.readouterr().out
        for plot in ("real-votes-paths.png", "real-votes-calibration.png"):
            assert (tmp_path / plot).read_bytes().startswith(b"\x89PNG")
