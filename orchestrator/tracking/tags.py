"""The tags by which what a ledger holds is found again in MLflow.

No I/O and nothing of MLflow's own: the rest of the package reads and writes these tags.
"""

import re
from collections.abc import Mapping
from typing import Final

from orchestrator.core.envelope import StoredEvent
from orchestrator.core.state import Attempt, CampaignState
from orchestrator.text import visible

LEDGER: Final = "ratchet.ledger"
"""Hash of the first event, by which a campaign is known: two homes may use one server and one name."""
CAMPAIGN: Final = "ratchet.campaign"
ATTEMPT: Final = "ratchet.attempt"
CURSOR: Final = "ratchet.seq"
VERDICT_TAGS: Final = {"ratchet.verdict": "verdict", "ratchet.vetoes": "vetoes", "ratchet.causes": "causes"}
"""What a verdict leaves on its attempt's run, and its name for people."""

LONGEST: Final = 5000
"""Characters of a tag that MLflow keeps."""


def campaign_tags(campaign: str, first: StoredEvent) -> dict[str, str]:
    return {CAMPAIGN: campaign, LEDGER: first.hash}


def version_tags(state: CampaignState, advance: int) -> dict[str, str]:
    deployed = state.deployments[advance]
    return {
        "ratchet.digest": deployed.checkpoint,
        "ratchet.parent": deployed.parent or "",
        "ratchet.advance": str(advance),
    }


def verdict_tags(attempt: Attempt) -> dict[str, str]:
    """What the gate said of an attempt; none before it has."""
    if attempt.verdict is None:
        return {}
    causes = attempt.attribution.causes if attempt.attribution is not None else ()
    return {
        "ratchet.verdict": attempt.verdict.verdict.value,
        "ratchet.vetoes": "; ".join(attempt.verdict.vetoes),
        "ratchet.causes": ", ".join(cause.value for cause in causes),
    }


def shown_tags(tags: Mapping[str, object]) -> dict[str, str]:
    """The tags as MLflow takes them, and as people may read them: some were written by people."""
    return {key: visible(str(value), LONGEST)[:LONGEST] for key, value in tags.items()}


def cursor_of(tags: Mapping[str, str]) -> int | None:
    """The cursor among the tags of a campaign's run: -1 if none was written yet, None if it is no number."""
    text = tags.get(CURSOR, "-1")
    return int(text) if re.fullmatch(r"-1|\d{1,18}", text) else None
