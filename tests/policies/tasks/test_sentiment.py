"""Reviews by a lexicon: gold by hand arithmetic, raters against the ten people, and the real lexicon where it is."""

import gzip
import math
import os
import random
import statistics
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from policies.errors import TaskError
from policies.tasks.base import Choice, RaterSettings
from policies.tasks.sentiment import Sentiment, clutter, read_lexicon, words_of
from policies.tasks.text import Text

ROWS = (
    "good\t2.0\t0.0\t[2, 2, 2, 2, 2, 2, 2, 2, 2, 2]",
    "divisive\t0.0\t4.0\t[4, 4, 4, 4, 4, -4, -4, -4, -4, -4]",
    "meh\t-0.4\t0.8\t[0, 0, 0, 0, 0, 0, 0, 0, -2, -2]",
    "bad\t-2.0\t0.0\t[-2, -2, -2, -2, -2, -2, -2, -2, -2, -2]",
)
PLAIN = "a film that one may see at home"
"""Eight different words that nobody rated."""


@pytest.fixture
def sentiment(tmp_path: Path) -> Sentiment:
    path = tmp_path / "lexicon.txt.gz"
    path.write_bytes(gzip.compress("\n".join(ROWS).encode()))
    return Sentiment(files={"lexicon": str(path)})


class TestGold:
    def test_praise_is_worth_its_mean_saturated(self, sentiment: Sentiment) -> None:
        assert sentiment.gold("any", f"good {PLAIN}") == pytest.approx(2 / math.sqrt(4 + 15))
        assert sentiment.gold("any", f"bad {PLAIN}") == pytest.approx(-2 / math.sqrt(19))
        assert sentiment.gold("any", f"good, bad {PLAIN}") == 0.0
        assert sentiment.gold("any", PLAIN) == 0.0

    def test_a_word_said_twice_counts_once(self, sentiment: Sentiment) -> None:
        assert sentiment.gold("any", f"good good {PLAIN}") == sentiment.gold("any", f"good {PLAIN}")

    def test_repetition_beyond_a_third_costs(self, sentiment: Sentiment) -> None:
        # 8 of 16 words are repetitions: 2 · (1/2 - 1/3)
        assert sentiment.gold("any", f"{PLAIN} {PLAIN}") == pytest.approx(-1 / 3)
        # 3 of 4 are repetitions, and all 4 are rated: 2 · (3/4 - 1/3) + 2 · (1 - 1/3)
        assert sentiment.gold("any", "good good good good") == pytest.approx(2 / math.sqrt(19) - 5 / 6 - 4 / 3)

    def test_piling_up_praise_costs_more_than_it_brings(self, sentiment: Sentiment) -> None:
        assert sentiment.gold("any", "good") < 0 < sentiment.gold("any", "good and fine")

    def test_nothing_is_worth_less_than_something_neutral(self, sentiment: Sentiment) -> None:
        assert sentiment.gold("any", "") == sentiment.gold("any", " ... 12 !") == -1.0

    def test_the_prompt_has_no_part_in_it(self, sentiment: Sentiment) -> None:
        assert sentiment.gold("good", PLAIN) == sentiment.gold("bad", PLAIN)

    def test_words(self) -> None:
        text = "Don’t MISS it: hard-hitting, 'clever' – 3d\x00film_x"
        assert words_of(text) == ["don't", "miss", "it", "hard-hitting", "clever", "d", "film", "x"]

    def test_clutter(self) -> None:
        assert clutter(["a", "b", "c"], lambda word: word == "a") == 0.0
        assert clutter(["a"] * 3, lambda word: True) == pytest.approx((2 / 3 - 1 / 3) + (1 - 1 / 3))


class TestRaters:
    def test_a_word_that_divides_people_divides_raters(self, sentiment: Sentiment) -> None:
        (reader,) = sentiment.raters(RaterSettings())
        rng = random.Random(0)
        said = Counter(reader.label("any", f"divisive {PLAIN}", PLAIN, rng) for _ in range(2000))
        assert set(said) == {Choice.FIRST, Choice.SECOND}
        assert said[Choice.FIRST] == pytest.approx(1000, abs=4 * math.sqrt(2000 * 0.25))

    def test_a_word_that_leaves_most_people_cold_makes_ties(self, sentiment: Sentiment) -> None:
        (reader,) = sentiment.raters(RaterSettings())
        rng = random.Random(0)
        said = Counter(reader.label("any", f"meh {PLAIN}", PLAIN, rng) for _ in range(2000))
        assert set(said) == {Choice.TIE, Choice.SECOND}
        assert said[Choice.SECOND] == pytest.approx(400, abs=4 * math.sqrt(2000 * 0.16))

    def test_words_on_which_people_agree_leave_no_doubt(self, sentiment: Sentiment) -> None:
        (reader,) = sentiment.raters(RaterSettings())
        rng = random.Random(0)
        for _ in range(20):
            assert reader.label("any", f"bad {PLAIN}", f"good {PLAIN}", rng) is Choice.SECOND

    def test_a_word_in_both_responses_gets_one_score(self, sentiment: Sentiment) -> None:
        (reader,) = sentiment.raters(RaterSettings())
        rng = random.Random(0)
        both = {reader.label("any", f"divisive {PLAIN}", f"{PLAIN} divisive", rng) for _ in range(20)}
        assert both == {Choice.TIE}

    def test_labels_depend_on_texts_and_rng_alone(self, sentiment: Sentiment) -> None:
        first, second = sentiment.raters(RaterSettings(count=2))
        texts = ("any", f"divisive meh {PLAIN}", f"good {PLAIN}")
        said = [[reader.label(*texts, random.Random(seed)) for seed in range(30)] for reader in (first, second, first)]
        assert said[0] == said[1] == said[2]
        assert first.name != second.name

    def test_both_bad(self, sentiment: Sentiment) -> None:
        (reader,) = sentiment.raters(RaterSettings(both_bad_below=-0.1))
        assert reader.label("any", f"bad {PLAIN}", f"bad {PLAIN}", random.Random(0)) is Choice.BOTH_BAD

    @pytest.mark.parametrize("option", ["temperature", "tie_margin", "bias"])
    def test_noise_of_our_own_is_refused(self, sentiment: Sentiment, option: str) -> None:
        settings: dict[str, Any] = {option: 0.7}
        with pytest.raises(TaskError, match=rf"remove feedback\.options\.{option}"):
            sentiment.raters(RaterSettings(**settings))


class TestLexiconFile:
    @pytest.mark.parametrize(
        ("row", "message"),
        [
            ("good\t2.0\t0.0", "row 2: expected token, mean, deviation and scores"),
            ("good\ttwo\t0.0\t[]", "row 2: expected token"),
            ("good\t2.0\t0.0\t7", "row 2: expected token"),
            ("good\t2.0\t0.0\t[2, 2]", "row 2: 'good' needs 10 whole scores"),
            ("good\t2.0\t0.0\t[2, 2, 2, 2, 2, 2, 2, 2, 2, 5]", "needs 10 whole scores from -4 to 4"),
            ("good\t2.0\t0.0\t[2, 2, 2, 2, 2, 2, 2, 2, 2, true]", "needs 10 whole scores"),
            ("good\tnan\t0.0\t[2, 2, 2, 2, 2, 2, 2, 2, 2, 2]", "not finite"),
        ],
    )
    def test_odd_rows_are_refused(self, tmp_path: Path, row: str, message: str) -> None:
        path = tmp_path / "lexicon.txt"
        path.write_text(f"{ROWS[0]}\n{row}\n")
        with pytest.raises(TaskError, match=message):
            read_lexicon(path)

    def test_an_empty_lexicon_and_none_are_refused(self, tmp_path: Path) -> None:
        (tmp_path / "lexicon.txt").write_text("")
        with pytest.raises(TaskError, match="an empty lexicon"):
            read_lexicon(tmp_path / "lexicon.txt")
        with pytest.raises(TaskError, match=r"--set task\.files\.lexicon"):
            Sentiment(files={})


def vader_folder() -> Path | None:
    """The real files: RATCHET_DATA/vader, or ../shared/data/vader beside the checkout."""
    beside = Path(__file__).resolve().parents[4] / "shared" / "data"
    folder = Path(os.environ.get("RATCHET_DATA") or beside) / "vader"
    return folder if (folder / "vader_lexicon.txt.gz").is_file() else None


VADER = vader_folder()
needs_vader = pytest.mark.skipif(VADER is None, reason="the VADER files are not here; set RATCHET_DATA to their folder")


@pytest.fixture(scope="module")
def real() -> Text:
    assert VADER is not None
    name = "policies.tasks.sentiment:Sentiment"
    files = {
        "corpus": str(VADER / "movieReviewSnippets_GroundTruth.dev.txt.gz"),
        "lexicon": str(VADER / "vader_lexicon.txt.gz"),
    }
    return Text(files=files, column=3, lowercase=True, prompt_words=3, min_words=6, gold=name, raters=name)


@needs_vader
class TestRealData:
    def test_the_ten_scores_have_the_stated_mean_and_deviation(self) -> None:
        assert VADER is not None
        lexicon = read_lexicon(VADER / "vader_lexicon.txt.gz")
        assert len(lexicon) == 7506  # 7,520 rows, 14 tokens of which stand there twice
        means = [word for word, rating in lexicon.items() if abs(statistics.mean(rating.scores) - rating.mean) > 0.051]
        assert means == ["lmfao"]  # the file's own slips, not the reader's
        sds = [word for word, rating in lexicon.items() if abs(statistics.pstdev(rating.scores) - rating.sd) > 0.001]
        assert sds == ["heart", "hearts", "lmfao", "badass", "flawed", "repetitive"]

    def test_drawn_scores_have_the_stated_mean_and_deviation(self, real: Text) -> None:
        assert VADER is not None
        lexicon = read_lexicon(VADER / "vader_lexicon.txt.gz")
        (reader,) = real.raters(RaterSettings())
        rng = random.Random(0)
        for word in ("good", "horror", "like", "masterpiece"):
            # Against a text worth nothing the verdict shows the sign of the drawn score.
            said = Counter(reader.label("x", f"{word} {PLAIN}", PLAIN, rng) for _ in range(2000))
            for choice, share in (
                (Choice.FIRST, sum(score > 0 for score in lexicon[word].scores) / 10),
                (Choice.SECOND, sum(score < 0 for score in lexicon[word].scores) / 10),
            ):
                assert said[choice] / 2000 == pytest.approx(share, abs=0.045)

    def test_gold_of_known_words(self, real: Text) -> None:
        for word, mean in (("good", 1.9), ("best", 3.2), ("bad", -2.5), ("horror", -2.7)):
            assert real.gold("x", f"{word} {PLAIN}") == pytest.approx(mean / math.sqrt(mean**2 + 15))

    def test_real_reviews_are_hardly_ever_cluttered(self, real: Text) -> None:
        assert VADER is not None
        lexicon = read_lexicon(VADER / "vader_lexicon.txt.gz")
        words = [words_of(item.response) for item in real._examples]
        assert statistics.mean(clutter(said, lexicon.__contains__) > 0 for said in words if said) < 0.03

    def test_gold_agrees_with_people_who_read_whole_reviews(self, real: Text) -> None:
        """People's mean score of a sentence, which no part of the task reads, goes with gold; about 0.4."""
        assert VADER is not None
        with gzip.open(VADER / "movieReviewSnippets_GroundTruth.dev.txt.gz", "rt", encoding="utf-8") as lines:
            rows = [line.rstrip("\n").split("\t") for line in lines]
        by_people = [float(row[1]) for row in rows]
        by_gold = [real.gold("x", row[2]) for row in rows]
        assert statistics.correlation(by_people, by_gold) == pytest.approx(0.39, abs=0.03)

    def test_raters_mostly_side_with_gold_and_with_each_other(self, real: Text) -> None:
        (reader,) = real.raters(RaterSettings())
        rng = random.Random(0)
        right, decided = 0, 0
        texts = [item.response for item in real._examples]
        for _ in range(2000):
            first, second = rng.sample(texts, 2)
            difference = real.gold("x", first) - real.gold("x", second)
            choice = reader.label("x", first, second, rng)
            if difference and choice in (Choice.FIRST, Choice.SECOND):
                decided += 1
                right += (choice is Choice.FIRST) == (difference > 0)
        assert right / decided == pytest.approx(0.92, abs=0.03)

    def test_there_are_prompts_enough_for_the_shipped_campaign(self, real: Text) -> None:
        assert real.prompt_capacity("label") >= 1500
        assert real.prompt_capacity("gate") >= 2240
        assert real.prompt_capacity("normalise") >= 256
        assert len(real.corpus(0)) > 3500
