"""Whole campaigns in seconds, for tests: real models, real files, a real ledger.

The smallest campaign has one stage of two attempts under `advance: once`: the first attempt is there to be learned
from and opens no gate, the second is always approved (see `split_rater`), so every kind of event happens, whatever the
policy learns. The task's gold audits what the raters judged, and has no say.
"""

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import yaml

from orchestrator.campaigns import create
from orchestrator.core import events as ev
from orchestrator.core.events import Event, parse
from orchestrator.core.records import Choice, Costs, Label, Role
from orchestrator.core.settings import CampaignSettings
from orchestrator.core.state import Batch, CampaignState, state_digest
from orchestrator.core.work import PrepareBase
from orchestrator.home import Home
from orchestrator.ports import Claim, Workers
from orchestrator.review.desk import Desk
from orchestrator.review.identity import Person
from orchestrator.review.office import Office, pause, stop
from orchestrator.runner import Outcome, Runner, Watcher, draft, read_state_at
from orchestrator.store.ledger import Ledger

RATER = f"{Path(__file__).parent / 'split_rater.py'}:SplitRater"
TASK = {"kind": "memo", "options": {"keys": 5, "asked": 2, "examples": 2000}}
PEOPLE = {"rater": "people"}

Says = Callable[[Batch, int], Choice]
"""What a person says of an item of a batch."""


def for_the_candidate(batch: Batch, item: int) -> Choice:
    """Prefers the candidate at the gate, which nobody but a test can know; the first response elsewhere."""
    return Choice.FIRST if not batch.candidate_first or batch.candidate_first[item] else Choice.SECOND


def against_the_candidate(batch: Batch, item: int) -> Choice:
    return Choice.SECOND if not batch.candidate_first or batch.candidate_first[item] else Choice.FIRST


def document(base: Path, /, **changes: Any) -> dict[str, Any]:
    """The smallest campaign file; keyword arguments replace values, or keys of a section."""
    made: dict[str, Any] = {
        "name": "small",
        "seed": 5,
        "task": TASK,
        "base": {"model": str(base)},
        "protocol": {"advance": "once", "stages": 1, "attempts": 2},
        "phase": {"steps": 2, "prompts_per_step": 4, "samples_per_prompt": 4, "max_response_tokens": 12},
        "reward_model": {"members": 2, "epochs": 1},
        "feedback": {"rater": RATER, "initial_labels": 40, "labels_per_round": 20},
        "gate": {
            "alpha": 0.99,
            "over_promise_limit": 0.9,
            "max_labels": 80,
            "labels_per_look": 40,
            # asked where there are several stages
            "direction": {"max_labels": 20, "best_of": 2, "over_promise_limit": 0.9},
            "path": {"max_labels": 20, "wrong_reward_limit": 0.9},
            "creep": {"max_labels": 20},
        },
        "approval": {"by": "gate"},
        "evaluation": {"prompts": 8},
        "resources": {"address": "in_process"},
        "tracking": {"mlflow": "none"},
    }
    for section, value in changes.items():
        old = made.get(section)
        made[section] = {**old, **value} if isinstance(old, dict) and isinstance(value, dict) else value
    return made


def with_people(**changes: Any) -> dict[str, Any]:
    """Changes to `document` for a campaign that people label and approve, advancing on agreement."""
    return {
        "protocol": {"advance": "until_agreement", **changes.pop("protocol", {})},
        "feedback": {**PEOPLE, "labels_per_round": 0, **changes.pop("feedback", {})},
        "approval": {"by": "person", **changes.pop("approval", {})},
        "gate": {"max_labels": 40, **changes.pop("gate", {})},
        **changes,
    }


def grow_base(folder: Path) -> Path:
    """Grow a seedling by the very work item that a campaign uses; gives its folder."""
    from workers.local import InProcessWorkers

    settings = CampaignSettings.model_validate(
        document(folder, base={"model": None, "seedling": {"width": 32, "layers": 1, "heads": 2, "steps": 150}})
    )
    home = Home(folder)
    work = PrepareBase(seed=0, task=settings.task, base=settings.base)
    done = InProcessWorkers(home.artifact_root).run(work, Claim("base", "base", 1), lambda *_: None)
    assert isinstance(done.body, ev.BaseReady)
    return home.artifacts().open(done.body.checkpoint)


@dataclass
class Campaign:
    """A campaign in a home, with the ledger open."""

    home: Home
    settings: CampaignSettings
    ledger: Ledger

    @property
    def name(self) -> str:
        return self.settings.name

    @property
    def state(self) -> CampaignState:
        return read_state_at(self.ledger, self.name)[0]

    @property
    def digest(self) -> str:
        return state_digest(self.state)

    @property
    def events(self) -> list[Event]:
        return [parse(stored) for stored in self.ledger.events(self.name)]

    @property
    def types(self) -> list[str]:
        return [event.body.TYPE for event in self.events]

    def workers(self) -> Workers:
        from workers.local import InProcessWorkers

        return InProcessWorkers(self.home.artifact_root)

    def runner(self, workers: Workers | None = None, **options: Any) -> Runner:
        return Runner(
            self.name,
            ledger=self.ledger,
            artifacts=self.home.artifacts(),
            workers=workers if workers is not None else self.workers(),
            **options,
        )

    def run(self, workers: Workers | None = None, *, watcher: Watcher | None = None, now: Any = None) -> Outcome:
        return self.runner(workers, watcher=watcher, **({"now": now} if now else {})).run()

    @property
    def office(self) -> Office:
        return Office(self.ledger, self.home.artifacts(), self.name)

    def desk(self, person: str = "ann", roles: Iterable[Role] = tuple(Role)) -> Desk:
        """The desk of somebody who may do everything, unless it is said what."""
        return Desk(self.office, Person(person, f"c-{person}", frozenset((role, None) for role in roles)))

    def pause(self, reason: str) -> None:
        pause(self.office, reason, author="ann")

    def stop(self, reason: str) -> None:
        stop(self.office, reason, author="ann")

    def label(
        self, says: Says = for_the_candidate, *, person: str = "ann", items: Iterable[int] | None = None
    ) -> Batch:
        """Label what is asked for, in one event, as an import would; gives the batch."""
        batch = self.desk(person).open_batch()
        assert batch is not None
        wanted = range(batch.count) if items is None else items
        labels = tuple(Label(item=item, rater=person, choice=says(batch, item)) for item in wanted)
        body = ev.LabelsRecorded(batch=batch.id, labels=labels, credential="c-test")
        self.ledger.append(self.name, [draft(body, f"{batch.id}.bulk.{person}", author=person)], epoch=None)
        return batch

    def run_until_candidate(self, says: Says = for_the_candidate) -> str:
        """Run and label until a candidate waits for a decision; gives its digest."""
        for _ in range(10):
            self.run()
            attempt = self.desk().candidate()
            if attempt is not None:
                assert attempt.candidate is not None
                return attempt.candidate
            self.label(says)
        raise AssertionError("no candidate came up for a decision")

    def checkpoint_file(self, digest: str, name: str = "model.safetensors") -> Path:
        return self.home.artifact_root / digest[:2] / digest / name


@dataclass
class Small:
    """Makes campaigns; the keyword arguments are changes to `document`."""

    base: Path
    folder: Path
    _open: list[Ledger] = field(default_factory=list)

    def settings(self, **changes: Any) -> CampaignSettings:
        return CampaignSettings.model_validate(document(self.base, **changes))

    def campaign(self, home: str = "home", **changes: Any) -> Campaign:
        """Create a campaign; nothing runs yet."""
        settings = self.settings(**changes)
        place = Home(self.folder / home)
        create(settings, place, author="tester")
        return self.reopen(home, settings)

    def reopen(self, home: str = "home", settings: CampaignSettings | None = None) -> Campaign:
        place = Home(self.folder / home)
        ledger = place.ledger()
        self.adopt(ledger)
        return Campaign(place, settings if settings is not None else self.settings(), ledger)

    def adopt(self, ledger: Ledger) -> None:
        """Close this one, too."""
        self._open.append(ledger)

    def file(self, name: str = "small.yaml", **changes: Any) -> Path:
        """Write a campaign file."""
        path = self.folder / name
        path.write_text(yaml.safe_dump(document(self.base, **changes), sort_keys=False))
        return path

    def close(self) -> None:
        while self._open:
            self._open.pop().close()


def total_costs(events: Iterable[Event]) -> Costs:
    """Add up what events say that work cost, the base's growing aside, without asking the fold."""
    totals: dict[str, float] = dict.fromkeys(Costs.model_fields, 0)
    for event in events:
        if isinstance(event.body, ev.BaseReady) or not hasattr(event.body, "costs"):
            continue
        for name in totals:
            totals[name] += getattr(event.body.costs, name)
    return Costs.model_validate(totals)


def later(**much: float) -> Callable[[], datetime]:
    """A clock that runs ahead."""
    return lambda: datetime.now(UTC) + timedelta(**much)


# --- the command line, warm --------------------------------------------------------------------------------

WARM = """
import importlib, json, os, signal, sys, traceback
import torch, transformers
torch.set_num_threads(1)
import orchestrator.cli.campaign, orchestrator.cli.review, orchestrator.cli.ledger, orchestrator.cli.checkpoint
import orchestrator.assembly, orchestrator.campaigns, orchestrator.config, orchestrator.tracking
import workers.local
from orchestrator import failpoints
from orchestrator.cli.main import main
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

for line in sys.stdin:
    order = json.loads(line)
    pid = os.fork()
    if pid == 0:
        code = 70
        try:
            for descriptor, path, flags in (
                (0, order["stdin"], os.O_RDONLY),
                (1, order["stdout"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC),
                (2, order["stderr"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC),
            ):
                os.dup2(os.open(path, flags, 0o600), descriptor)
            sys.stdin, sys.stdout, sys.stderr = (open(n, mode, closefd=False) for n, mode in enumerate("rww"))
            signal.signal(signal.SIGINT, signal.default_int_handler)
            os.environ.update(order["environment"])
            os.chdir(order["folder"])
            importlib.reload(failpoints)
            sys.argv = ["ratchet", *order["arguments"]]
            main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    print(json.dumps(pid), flush=True)
    print(json.dumps(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])), flush=True)
"""
"""Imports everything once, with one thread, then forks a child for each command: as good as a fresh process."""


@dataclass(frozen=True)
class Ended:
    """A command that has ended."""

    code: int
    """Negative: the signal that killed it."""
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        return json.loads(self.stdout)


class Running:
    """A command under way."""

    def __init__(self, line: "CommandLine", pid: int, stdout: Path, stderr: Path) -> None:
        self._line, self.pid, self._stdout, self._stderr = line, pid, stdout, stderr
        self._ended: Ended | None = None

    @property
    def over(self) -> bool:
        return self._ended is not None

    def said(self) -> str:
        """What it has written on stderr so far."""
        return self._stderr.read_text()

    def ended_within(self, seconds: float) -> bool:
        return bool(self._ended or select.select([self._line.answers], [], [], seconds)[0])

    def send(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def wait(self) -> Ended:
        if self._ended is None:
            code = int(self._line.answers.readline())
            self._ended = Ended(code, self._stdout.read_text(), self._stderr.read_text())
        return self._ended


class CommandLine:
    """Runs `ratchet` commands one after another."""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-c", WARM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
        )
        assert self._process.stdout is not None
        self.answers = self._process.stdout
        self._last: Running | None = None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=60)
        self.answers.close()

    def start(self, folder: Path, *arguments: str, stdin: str = "", **environment: str) -> Running:
        """Begin a command in `folder`, with its home in `folder`/home unless the arguments name another."""
        self._end_what_a_failed_test_left()
        given, stdout, stderr = folder / ".stdin", folder / ".stdout", folder / ".stderr"
        given.write_text(stdin)
        for words in (stdout, stderr):
            words.write_text("")  # the command before may have written there what the caller waits for
        stdout.touch()
        stderr.touch()
        order = {
            "arguments": arguments,
            "folder": str(folder),
            "environment": {"RATCHET_HOME": str(folder / "home"), "COLUMNS": "200", **environment},
            "stdin": str(given),
            "stdout": str(stdout),
            "stderr": str(stderr),
        }
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order).encode() + b"\n")
        self._last = Running(self, int(self.answers.readline()), stdout, stderr)
        return self._last

    def _end_what_a_failed_test_left(self) -> None:
        if self._last is not None and not self._last.over:
            if not self._last.ended_within(0):
                self._last.send(signal.SIGKILL)
            self._last.wait()

    def __call__(self, folder: Path, *arguments: str, stdin: str = "", **environment: str) -> Ended:
        return self.start(folder, *arguments, stdin=stdin, **environment).wait()
