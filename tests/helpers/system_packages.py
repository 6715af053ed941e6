"""What the suite asks of the system: `make test` skips by name what it lacks, `make ci` (RATCHET_CI=1) fails instead.

A test skips with a reason that begins with one of `LACKS`; pytest's hooks below read it. What no package brings
(real data, user namespaces) is skipped everywhere.
"""

import os
from collections.abc import Generator
from typing import Final, TypeVar

import pytest

LACKS: Final = ("needs a PostgreSQL", "needs a browser", "could not import")

Report = TypeVar("Report", pytest.TestReport, pytest.CollectReport)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    return _judged((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    return _judged((yield))


def _judged(report: Report) -> Report:
    if os.environ.get("RATCHET_CI") and report.skipped and isinstance(report.longrepr, tuple):
        reason = report.longrepr[2].removeprefix("Skipped: ")
        if reason.startswith(LACKS):
            report.outcome = "failed"
            report.longrepr = f"{reason}; here nothing may be missing: run .ci/packages"
    return report
