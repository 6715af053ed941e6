"""Workers that cannot be had are refused before anything is started or written for them."""

import os
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
from small_campaigns import CommandLine, Small

from orchestrator.core.settings import ResourceSettings
from orchestrator.errors import ConfigError, WorkFailedError
from workers import room
from workers.room import require_resources

GIB = 1024**3


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """2 CPUs, 64 GiB, 2 GPUs: nothing else of the machine matters here."""
    monkeypatch.setattr(room, "cpus_here", lambda: 2)
    monkeypatch.setattr(os, "sysconf", {"SC_PHYS_PAGES": 64 * GIB // 4096, "SC_PAGE_SIZE": 4096}.__getitem__)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"workers": 8}, None),
        ({"workers": 9}, r"resources\.workers: 9, .* takes 8 "),
        ({"gpus_per_worker": 2}, None),
        ({"gpus_per_worker": 2, "workers": 2}, r"resources\.gpus_per_worker: 2 for each of 2 workers.* room for 1;"),
        ({"gpus_per_worker": 3}, r"resources\.gpus_per_worker: 3, and this machine has 2 GPUs"),
        ({"gpus_per_worker": 1.5}, r"resources\.gpus_per_worker: 1\.5; above 1"),
        ({"gpus_per_worker": 0.5, "workers": 4}, None),
        ({"gpus_per_worker": 0.5, "workers": 5}, r"room for 4;"),
        ({"gpus_per_worker": 0.6, "workers": 2}, None),
        ({"gpus_per_worker": 0.6, "workers": 3}, r"room for 2;"),
    ],
)
@pytest.mark.usefixtures("machine")
def test_what_this_machine_has_room_for(asked: dict[str, Any], told: str | None) -> None:
    resources = ResourceSettings(address="local", **asked)
    if told is None:
        require_resources(resources)
    else:
        with pytest.raises(ConfigError, match=told):
            require_resources(resources)


@pytest.mark.usefixtures("machine")
def test_memory_bounds_the_workers_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sysconf", {"SC_PHYS_PAGES": 2 * GIB // 4096, "SC_PAGE_SIZE": 4096}.__getitem__)
    require_resources(ResourceSettings(address="local", workers=4))
    with pytest.raises(ConfigError, match=r"2 GiB\) takes 4 "):
        require_resources(ResourceSettings(address="local", workers=5))


@pytest.mark.parametrize("form", ["{}", "ray://{}", "auto"])
def test_an_address_where_nobody_answers(monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        there = f"127.0.0.1:{taken.getsockname()[1]}"
        monkeypatch.setenv("RAY_ADDRESS", there)
        require_resources(ResourceSettings(address=form.format(there)))
    with pytest.raises(WorkFailedError, match=rf"{there}: Connection refused; .* resources\.address"):
        require_resources(ResourceSettings(address=form.format(there)))


@pytest.mark.parametrize(
    ("resources", "code", "told"),
    [
        ({"address": "127.0.0.1:1"}, 1, "resources.address"),
        ({"address": "local", "workers": 100_000}, 2, "resources.workers: 100000"),
        ({"address": "local", "gpus_per_worker": 64.0}, 2, "resources.gpus_per_worker: 64"),
    ],
)
def test_nothing_is_written_for_what_is_refused(
    small: Small, command_line: CommandLine, tmp_path: Path, resources: dict[str, Any], code: int, told: str
) -> None:
    ended = command_line(tmp_path, "campaign", "start", str(small.file(resources=resources)))
    (error,) = [line for line in ended.stderr.splitlines() if line.startswith("error: ")]
    assert (ended.code, told in error) == (code, True), ended.stderr
    assert not (tmp_path / "home").exists()


def test_a_run_may_ask_for_no_more_either(small: Small, command_line: CommandLine, tmp_path: Path) -> None:
    campaign = small.campaign()
    for override in ("resources.workers=100000", "resources.gpus_per_worker=64"):
        local = ("--set", "resources.address=local", "--set", override)
        ended = command_line(tmp_path, "campaign", "resume", "small", *local)
        assert (ended.code, override.partition("=")[0] in ended.stderr) == (2, True), ended.stderr
    assert campaign.types == ["campaign_created"]
