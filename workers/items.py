"""From a written spec to an event body: the one door to all work. Runs in any process."""

import time

import torch

from orchestrator.core import work as wk
from orchestrator.core.events import EventBody
from orchestrator.errors import RatchetError, WorkFailedError
from orchestrator.ports import Claim, WorkDone
from policies.errors import PolicyError
from workers.base_model import prepare_base, take_candidate
from workers.bench import Bench
from workers.checks import draw_checks
from workers.comparisons import draw_comparisons, draw_direction, draw_path, rate
from workers.evaluation import evaluate
from workers.learning import fit_reward_model, train_policy


def run(work: wk.Work, claim: Claim, bench: Bench) -> WorkDone:
    """Do the work and say what it took.

    Raises:
        WorkFailedError: it cannot be done; retryable if another try may help.
        IntegrityError: an artifact that it needs is damaged or missing.
    """
    began = time.perf_counter()
    try:
        body = _run(work, bench)
    except RatchetError:
        raise
    except torch.OutOfMemoryError as error:
        raise WorkFailedError(f"{work.WHAT}: out of GPU memory; lower phase.prompts_per_step") from error
    except PolicyError as error:
        raise WorkFailedError(f"{work.WHAT}: {error}") from error
    except (Exception, SystemExit) as error:  # a plug-in raises what it likes: the campaign pauses with the cause
        raise WorkFailedError(f"{work.WHAT}: {error!r}") from error
    busy = time.perf_counter() - began
    if (costs := getattr(body, "costs", None)) is not None:
        body = body.model_copy(update={"costs": costs.model_copy(update={"compute_seconds": busy})})
    return WorkDone(claim, body, busy)


def _run(work: wk.Work, bench: Bench) -> EventBody:
    match work:
        case wk.PrepareBase():
            return prepare_base(work, bench)
        case wk.TakeCandidate():
            return take_candidate(work, bench)
        case wk.DrawComparisons():
            return draw_comparisons(work, bench)
        case wk.DrawDirection():
            return draw_direction(work, bench)
        case wk.DrawPath():
            return draw_path(work, bench)
        case wk.DrawChecks():
            return draw_checks(work, bench)
        case wk.Rate():
            return rate(work, bench)
        case wk.FitRewardModel():
            return fit_reward_model(work, bench)
        case wk.RunPhase():
            return train_policy(work, bench)
        case wk.Evaluate():
            return evaluate(work, bench)
    raise WorkFailedError(f"no worker knows how to do {type(work).__name__}; this is a bug in Ratchet")
