"""Reports as one self-contained HTML file: no script, nothing loaded, and model text that can do nothing.

Three walls keep what a model wrote inert: `visible` spells out controls and bidi marks, Jinja2 escapes every value,
and the page's Content-Security-Policy lets nothing run or load. A report is a view of the ledger: it has no clock and
no dice of its own, so that equal ledgers give equal pages.
"""

import os
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from orchestrator import gate_words, views
from orchestrator.artifacts import ArtifactStore
from orchestrator.core.envelope import Head
from orchestrator.core.nulls import is_win_rate
from orchestrator.core.settings import CampaignSettings
from orchestrator.core.state import CampaignState
from orchestrator.disk import refusals_reported, sync_directory
from orchestrator.errors import StorageError
from orchestrator.lineage import trace
from orchestrator.report import figures, gate_figures, story
from orchestrator.report.drawing import NARROW_IN, SHADES, WIDE_IN, to_svg
from orchestrator.report.reading import Reader
from orchestrator.text import visible

TEMPLATES: Final = Path(__file__).parent / "templates"
MAX_CHARACTERS: Final = 1500
"""Shown of one text; the rest is counted."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A figure, drawn once for a column and once for a phone; the page shows the one that fits."""

    wide: Markup
    narrow: Markup
    caption: str


def campaign_page(state: CampaignState, settings: CampaignSettings, head: Head, artifacts: ArtifactStore) -> str:
    """The report of one campaign, whatever it has come to."""
    reader = Reader(artifacts)
    pictures = _campaign_pictures(state, settings, reader)
    return _render(
        "campaign.html",
        shown=views.campaign(state, settings, head),
        state=state,
        settings=settings,
        pictures=pictures,
        gates=_gate_pictures(state, settings),
        samples=reader.samples(state, settings),
        lineage=trace(state, state.approved) if state.approved is not None else [],
        restored=_restored(state),
        gaps=reader.gaps,
    )


def demo_page(result: Mapping[str, Any], arms: figures.Arms, *, artifacts: ArtifactStore | None = None) -> str:
    """The report of `ratchet demo`: the arms side by side, and the tax.

    Args:
        result: the document of `ratchet demo --json`.
        artifacts: where the first arm's samples and proxy curves lie; without them, the page has neither.
    """
    first, (state, settings) = next(iter(arms.items()))
    reader = Reader(artifacts) if artifacts is not None else None
    return _render(
        "demo.html",
        result=result,
        arms=arms,
        first=first,
        state=state,
        target=figures.target_of(result),
        pictures=_demo_pictures(result, arms),
        course=_campaign_pictures(state, settings, reader),
        samples=reader.samples(state, settings) if reader is not None else (),
        gaps=reader.gaps if reader is not None else [],
    )


def write_page(path: Path, html: str) -> None:
    """Put a page in its place as a whole: whoever opens it sees the old one or the new one.

    Raises:
        StorageError: the place cannot be written to.
    """
    try:
        with refusals_reported(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            _replace(path, html.encode())
    except (FileExistsError, IsADirectoryError) as error:
        raise StorageError(f"{path}: {error.strerror}; choose another file with --out") from error


def _replace(path: Path, data: bytes) -> None:
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with open(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(name)
        raise
    sync_directory(path.parent)


def _campaign_pictures(state: CampaignState, settings: CampaignSettings, reader: Reader | None) -> dict[str, Picture]:
    if not state.attempts:
        return {}
    steps = reader.steps(state) if reader is not None else {}
    pictures = {
        "course": _picture(
            f"{settings.name} over time",
            partial(figures.campaign_over_time, state, settings, steps),
            f"Gold, proxy reward and KL by RL step over {story.counted(len(state.attempts), 'attempt')}. "
            + "; ".join(f"{told.place}: {told.outcome}" for told in story.attempts_told(state)),
            "Each band is an attempt. A cross is a candidate that was refused, and the arrow behind it the jump back "
            "to the approved checkpoint; a dot is one that was approved. The blue line is the approved checkpoint's "
            "own gold, its whiskers and shade one standard error. Gold trains nothing and gates nothing."
            + _unmeasured(state),
        )
    }
    if any(attempt.verdict is not None and attempt.verdict.tests for attempt in state.attempts):
        pictures["gate"] = _picture(
            f"{settings.name} at the gate",
            partial(figures.gate_picture, state),
            "The gate's means and bounds by attempt against their limits; the table below holds the same numbers.",
            "A line runs from the mean on the labels (dot: test passed; cross: not) to its confidence bound, which "
            "holds at any number of labels. The bound must come to lie in the shaded part.",
        )
    return pictures


def _gate_pictures(state: CampaignState, settings: CampaignSettings) -> dict[str, Picture]:
    """By place, each attempt that labels speak of; under `budget` the error budget, where there is one to spend."""
    pictures = {}
    for attempt in state.attempts:
        if story.was_questioned(attempt):
            pictures[attempt.place] = _picture(
                f"{settings.name} {attempt.place} at the gate",
                partial(gate_figures.attempt_at_the_gate, attempt),
                " ".join(story.gate_read_out(attempt)),
                story.gate_caption(state, attempt),
            )
    if settings.protocol.gates:
        pictures["budget"] = _picture(
            f"{settings.name}, its error budget",
            partial(gate_figures.error_budget, state),
            story.account_told(state),
            "Each block is what one attempt's gate may wrongly pass with: filled, it was approved; hatched, rolled "
            "back. Nothing gives it back.",
        )
    return pictures


def _demo_pictures(result: Mapping[str, Any], arms: figures.Arms) -> dict[str, Picture]:
    target = figures.target_of(result)
    told = " ".join(story.arm_told(arm, shown) for arm, shown in result["arms"].items())
    by_resource = {
        resource: _picture(
            f"deployed gold by {resource}",
            partial(figures.deployed_gold, arms, resource, target),
            f"Gold of the deployable checkpoint against {resource} spent. {told}",
            f"What could be deployed after so many {resource}, with one standard error. A fall is a worse policy put "
            "into service.",
        )
        for resource in ("labels", "samples")
    }
    return by_resource | {
        "steps": _picture(
            "gold by step",
            partial(figures.gold_by_step, arms, target),
            f"Gold of the rollouts by RL step, one panel an arm. {told}",
            "Every reward model would have these curves rise. Dashed parts with a cross are attempts that were rolled "
            "back and never deployed.",
        ),
        "tax": _picture(
            "robustness tax",
            partial(figures.tax_bars, result["tax"]),
            "Robustness tax. " + "; ".join(story.tax_told(name, tax) for name, tax in result["tax"].items()),
            "Cost of the ratchet over cost of online RLHF, up to the first deployable checkpoint at the target.",
        ),
    }


def _picture(name: str, draw: Callable[[float], Figure], alt: str, caption: str) -> Picture:
    wide, narrow = (
        Markup(to_svg(draw(width), name=f"{name}, {width} in", alt=alt))  # our own drawing; its texts are escaped
        for width in (WIDE_IN, NARROW_IN)
    )
    return Picture(wide, narrow, caption)


def _unmeasured(state: CampaignState) -> str:
    if all(attempt.steps for attempt in state.attempts):
        return ""
    return " An attempt without a finished phase has a narrow band, whose width means nothing."


def _restored(state: CampaignState) -> list[dict[str, Any]]:
    """Per starting point, the digests that were found in memory when it was restored: one, if rollback is exact."""
    found: dict[str, list[str]] = {}
    for attempt in state.attempts:
        if attempt.start_digest is not None:
            found.setdefault(attempt.start, []).append(attempt.start_digest)
    return [
        {"start": start, "times": len(digests), "digests": sorted(set(digests))} for start, digests in found.items()
    ]


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": story.number, "percent": story.percent, "counted": story.counted}
    environment.globals |= {"story": story, "figures": figures, "words": gate_words, "is_win_rate": is_win_rate}
    environment.globals |= {"shades": SHADES, "sign": _sign}
    return environment


def _shown(value: Any) -> Any:
    """Every value on its way onto the page: unknown is a dash, and text is only ever text."""
    if value is None:
        return "–"
    if isinstance(value, str) and not isinstance(value, Markup):
        return visible(value, MAX_CHARACTERS)
    return value


def _sign(passed: bool) -> str:
    return "passed" if passed else "not passed"


def _render(template: str, **values: Any) -> str:
    return _environment().get_template(template).render(**values) + "\n"
