"""The null hypotheses that the gate questions, each on one sealed queue of comparisons. One table for all who ask them
or tell of them: `questions` makes each from its queue, `orchestrator.gate_words` has the words for people.

Z in {0, 1/2, 1} is the outcome of a comparison for the candidate's side, P what was promised of it, D = P - Z the
over-promise. There are two kinds of null:

    win rate       H0: E[Z] <= even         even = 1/2, or 0.03 less for the hold test
    over-promise   H0: E[D] >= limit
"""

from dataclasses import dataclass
from typing import Final

from orchestrator.core.records import Purpose


@dataclass(frozen=True, slots=True)
class Null:
    queue: Purpose
    figure: str
    """What is estimated, as the reasons of a verdict name it."""
    is_win_rate: bool = False
    """A win rate's lower bound must come to lie above the limit, an over-promise's upper bound below."""


IMPROVEMENT: Final = "improvement"
OVER_PROMISES: Final = ("over_promise", "over_promise_top_half")
TESTS: Final = {
    # Candidate against approved; P is the reward model's prediction. The second over-promise is that of the half of the
    # queue with the largest P, so that a reward model cannot pass by claiming one half everywhere.
    IMPROVEMENT: Null(Purpose.GATE, "win rate", is_win_rate=True),
    OVER_PROMISES[0]: Null(Purpose.GATE, "over-promise"),
    OVER_PROMISES[1]: Null(Purpose.GATE, "over-promise"),
    # Best against worst of a candidate's samples, by the reward model; P is its prediction.
    "direction": Null(Purpose.DIRECTION, "win rate of best over worst", is_win_rate=True),
    "direction_over_promise": Null(Purpose.DIRECTION, "over-promise"),
    # Rollouts drawn by reward paid, against the start's samples; P = 1, so that D is the share of it paid to wrong
    # behaviour.
    "wrong_reward": Null(Purpose.PATH, "share of reward paid to wrong behaviour"),
    # Candidate against an older checkpoint.
    "creep_base": Null(Purpose.CREEP_BASE, "win rate against the base", is_win_rate=True),
    "creep_older": Null(Purpose.CREEP_OLDER, "win rate against an older checkpoint", is_win_rate=True),
    # P is what the raters said, Z what the better evaluator says.
    "audit": Null(Purpose.AUDIT, "raters' favour beyond the better evaluator's"),
}


def asked_of(queue: Purpose) -> tuple[str, ...]:
    """What is asked of a queue; of a gate whose candidate nothing was promised of, the improvement alone."""
    return tuple(test for test, null in TESTS.items() if null.queue is queue)


def is_win_rate(test: str) -> bool:
    """False of a test that is not known here, too."""
    return test in TESTS and TESTS[test].is_win_rate
