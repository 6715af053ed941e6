from __future__ import annotations

import inspect
import pickle
import subprocess
import sys

import pytest

from orchestrator import errors
from orchestrator.errors import RatchetError, WorkFailedError

CLASSES = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, RatchetError)]


@pytest.mark.parametrize("kind", CLASSES)
def test_errors_cross_processes(kind: type[RatchetError]) -> None:
    copy = pickle.loads(pickle.dumps(kind("cause; action")))
    assert type(copy) is kind
    assert str(copy) == "cause; action"


def test_retryable_crosses_processes() -> None:
    assert pickle.loads(pickle.dumps(WorkFailedError("x", retryable=True))).retryable
    assert not WorkFailedError("x").retryable


def test_exit_codes_are_the_contract() -> None:
    by_code = {
        2: (
            "CampaignExistsError",
            "ConfigError",
            "ConflictError",
            "NotFoundError",
            "UnknownCampaignError",
            "UsageError",
        ),
        5: ("ArtifactCorruptError", "ArtifactMissingError", "IntegrityError", "LedgerCorruptError"),
        11: ("LockedError", "StaleEpochError"),
    }
    named = {name: code for code, names in by_code.items() for name in names}
    assert {kind.__name__: kind.exit_code for kind in CLASSES if kind.exit_code != 1} == named


def test_import_is_light() -> None:
    script = "import sys; before = set(sys.modules); import orchestrator.errors; print(*set(sys.modules) - before)"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert {name.partition(".")[0] for name in loaded} <= sys.stdlib_module_names | {"orchestrator"}
