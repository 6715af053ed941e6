"""Where the view differs from the ledger. Reads MLflow and changes nothing; `Tracker.repair` puts things right."""

from collections.abc import Iterator, Mapping, Sequence

from orchestrator.core.envelope import StoredEvent
from orchestrator.core.events import parse
from orchestrator.core.history import fold
from orchestrator.core.state import CampaignState
from orchestrator.core.verification import Problem
from orchestrator.tracking.mlflow_view import ALIAS, View
from orchestrator.tracking.tags import (
    ATTEMPT,
    CURSOR,
    LEDGER,
    VERDICT_TAGS,
    campaign_tags,
    cursor_of,
    shown_tags,
    verdict_tags,
    version_tags,
)


def drifts(campaign: str, events: Sequence[StoredEvent], view: View) -> Iterator[Problem]:
    tags = campaign_tags(campaign, events[0])
    run = view.find_run(tags)
    if run is None:
        yield Problem("run", "the campaign has no run in MLflow")
        return
    cursor, head = cursor_of(run.data.tags), events[-1].seq
    if cursor is None or cursor > head:
        yield Problem("cursor", f"it reads {run.data.tags[CURSOR]!r}, the ledger ends at event {head}")
        cursor = head
    elif cursor < head:
        yield Problem("cursor", f"the view is {head - cursor} events behind the ledger")
    state = fold(parse(event) for event in events[: cursor + 1])
    yield from _drifted_attempts(state, tags, view)
    yield from _drifted_model(campaign, state, tags, view)


def _drifted_attempts(state: CampaignState, tags: Mapping[str, str], view: View) -> Iterator[Problem]:
    runs = {run.data.tags.get(ATTEMPT): run.data.tags for run in view.find_runs(tags)}
    for attempt in state.attempts:
        place = attempt.place
        shown = runs.get(place)
        if shown is None:
            yield Problem(place, "the attempt has no run in MLflow")
            continue
        told = shown_tags(verdict_tags(attempt))
        for tag, what in VERDICT_TAGS.items():
            if shown.get(tag) != told.get(tag):
                yield Problem(place, f"MLflow shows the {what} {shown.get(tag)!r}, the ledger {told.get(tag)!r}")


def _drifted_model(campaign: str, state: CampaignState, tags: Mapping[str, str], view: View) -> Iterator[Problem]:
    name = view.registered_model(campaign, tags[LEDGER], create=False)
    if name is None:
        if state.advances:
            yield Problem("model", "no approved checkpoint is registered in MLflow")
        return
    version = None
    for advance in range(1, state.advances + 1):
        version = view.find_version(name, version_tags(state, advance))
        if version is None:
            yield Problem(f"model {name}", f"approved checkpoint {advance} has no version in MLflow")
    shown = view.aliased(name)
    if shown != version:
        where = "nothing" if shown is None else f"version {shown}"
        right = "nothing is approved" if version is None else f"the ledger approves version {version}"
        yield Problem(f"alias {ALIAS} of {name}", f"it points to {where}; {right}")
