"""How the error budget alpha is spent over a campaign's stages and attempts.

What is left is divided by the stages left, and a stage's share evenly among the attempts that it may use. An
attempt spends its share when its gate opens; what a stage leaves over carries to the next. The shares of one
lineage sum to at most alpha, whatever happened before, so by the union bound P(any wrong approval) <= alpha.
Nothing gives spent budget back: not a rollback, not a resume.
"""

from collections.abc import Sequence


def attempt_alpha(
    total: float, spent_before_stage: Sequence[float], *, stage: int, stages: int, attempts: int
) -> float:
    """Error budget of each attempt of `stage`.

    Args:
        total: alpha of the whole campaign.
        spent_before_stage: what every gate opened in earlier stages spent.
        stage: from 0; the stage about to run.
    """
    left = max(total - sum(spent_before_stage), 0.0)
    return left / (stages - stage) / attempts
