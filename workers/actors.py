"""The workers' port on Ray: persistent actors, each a process that does one whole work item at a time.

The only file that imports ray. Ray decides where an item runs and tells when a worker died; it carries specs and
event bodies, never tensors, and holds no state that matters: whatever dies with it, the ledger repeats.
"""

import contextlib
import json
import logging
import os
import queue
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Read when ray is imported. Else any call after a shutdown joins whatever cluster it finds on the machine, and waits
# there for an answer that nobody gives.
os.environ["RAY_ENABLE_AUTO_CONNECT"] = "0"

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayError, RayTaskError

from orchestrator.artifacts import ArtifactStore
from orchestrator.core.work import Work
from orchestrator.errors import RatchetError, WorkFailedError
from orchestrator.ports import Claim, Progress, WorkDone
from workers import items
from workers.bench import Bench
from workers.local import device, prepare_process

POLL_SECONDS = 0.1
START_TIMEOUT_SECONDS = 120.0
HEAD_EVERY_SECONDS = HEAD_TIMEOUT_SECONDS = 5.0
HEAD_MISSES = 3
PROGRESS_EVERY_SECONDS = 0.2


class Worker:
    """One process at one bench."""

    def __init__(self, artifact_root: Path, progress_root: Path, threads: int) -> None:
        prepare_process(threads)
        self._artifacts = ArtifactStore(artifact_root)
        self._progress_root = progress_root

    def ready(self) -> str:
        """Name the device, once the process is up."""
        return str(device())

    def run(self, work: Work, claim: Claim) -> WorkDone:
        teller = _ProgressFile(self._progress_root / f"{claim.campaign}.json")
        return items.run(work, claim, Bench(self._artifacts, device(), teller))


class RayWorkers:
    """A pool of actors on a cluster of this machine, or of the given address. Safe to share between threads."""

    def __init__(
        self,
        artifact_root: Path,
        progress_root: Path,
        *,
        address: str,
        count: int,
        threads: int = 1,
        gpus_per_worker: float = 0.0,
    ) -> None:
        """Start or join the cluster and wait until every actor is up.

        The folders must be the same files on every node of the cluster.

        Raises:
            WorkFailedError: the cluster cannot be reached, or has no room for the actors.
        """
        self._folders = (artifact_root, progress_root, threads)
        self._progress_root = progress_root
        self._closed = threading.Event()
        _connect(address, count)
        _require_room(count, gpus_per_worker)
        self._actor = ray.remote(num_cpus=1, num_gpus=gpus_per_worker)(Worker)
        self._idle: queue.Queue[Any] = queue.Queue()
        actors = [self._start() for _ in range(count)]
        try:
            ray.get([actor.ready.remote() for actor in actors], timeout=START_TIMEOUT_SECONDS)
        except (GetTimeoutError, RayError) as error:
            raise WorkFailedError(
                f"Ray at {address!r} did not start {count} workers ({type(error).__name__}); "
                "see `ratchet doctor`, or set resources.address: in_process"
            ) from error
        for actor in actors:
            self._idle.put(actor)
        # Of ray://, the client's own connection is the one that counts.
        self._head = None if address.startswith("ray://") else str(ray.get_runtime_context().gcs_address)

    def run(self, work: Work, claim: Claim, progress: Progress) -> WorkDone:
        """As the port says. After a KeyboardInterrupt the item runs on and answers nobody: close the pool."""
        actor = self._idle.get()
        try:
            self._require_open()
            heard = _ProgressReader(self._progress_root / f"{claim.campaign}.json", progress)
            reference = actor.run.remote(work, claim)
            head = _Head(self._head) if self._head is not None else None
            while not ray.wait([reference], timeout=POLL_SECONDS)[0]:
                self._require_open()
                heard.poll()
                if head is not None:
                    head.require()
            done: WorkDone = ray.get(reference)
            return done
        except RayTaskError as error:
            if isinstance(error.cause, RatchetError):
                raise error.cause from None
            raise WorkFailedError(f"{work.WHAT}: {error.cause!r}") from error
        except RayActorError as error:
            self._require_open()
            told = f"{work.WHAT}: the worker died ({type(error).__name__})"
            actor = self._start()
            if not self._comes_up(actor):
                ray.kill(actor)  # whoever is given it next tries again
                raise WorkFailedError(
                    f"{told}, and Ray started no other within {START_TIMEOUT_SECONDS:g} s: has the cluster still room "
                    "for it? Resume when it has"
                ) from error
            raise WorkFailedError(f"{told}; is memory short?", retryable=True) from error
        except (RayError, AttributeError) as error:  # AttributeError: a call into a Ray that was shut down meanwhile
            self._require_open()
            raise WorkFailedError(f"{work.WHAT}: {type(error).__name__}", retryable=True) from error
        finally:
            self._idle.put(actor)

    def close(self) -> None:
        """End the actors, whatever they are doing; threads that wait for one get an error."""
        self._closed.set()
        ray.shutdown()

    def _require_open(self) -> None:
        if self._closed.is_set():
            raise WorkFailedError("the workers were closed; go on with `ratchet campaign resume`")

    def _start(self) -> Any:
        return self._actor.remote(*self._folders)

    def _comes_up(self, actor: Any) -> bool:
        """Wait for a replacement, in which a closing may break in."""
        ready, end = actor.ready.remote(), time.monotonic() + START_TIMEOUT_SECONDS
        while not ray.wait([ready], timeout=POLL_SECONDS)[0]:
            self._require_open()
            if time.monotonic() > end:
                return False
        try:
            ray.get(ready)
        except RayError:
            return False
        return True


def _connect(address: str, count: int) -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        with _own_signals():
            _init(address, count)
    except (ConnectionError, RayError, ValueError, RuntimeError) as error:
        raise WorkFailedError(
            f"no Ray cluster at {address!r}: {str(error).splitlines()[0]}; check resources.address"
        ) from error


def _init(address: str, count: int) -> None:
    if address == "local":
        ray.init(
            address="local",
            num_cpus=count,
            include_dashboard=False,
            logging_level=logging.ERROR,
            log_to_driver=False,
        )
    else:
        ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False)


@contextlib.contextmanager
def _own_signals() -> Iterator[None]:
    """Keep this process's own answer to SIGTERM, which Ray replaces twice: in Python by an exit, below it by an abort.

    What Ray starts meanwhile is deaf to SIGHUP: a closed terminal tells its whole foreground group, and a cluster that
    died of it would take this process along before it has paused.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    ours = signal.getsignal(signal.SIGTERM)
    heard = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, ours)
        signal.pthread_sigmask(signal.SIG_SETMASK, heard)


def _require_room(count: int, gpus_per_worker: float) -> None:
    """Ray would wait for ever for resources that no node has."""
    there = ray.cluster_resources()
    for resource, wanted, keys in (
        ("CPU", float(count), "resources.workers"),
        ("GPU", count * gpus_per_worker, "resources.gpus_per_worker or resources.workers"),
    ):
        if there.get(resource, 0.0) < wanted:
            ray.shutdown()
            raise WorkFailedError(
                f"the Ray cluster has {there.get(resource, 0.0):g} {resource}, {count} workers need {wanted:g}; "
                f"lower {keys}"
            )


class _Head:
    """Whether the cluster's head still takes connections.

    Ray itself looks for a lost one for a minute, then ends this process with a log line of its own and nothing on the
    ledger: this comes first.
    """

    def __init__(self, address: str) -> None:
        self._address = address
        self._next = 0.0
        self._missed = 0

    def require(self) -> None:
        """Look every few seconds.

        Raises:
            WorkFailedError: it did not answer several times in a row.
        """
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + HEAD_EVERY_SECONDS
        host, _, port = self._address.rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), HEAD_TIMEOUT_SECONDS).close()
            self._missed = 0
        except OSError as error:
            self._missed += 1
            if self._missed == HEAD_MISSES:
                raise WorkFailedError(
                    f"the head of the Ray cluster ({self._address}) does not answer any more; resume when it does"
                ) from error


class _ProgressFile:
    """Says how far a worker is, in a file that is replaced whole and seldom."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._last = 0.0

    def __call__(self, done: int, total: int, message: str) -> None:
        now = time.monotonic()
        if now - self._last < PROGRESS_EVERY_SECONDS and done < total:
            return
        self._last = now
        fresh = self._path.with_suffix(f".{os.getpid()}")
        with contextlib.suppress(OSError):  # nobody's work fails for want of a progress bar
            fresh.write_text(json.dumps([done, total, message]))
            fresh.replace(self._path)


class _ProgressReader:
    """Reads that file, and passes on what is new."""

    def __init__(self, path: Path, progress: Progress) -> None:
        self._path = path
        self._progress = progress
        self._last = ""
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)

    def poll(self) -> None:
        try:
            text = self._path.read_text()
            if text != self._last:
                done, total, message = json.loads(text)
                self._last = text
                self._progress(int(done), int(total), str(message))
        except (OSError, ValueError):
            return
