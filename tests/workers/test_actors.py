"""The workers on a real Ray cluster of this machine: the same digests, and a death in the middle of work."""

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from small_campaigns import Campaign, Small

from orchestrator.core import work as wk
from orchestrator.core.records import EndedBy
from orchestrator.core.work import Work
from orchestrator.errors import ArtifactMissingError, WorkFailedError
from orchestrator.ports import Claim
from orchestrator.runner import Watcher
from workers import actors
from workers.actors import RayWorkers, _Head, ray

CLAIM = Claim("small", "c", 1)


@pytest.fixture(scope="module", autouse=True)
def _local_ray() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "disabled")
        yield


class Cluster:
    """One pool of workers at one home, shared by the tests of this module; each has a campaign of its own there."""

    def __init__(self, made: Small) -> None:
        self.small = made
        self.home = made.campaign("shared", name="unused").home
        self.workers = RayWorkers(
            self.home.artifact_root.resolve(), self.home.progress.resolve(), address="local", count=1
        )

    def campaign(self, name: str) -> Campaign:
        return self.small.campaign("shared", name=name)


@pytest.fixture(scope="module")
def cluster(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    made = Small(tiny_base, tmp_path_factory.mktemp("ray"))
    shared = Cluster(made)
    yield shared
    shared.workers.close()
    made.close()


def worker_processes() -> list[int]:
    """The processes of this cluster's actors."""
    return [
        process.pid
        for process in psutil.Process().children(recursive=True)
        if process.name().startswith("ray::Worker") or "ray::Worker" in " ".join(process.cmdline()[:1])
    ]


def evaluation(base: str, campaign: Campaign, **changes: Any) -> wk.Evaluate:
    settings = campaign.settings
    return wk.Evaluate(**{"seed": 5, "task": settings.task, "checkpoint": base, "prompts": 8,
                          "max_response_tokens": 12, **changes})  # fmt: skip


def test_a_campaign_ends_as_it_does_in_one_process(cluster: Cluster, undisturbed: Small) -> None:
    campaign = cluster.campaign("same")
    assert campaign.run(cluster.workers).state.ended_by is EndedBy.STAGES_COMPLETED
    assert campaign.digest == undisturbed.reopen().digest


def test_a_killed_worker_is_replaced_and_its_item_repeated(
    cluster: Cluster, undisturbed: Small, caplog: pytest.LogCaptureFixture
) -> None:
    campaign = cluster.campaign("killed")
    killed: list[int] = []

    def kill_during_the_phase(work: Work) -> None:
        if isinstance(work, wk.RunPhase) and not killed:
            killed.extend(worker_processes())
            assert len(killed) == 1
            threading.Timer(0.15, os.kill, (killed[0], signal.SIGKILL)).start()

    campaign.run(cluster.workers, watcher=Watcher(on_work=kill_during_the_phase))
    assert "the worker died" in caplog.text
    assert "trying again" in caplog.text
    assert killed[0] not in worker_processes()
    assert campaign.digest == undisturbed.reopen().digest


def test_errors_keep_their_class(cluster: Cluster) -> None:
    campaign = cluster.campaign("errors")
    with pytest.raises(ArtifactMissingError, match="ratchet checkpoint verify") as missing:
        cluster.workers.run(evaluation("a" * 64, campaign), CLAIM, lambda *_: None)
    assert missing.value.exit_code == 5
    task = campaign.settings.task.model_copy(update={"kind": "json:Nothing"})
    with pytest.raises(WorkFailedError, match="Nothing") as failed:
        cluster.workers.run(evaluation("a" * 64, campaign, task=task), CLAIM, lambda *_: None)
    assert not failed.value.retryable


def test_a_dead_worker_that_nothing_replaces_is_told(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """No process comes up in no time, as none does where the cluster has no room. Later there is time, and work goes
    on."""
    campaign = cluster.campaign("unreplaced")
    missing = "a" * 64
    (pid,) = worker_processes()
    os.kill(pid, signal.SIGKILL)
    with monkeypatch.context() as patch:
        patch.setattr(actors, "START_TIMEOUT_SECONDS", 0.0)
        with pytest.raises(WorkFailedError, match=r"died .* started no other within 0 s") as failed:
            cluster.workers.run(evaluation(missing, campaign), CLAIM, lambda *_: None)
    assert not failed.value.retryable
    with pytest.raises(WorkFailedError, match="died") as failed:
        cluster.workers.run(evaluation(missing, campaign), CLAIM, lambda *_: None)
    assert failed.value.retryable
    with pytest.raises(ArtifactMissingError):
        cluster.workers.run(evaluation(missing, campaign), CLAIM, lambda *_: None)


def test_a_lost_head_is_told_before_ray_ends_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """A port stands for the head; it must be missed three times in a row."""
    monkeypatch.setattr(actors, "HEAD_EVERY_SECONDS", 0.0)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        head = _Head(f"127.0.0.1:{port}")
        head.require()
    head.require()
    head.require()
    with socket.create_server(("127.0.0.1", port)):
        head.require()
    head.require()
    head.require()
    with pytest.raises(WorkFailedError, match=rf"127\.0\.0\.1:{port}\) does not answer"):
        head.require()


class Controller:
    """`ratchet campaign resume` on a cluster of its own, with a terminal of its own, at work that has no end."""

    def __init__(self, small: Small) -> None:
        seedling = {"width": 32, "layers": 1, "heads": 2, "steps": 10**8}
        self.campaign = small.campaign(resources={"address": "local"}, base={"model": None, "seedling": seedling})
        words = ["ratchet", "--home", str(small.folder / "home"), "campaign", "resume", "small"]
        self.terminal, theirs = os.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-c", ON_ITS_TERMINAL, *words], stdin=theirs, stdout=theirs, stderr=theirs
        )
        os.close(theirs)
        self.said = ""

    def read_until(self, met: Callable[[], bool]) -> None:
        """Raises OSError where it ends before."""
        while not met():
            if select.select([self.terminal], [], [], 0.1)[0]:
                self.said += os.read(self.terminal, 4096).decode(errors="replace")

    def read_until_at_work(self) -> None:
        self.read_until(lambda: "controller_started" in self.campaign.types)

    def code(self) -> int:
        try:
            return self.process.wait(timeout=120)
        finally:
            self.process.kill()


ON_ITS_TERMINAL = """
import fcntl, os, sys, termios
os.setsid()
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
sys.argv = sys.argv[1:]
from orchestrator.cli.main import main
main()
"""


def test_a_terminated_controller_pauses_its_campaign(small: Small) -> None:
    controller = Controller(small)
    controller.read_until_at_work()
    controller.process.send_signal(signal.SIGTERM)
    with contextlib.suppress(OSError):
        controller.read_until(lambda: False)
    os.close(controller.terminal)
    assert controller.code() == 130
    assert "go on with: ratchet campaign resume small" in controller.said
    assert controller.said.splitlines()[-1] == "terminated (SIGTERM)"
    assert "Traceback" not in controller.said
    assert controller.campaign.state.why_paused == "terminated (SIGTERM)"


def test_a_closed_terminal_pauses_its_campaign(small: Small) -> None:
    """The whole foreground group is told, Ray's processes with it, and nothing can be written any more."""
    controller = Controller(small)
    controller.read_until_at_work()
    os.close(controller.terminal)
    assert controller.code() == 130
    assert controller.campaign.state.why_paused == "the terminal was closed (SIGHUP)"


def test_close_ends_a_wait_at_once(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last test of the module: nothing works afterwards."""
    campaign = cluster.campaign("closed")
    base = wk.PrepareBase(
        seed=1, task=campaign.settings.task, base={"seedling": {"width": 64, "layers": 2, "steps": 100_000}}
    )
    raised: list[BaseException] = []

    def wait() -> None:
        try:
            cluster.workers.run(base, CLAIM, lambda *_: None)
        except BaseException as error:
            raised.append(error)

    waiting, queueing = threading.Thread(target=wait), threading.Thread(target=wait)
    waiting.start()
    queueing.start()
    time.sleep(1.0)
    assert waiting.is_alive()
    cluster.workers.close()
    waiting.join(60)
    queueing.join(60)
    assert not waiting.is_alive()
    assert not queueing.is_alive()
    assert [type(error) for error in raised] == [WorkFailedError, WorkFailedError]
    with pytest.raises(WorkFailedError, match="closed"):
        cluster.workers.run(base, CLAIM, lambda *_: None)
    monkeypatch.setattr(cluster.workers, "_require_open", lambda: None)  # closed between the question and the call
    with pytest.raises(WorkFailedError):
        cluster.workers.run(base, CLAIM, lambda *_: None)
    assert not ray.is_initialized(), "it joined a cluster by itself"
