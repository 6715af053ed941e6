"""How much one person, or one stranger's address, may ask of the server: token buckets, kept in memory."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

MANY_KEYS: Final = 10_000
"""Buckets, and other keys, kept; the longest unused is forgotten, which fills a bucket."""
MAX_HEADER_BYTES: Final = 16 * 1024
"""Of a request's address and headers together."""


@dataclass(frozen=True, slots=True)
class Rate:
    per_second: float
    burst: float
    """Requests that may come at once after a pause."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What `create_app` is told; the defaults suit people, and programs that label for people."""

    person: Rate = Rate(per_second=40, burst=200)
    """Requests of one person, over all their devices and tokens."""
    stranger: Rate = Rate(per_second=10, burst=60)
    """Requests without a session, by address: a team behind one address joins at once."""
    failure: Rate = Rate(per_second=0.5, burst=20)
    """Wrong tokens and codes, by address. With 256 random bits in each, this saves work; it keeps no secret."""
    body_bytes: int = 64 * 1024
    body_s: float = 30.0
    """Time for a request's body to arrive."""


class Recent:
    """The keys seen last, `MANY_KEYS` of them at most. Threads may share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._keys: OrderedDict[bytes, None] = OrderedDict()

    def add(self, key: bytes) -> None:
        with self._lock:
            self._keys[key] = None
            self._keys.move_to_end(key)
            while len(self._keys) > MANY_KEYS:
                self._keys.popitem(last=False)

    def discard(self, key: bytes) -> None:
        with self._lock:
            self._keys.pop(key, None)

    def __contains__(self, key: bytes) -> bool:
        with self._lock:
            return key in self._keys


class Buckets:
    """One bucket a key. Threads may share it."""

    def __init__(self, rate: Rate, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate
        self._clock = clock
        self._lock = threading.Lock()
        self._levels: OrderedDict[str, tuple[float, float]] = OrderedDict()
        """Tokens left, and when that was; by key, the last used at the end."""

    def take(self, key: str) -> float:
        """Take a token; 0, or the seconds until there will be one."""
        with self._lock:
            now = self._clock()
            level = self._level(key, now)
            if level < 1:
                return (1 - level) / self._rate.per_second
            self._levels[key] = (level - 1, now)
            self._levels.move_to_end(key)
            while len(self._levels) > MANY_KEYS:
                self._levels.popitem(last=False)
            return 0.0

    def is_empty(self, key: str) -> bool:
        """Whether `take` would be refused."""
        with self._lock:
            return self._level(key, self._clock()) < 1

    def _level(self, key: str, now: float) -> float:
        level, at = self._levels.get(key, (self._rate.burst, now))
        return min(self._rate.burst, level + max(now - at, 0.0) * self._rate.per_second)
