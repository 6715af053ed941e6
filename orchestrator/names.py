"""Names that people give and that become parts of file names."""

from __future__ import annotations

from orchestrator.core.settings import problem_of_campaign_name
from orchestrator.errors import UsageError


def checked_campaign_name(name: str) -> str:
    """Return the name if a campaign may have it.

    Raises:
        UsageError: for what `CampaignSettings.name` refuses, in the same words.
    """
    if (problem := problem_of_campaign_name(name)) is not None:
        raise UsageError(f"campaign name {name[:80]!r} is not allowed: {problem}")
    return name
