"""What a person sees while a campaign runs: one line an event that matters, and a bar for the work under way."""

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from orchestrator import gate_words
from orchestrator.core import events as ev
from orchestrator.core.events import Event
from orchestrator.core.records import Verdict
from orchestrator.core.settings import Advance
from orchestrator.core.state import CampaignState
from orchestrator.core.work import Rate, Work
from orchestrator.counting import counted
from orchestrator.runner import Watcher
from orchestrator.text import one_line


class Screen:
    """A live display on stderr, shared by all campaigns of a command; plain lines where there is no terminal."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[note]}", markup=False),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def watcher(self, campaign: str, *, first_seq: int = 0) -> Watcher:
        """Show the events of `campaign` from `first_seq` on, and its work."""
        bar = self._progress.add_task(campaign, total=None, note="")
        sealed: dict[str, int] = {}

        def on_event(event: Event, state: CampaignState) -> None:
            if isinstance(event.body, ev.ComparisonsDrawn):
                sealed[state.batches[-1].id] = event.body.count
            line = describe(event, state) if event.seq >= first_seq else None
            if line is not None:
                self._console.print(Text.assemble((f"{campaign:>10}  ", "dim"), _styled(event, line)), soft_wrap=True)

        def on_work(work: Work) -> None:
            what = work.WHAT
            if isinstance(work, Rate) and work.batch in sealed:
                what = labelling(work.batch, work.first, sealed[work.batch])
            self._progress.reset(bar, description=f"{campaign}: {what}", total=None, note="")

        def on_progress(done: int, total: int, message: str) -> None:
            self._progress.update(bar, completed=done, total=total, note=one_line(message, 60))

        return Watcher(on_event=on_event, on_work=on_work, on_progress=on_progress)


def labelling(batch: str, done: int, sealed: int) -> str:
    """How far the labels of a queue have come: `labelling: direction 40/200`."""
    purpose = batch.rsplit(".", 1)[-1]
    return f"labelling: {gate_words.queue_words(purpose)} {done}/{sealed}"


def labels_came(event: Event, state: CampaignState) -> str | None:
    """Whether these labels bring their queue another fifth of its way, and to where; None if not."""
    body = event.body
    if not isinstance(body, ev.LabelsRecorded) or (batch := state.batch(body.batch)) is None:
        return None
    before = batch.labels[: len(batch.labels) - len(body.labels)]
    then, now = (len({label.item for label in labels}) for labels in (before, batch.labels))
    return labelling(batch.id, now, batch.count) if 5 * then // batch.count < 5 * now // batch.count else None


def describe(event: Event, state: CampaignState) -> str | None:
    """The event in a line for people; None where it is not worth one."""
    body = event.body
    ungated = state.protocol.advance is Advance.ALWAYS
    match body:
        case ev.BaseReady():
            return f"base model ready: {body.parameters:,} parameters, {body.checkpoint[:12]}"
        case ev.Evaluated() if body.stage is None:
            return f"base gold {_figure(body.gold_mean)}"
        case ev.Evaluated():
            return (
                f"{_place(body)} gold {_figure(body.gold_mean)} ± {_figure(body.gold_se)} (seen by no part of the loop)"
            )
        case ev.ComparisonsDrawn():
            return f"{body.count} {body.purpose.value} comparisons sealed"
        case ev.RewardModelFitted():
            return (
                f"{_place(body)} reward model fitted on {counted(body.labels, 'label')}, "
                f"held-out accuracy {body.accuracy:.2f} [{body.accuracy_low:.2f}, {body.accuracy_high:.2f}]"
            )
        case ev.PhaseFinished():
            return (
                f"{_place(body)} phase: {body.steps} steps, reward {body.proxy:+.2f}, "
                f"KL {body.kl_nats:.2f} nats, stopped by {body.stopped_by}"
            )
        case ev.CandidateTaken():
            promised = f", promised by {body.reward_model[:12]}" if body.reward_model else ""
            return f"{_place(body)} candidate taken in: {body.parameters:,} parameters, {body.candidate[:12]}{promised}"
        case ev.PhaseFailed():
            name = f" ({body.failure})" if body.failure else ""
            return f"{_place(body)} phase failed{name}: {body.why}"
        case ev.VerdictGiven(decision=decision) if ungated and decision.verdict is Verdict.ADVANCE:
            return None
        case ev.VerdictGiven():
            return f"{_place(body)} gate: {_verdict(body)}"
        case ev.DecisionMade(reviewer=reviewer) if reviewer == state.automatic_reviewer:
            return None
        case ev.DecisionMade():
            return f"{body.reviewer}: {body.decision.value} {body.candidate[:12]}" + _because(event.reason)
        case ev.RolledBack():
            return f"{_place(body)} rolled back to {body.to[:12]}"
        case ev.Advanced() if ungated:
            return f"{_place(body)} deployed without a gate: {body.approved[:12]}"
        case ev.Advanced():
            return f"{_place(body)} advanced: approved checkpoint is now {body.approved[:12]}"
        case ev.Paused():
            return f"paused: {body.why}"
        case ev.Finished():
            spent = f"{counted(state.advances, 'advance')}, {counted(state.labels.total, 'label')}"
            return f"finished: {body.ended_by.value} after {spent}"
    return None


def _verdict(body: ev.VerdictGiven) -> str:
    """Why it refused, or on how much it passed; and who over-credited, where that stands out."""
    decision = body.decision
    told = "; ".join(decision.reasons)
    if decision.verdict is Verdict.ADVANCE and decision.tests:
        queues = ", ".join(f"{gate_words.queue_words(panel.purpose)} {panel.labels}" for panel in decision.panels)
        passed = f"all {len(decision.tests)} tests" if len(decision.tests) > 1 else "the test"
        told = f"{passed} passed on {counted(decision.labels, 'label')} ({queues})"
    if body.attribution is not None and body.attribution.causes:
        told += f"; {next(gate_words.attribution_told(body.attribution.model_dump(mode='json')))}"
    return f"{decision.verdict.value.upper()}; {told}"


def _place(body: ev.EventBody) -> str:
    return f"[{getattr(body, 'stage', None)}.{getattr(body, 'attempt', None)}]"


def _figure(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.2f}"


def _because(reason: str) -> str:
    return f" ({reason})" if reason else ""


def _styled(event: Event, line: str) -> Text:
    match event.body:
        case ev.Advanced():
            style = "bold green"
        case ev.RolledBack() | ev.PhaseFailed() | ev.Paused():
            style = "bold yellow"
        case ev.VerdictGiven(decision=decision):
            style = "green" if decision.verdict is Verdict.ADVANCE else "yellow"
        case _:
            style = ""
    return Text(one_line(line), style=style)
