"""Named places where a crash test may kill the process. They do nothing unless the environment arms one.

`RATCHET_FAILPOINT=ledger.before_commit:kill@3` sends SIGKILL at the third hit of that place: no handler runs, no
buffer is flushed, as when the machine's memory runs out.
"""

from __future__ import annotations

import itertools
import os
import re
import signal

_VARIABLE = "RATCHET_FAILPOINT"


def _armed() -> tuple[str, int]:
    text = os.environ.get(_VARIABLE, "")
    if not text:
        return "", 0
    match = re.fullmatch(r"([a-z_.]+):kill@([1-9][0-9]*)", text)
    if match is None:
        # A misspelt fail point would let a crash test pass without a crash.
        raise ValueError(f"{_VARIABLE}={text!r}: expected NAME:kill@N, as in ledger.before_commit:kill@1")
    return match[1], int(match[2])


_name, _fatal_hit = _armed()
_hits = itertools.count(1)


def hit(name: str) -> None:
    """Die here if the environment says so."""
    if name == _name and next(_hits) == _fatal_hit:
        os.kill(os.getpid(), signal.SIGKILL)
