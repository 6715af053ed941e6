"""What refuses a candidate without any statistics: a win rate hides a bad tail, and some limits are not for averaging.

Each function gives the reasons, in words with their numbers; none: no veto. A missing measurement is a veto where one
is due: it fails closed.
"""

from collections.abc import Sequence

from orchestrator.core.events import TripwireRate
from orchestrator.core.gate import PanelResult
from orchestrator.core.panels import raters_per_item
from orchestrator.core.records import Choice, Harm, Label, Purpose
from orchestrator.core.settings import ChecksSettings, TripwireSettings, VetoSettings
from orchestrator.core.state import Attempt, Batch, CampaignState


def of_phase(attempt: Attempt, settings: VetoSettings) -> tuple[str, ...]:
    """What is known when the phase ends: how far the candidate went."""
    allowed, budget, kl = settings.kl_overrun, attempt.kl_budget_nats, attempt.kl_nats
    if allowed is None or budget is None or kl is None or kl <= allowed * budget:
        return ()
    return (f"sequence KL {kl:.2f} nats, over {allowed:g} times the phase's budget of {budget:g}",)


def of_samples(batch: Batch, settings: VetoSettings) -> tuple[str, ...]:
    """What the gate's sealed responses show before anybody reads them: length and tripwires."""
    vetoes = []
    ours, theirs = batch.candidate_tokens_mean, batch.opponent_tokens_mean
    ratio = settings.length_ratio
    # Where the approved policy says nothing, a word is no exploit.
    if ratio is not None and ours is not None and theirs is not None and ours > ratio * max(theirs, 1.0):
        vetoes.append(f"responses of {ours:.1f} tokens against {theirs:.1f}: over {ratio:g} times as long")
    measured = {rate.name: rate for rate in batch.tripwires}
    vetoes.extend(
        told for tripwire in settings.tripwires if (told := _tripped(tripwire, measured.get(tripwire.name))) is not None
    )
    return tuple(vetoes)


def _tripped(tripwire: TripwireSettings, rate: TripwireRate | None) -> str | None:
    if rate is None:
        return f"tripwire {tripwire.name} was not measured"
    if rate.candidate - rate.opponent <= tripwire.increase:
        return None
    return (
        f"tripwire {tripwire.name} in {rate.candidate:.1%} of the candidate's responses against {rate.opponent:.1%}, "
        f"over {tripwire.increase:.1%} more"
    )


def of_labels(
    state: CampaignState, batch: Batch, panels: Sequence[PanelResult], settings: VetoSettings
) -> tuple[str, ...]:
    """What the labels that passed a candidate say besides: responses that will not do, and harm.

    Only what was judged counts: words on further items must not thin it out.
    """
    judged = {panel.purpose: panel.labels for panel in panels}
    judged.setdefault(Purpose.AUDIT, judged.get(Purpose.GATE, 0))  # one without a say sees what the gate judged
    labels = batch.entered(state.feedback.raters_per_item, judged.get(Purpose.GATE, 0))
    vetoes = []
    # Of a given pair of models nothing is known from before.
    if settings.both_bad_increase is not None and state.candidate is None:
        now, before = _both_bad(labels), _both_bad(_last_labels_of_approved(state))
        if now - before > settings.both_bad_increase:
            vetoes.append(
                f"neither response would do in {now:.1%} of the comparisons, against {before:.1%} when the approved "
                f"policy was compared; over {settings.both_bad_increase:.1%} more"
            )
    if settings.harm_increase is not None:
        for queue in _against_others(state, batch):
            words = queue.entered(raters_per_item(queue, state), judged.get(queue.purpose, 0))
            ours, theirs = harm_rates(queue, words)
            if ours - theirs > settings.harm_increase:
                vetoes.append(
                    f"{queue.purpose.value}: {ours:.1%} of the candidate's responses flagged as harmful against "
                    f"{theirs:.1%} of the other policy's; over {settings.harm_increase:.1%} more"
                )
    return tuple(vetoes)


def _against_others(state: CampaignState, gate: Batch) -> tuple[Batch, ...]:
    """The queues of an attempt in which the candidate stands against another policy, its audit among them."""
    return tuple(
        batch
        for batch in state.batches
        if batch.purpose in (Purpose.GATE, Purpose.CREEP_BASE, Purpose.CREEP_OLDER, Purpose.AUDIT)
        and (batch.stage, batch.attempt) == (gate.stage, gate.attempt)
    )


def harm_rates(batch: Batch, labels: Sequence[Label]) -> tuple[float, float]:
    """Share of labels that flag the candidate's response, and the opponent's."""
    ours = theirs = 0
    for label in labels:
        first = label.harm in (Harm.FIRST, Harm.BOTH)
        second = label.harm in (Harm.SECOND, Harm.BOTH)
        candidate_first = batch.candidate_first[label.item]
        ours += first if candidate_first else second
        theirs += second if candidate_first else first
    return ours / max(len(labels), 1), theirs / max(len(labels), 1)


def of_raters(
    state: CampaignState, attempt: Attempt, checks: ChecksSettings, *, still_labelling: bool
) -> tuple[str, ...]:
    """Raters of this attempt who failed too many of their checks: their labels cannot carry a verdict.

    While a rater has check items to come, only so many failures count as these could not make good any more.
    """
    return tuple(
        f"rater {rater} failed {failed} of {answered} check items, over {checks.failures:.0%}"
        for rater, (answered, failed) in sorted(check_results(state, attempt).items())
        if failed > checks.failures * (checks.items if still_labelling else answered)
    )


def check_results(state: CampaignState, attempt: Attempt) -> dict[str, tuple[int, int]]:
    """By rater, check items answered and failed."""
    batch = state.panel(attempt, Purpose.CHECKS)
    results: dict[str, tuple[int, int]] = {}
    for label in batch.labels if batch is not None else ():
        answered, failed = results.get(label.rater, (0, 0))
        wrong = batch is not None and label.choice is not batch.expected[label.item]
        results[label.rater] = (answered + 1, failed + wrong)
    return results


def checks_due(state: CampaignState, attempt: Attempt, rater: str, checks: ChecksSettings, *, labels: int = 1) -> int:
    """Check items that a rater must have answered before the next `labels` of theirs on this attempt's gate count."""
    said = sum(
        batch.labels.count_by(rater)
        for batch in state.panels(attempt)
        if batch.purpose not in (Purpose.CHECKS, Purpose.AUDIT)
    )
    return min((said + labels - 1) // (checks.every - 1) + 1, checks.items)


def _both_bad(labels: Sequence[Label]) -> float:
    return sum(label.choice is Choice.BOTH_BAD for label in labels) / max(len(labels), 1)


def _last_labels_of_approved(state: CampaignState) -> tuple[Label, ...]:
    """Of the gate that passed the approved checkpoint, as far as they were judged; of the initial batch, on both sides
    of which the base stands."""
    passed = next((attempt for attempt in reversed(state.attempts) if attempt.advanced), None)
    batch = state.gate_batch(passed) if passed is not None else state.batch(Purpose.INITIAL.value)
    if batch is None:
        return ()
    panels = passed.verdict.panels if passed is not None and passed.verdict is not None else ()
    judged = next((panel.labels for panel in panels if panel.purpose is Purpose.GATE), batch.count)
    return batch.entered(state.feedback.raters_per_item, judged)
