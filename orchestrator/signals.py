"""SIGTERM and SIGHUP end a command as Ctrl-C does: a KeyboardInterrupt in the main thread, and its cause in words.

Whoever catches the interrupt asks here for the cause: an exception's own words do not survive Ray's calls.
"""

import contextlib
import os
import signal
from types import FrameType
from typing import Final

_WORDS: Final = {
    signal.SIGTERM: "terminated (SIGTERM)",
    signal.SIGHUP: "the terminal was closed (SIGHUP)",
}
_heard: list[signal.Signals] = []


def hear_signals() -> None:
    """Turn the first SIGTERM or SIGHUP into a KeyboardInterrupt, from now on; main thread only.

    What is ignored stays ignored, as under nohup. Those that follow the first are ignored: a supervisor sends both, and
    the second must not break off the pause that the first one began. SIGKILL and Ctrl-C end it as ever.
    """
    _heard.clear()
    terminals = [descriptor for descriptor in (1, 2) if os.isatty(descriptor)]

    def interrupt(number: int, frame: FrameType | None) -> None:
        if _heard:
            return
        _heard.append(signal.Signals(number))
        for descriptor in terminals:
            if not os.isatty(descriptor):  # closed: words for it would fail, and with them the pause
                with contextlib.suppress(OSError):
                    _discard(descriptor)
        raise KeyboardInterrupt

    for number in _WORDS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, interrupt)


def signal_heard() -> str | None:
    """What ends this process, in words; None where it is Ctrl-C or nothing."""
    return _WORDS[_heard[0]] if _heard else None


def _discard(descriptor: int) -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, descriptor)
    finally:
        os.close(nowhere)
