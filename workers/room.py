"""Whether the workers that a campaign asks for can be had: asked before any of them is started.

Ray would try for minutes, or start what this machine cannot hold.
"""

import os
import re
import socket
from typing import Final

import torch

from orchestrator.core.settings import ResourceSettings
from orchestrator.errors import ConfigError, WorkFailedError

WORKERS_PER_CPU: Final = 4
"""More than one does no harm but to speed: what waits for a disk or another worker leaves its CPU to the next."""
WORKER_BYTES: Final = 512 * 1024**2
"""What a worker's process takes up before it has loaded a model: torch, transformers and Ray."""
CONNECT_SECONDS: Final = 10.0
_AT: Final = re.compile(r"(?:ray://)?(?P<host>\[[^\[\]]+\]|[^:/\[\]]+):(?P<port>\d{1,5})")


def cpus_here() -> int:
    """Logical CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def require_resources(resources: ResourceSettings) -> None:
    """Start nothing, and look whether it is worth starting.

    Raises:
        ConfigError: this machine has no room for so many workers, or not the GPUs for them.
        WorkFailedError: nobody answers at the cluster's address.
    """
    if resources.address == "local":
        _require_room_here(resources)
    elif resources.address != "in_process":
        _require_answer(resources.address)


def _require_room_here(resources: ResourceSettings) -> None:
    workers, cpus = resources.workers, cpus_here()
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    most = min(WORKERS_PER_CPU * cpus, max(1, memory // WORKER_BYTES))
    if workers > most:
        raise ConfigError(
            f"resources.workers: {workers}, and this machine ({cpus} CPUs, {memory / 1024**3:.0f} GiB) takes {most} "
            "processes at most; lower it"
        )
    wanted = resources.gpus_per_worker
    if not wanted:
        return
    gpus = torch.cuda.device_count()
    if wanted > gpus:
        raise ConfigError(
            f"resources.gpus_per_worker: {wanted:g}, and this machine has {gpus} GPUs that torch can use; "
            "lower it (0: work runs on the CPU)"
        )
    if wanted > 1 and wanted != int(wanted):
        raise ConfigError(f"resources.gpus_per_worker: {wanted:g}; above 1, only whole numbers can be had")
    room = gpus * int(1 / wanted) if wanted < 1 else gpus // int(wanted)  # none is shared out over two GPUs
    if workers > room:
        raise ConfigError(
            f"resources.gpus_per_worker: {wanted:g} for each of {workers} workers, and this machine's {gpus} GPUs "
            f"have room for {room}; lower it or resources.workers"
        )


def _require_answer(address: str) -> None:
    """Knock where a host and a port are named; other addresses are Ray's to find."""
    named = _AT.fullmatch(os.environ.get("RAY_ADDRESS", "") if address == "auto" else address)
    if named is None:
        return
    try:
        socket.create_connection((named["host"].strip("[]"), int(named["port"])), CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise WorkFailedError(
            f"no Ray cluster answers at {named[0]}: {getattr(error, 'strerror', None) or error}; "
            "start one with `ray start --head`, or correct resources.address"
        ) from error
