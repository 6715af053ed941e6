"""Strict, safe reading of YAML that anybody may have written.

What YAML 1.1 guesses is not guessed here: `no`, `on`, `0x1F`, dates and `12:30:45` stay text, `1e-5` is a number, only
true and false are booleans. What surprises or attacks is refused, with its place: anchors and aliases, tags,
duplicate keys, keys that are no text, numbers with a leading zero or without a finite value, more than 1 MB, and
more than 50 levels. Every failure is a `ConfigError`.

PyYAML turns the text into events; the values are built from those here, so none of its constructors ever runs.
"""

from __future__ import annotations

import copy
import difflib
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import yaml
from yaml.reader import ReaderError

from orchestrator.errors import ConfigError

MAX_BYTES: Final = 1_000_000
MAX_DEPTH: Final = 50

_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_BOOLEAN = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_LEADING_ZERO = re.compile(r"[-+]?0[0-9_]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")


def load_yaml(path: Path) -> dict[str, Any]:
    """Read a file whose top level is a mapping.

    Raises:
        ConfigError: with file, line and column, for anything that cannot be read or is not allowed.
    """
    try:
        with path.open("rb") as file:
            # One byte beyond the limit tells enough, also of a device that never ends.
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; check the path") from error
    if len(data) > MAX_BYTES:
        raise ConfigError(f"{path}: over {MAX_BYTES // 1_000_000} MB; a configuration is a small file")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        column = error.start - data.rfind(b"\n", 0, error.start)
        raise ConfigError(f"{path}:{line}:{column}: not UTF-8; save the file as UTF-8") from error
    return load_yaml_text(text, str(path))


def load_yaml_text(text: str, source: str) -> dict[str, Any]:
    """Read text whose top level is a mapping; `source` stands for the file in messages.

    Raises:
        ConfigError: as `load_yaml`.
    """
    value = _load(text, source)
    if not isinstance(value, dict):
        raise ConfigError(f"{source}:1:1: expected `key: value` lines at the top level, found {_kind(value)}")
    return value


def apply_overrides(data: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Return a copy of `data` with every `a.b=value` set, missing and null levels made.

    Values are YAML; the last one wins.

    Raises:
        ConfigError: for an override without a key or `=`, with a bad value, or below something that is no mapping.
    """
    result = copy.deepcopy(dict(data))
    for override in overrides:
        path, equals, text = override.partition("=")
        keys = [key.strip() for key in path.split(".")]
        if not equals or not all(keys) or len(keys) > MAX_DEPTH:
            raise ConfigError(f"--set {override[:80]!r}: expected KEY=VALUE, as in phase.steps=40")
        value = _load(text, f"--set {path.strip()}")
        level = result
        for depth, key in enumerate(keys[:-1], start=1):
            if level.get(key) is None:  # a section that is switched off is switched on by setting something in it
                level[key] = {}
            level = level[key]
            if not isinstance(level, dict):
                raise ConfigError(f"--set {path.strip()}: {'.'.join(keys[:depth])} is {_kind(level)}, not a mapping")
        level[keys[-1]] = value
    return result


def nearest_key(key: str, candidates: Iterable[str]) -> str | None:
    """The candidate that somebody who wrote `key` most likely meant, if any comes close."""
    by_lower_case = {candidate.lower(): candidate for candidate in candidates}
    matches = difflib.get_close_matches(key.lower().replace("-", "_"), by_lower_case, n=1)
    return by_lower_case[matches[0]] if matches else None


class _RefusedError(Exception):
    """Something that is YAML but not allowed."""

    def __init__(self, what: str, place: yaml.Mark) -> None:
        super().__init__(what)
        self.place = place


def _load(text: str, source: str) -> Any:
    if len(text) > MAX_BYTES:
        raise ConfigError(f"{source}: over {MAX_BYTES // 1_000_000} MB; a configuration is a small file")
    try:
        return _document(text)
    except ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        column = error.position - text.rfind("\n", 0, error.position)
        raise ConfigError(f"{source}:{line}:{column}: the character {chr(error.character)!r} is not allowed") from error
    except _RefusedError as error:
        raise ConfigError(f"{source}:{_place(error.place)}: {error}") from error
    except yaml.MarkedYAMLError as error:
        what = (error.problem or error.context or "not YAML")[:200]
        raise ConfigError(f"{source}:{_place(error.problem_mark or error.context_mark)}: {what}") from error


def _place(mark: yaml.Mark | None) -> str:
    return "1:1" if mark is None else f"{mark.line + 1}:{mark.column + 1}"


def _document(text: str) -> Any:
    loader: Any = yaml.SafeLoader(text)  # its methods have no types
    events = iter(loader.get_event, None)
    try:
        next(events)  # the stream begins
        if isinstance(next(events), yaml.StreamEndEvent):
            return None
        value = _value(next(events), events, depth=1)
        next(events)  # the document ends
        if not isinstance(after := next(events), yaml.StreamEndEvent):
            raise _RefusedError("a second document begins; keep one in a file", after.start_mark)
        return value
    except (ValueError, OverflowError) as error:
        # PyYAML lets these out of escapes like "\UFFFFFFFF" and of its directives, Python of endless numbers.
        raise _RefusedError(f"not YAML: {error}".partition(";")[0], loader.get_mark()) from error
    finally:
        loader.dispose()


def _value(event: Any, events: Iterator[Any], depth: int) -> Any:
    """Build the value that begins with `event`, taking the rest of it from `events`."""
    if isinstance(event, yaml.AliasEvent) or event.anchor is not None:
        raise _RefusedError("anchors and aliases are not allowed; write the value out", event.start_mark)
    if event.tag is not None:
        raise _RefusedError(f"the tag {event.tag[:60]!r} is not allowed; remove it", event.start_mark)
    if isinstance(event, yaml.ScalarEvent):
        return _scalar(event)
    if depth > MAX_DEPTH:
        raise _RefusedError(f"nested deeper than {MAX_DEPTH} levels", event.start_mark)
    if isinstance(event, yaml.SequenceStartEvent):
        return _sequence(events, depth)
    return _mapping(events, depth)


def _sequence(events: Iterator[Any], depth: int) -> list[Any]:
    items = []
    while not isinstance(event := next(events), yaml.SequenceEndEvent):
        items.append(_value(event, events, depth + 1))
    return items


def _mapping(events: Iterator[Any], depth: int) -> dict[str, Any]:
    items: dict[str, Any] = {}
    while not isinstance(event := next(events), yaml.MappingEndEvent):
        key = _value(event, events, depth + 1)
        if not isinstance(key, str):
            raise _RefusedError(f"a key must be text, not {_kind(key)}; quote it", event.start_mark)
        if key in items:
            raise _RefusedError(f"the key {key[:60]!r} is there twice; keep one", event.start_mark)
        items[key] = _value(next(events), events, depth + 1)
    return items


def _scalar(event: Any) -> str | int | float | bool | None:
    text: str = event.value
    if not event.implicit[0]:  # quoted, or a block of text
        if any(character == "\0" or "\ud800" <= character <= "\udfff" for character in text):
            raise _RefusedError("the text holds an escaped NUL or half a character", event.start_mark)
        return text
    if text in _NULL:
        return None
    if text in _BOOLEAN:
        return _BOOLEAN[text]
    if _INTEGER.fullmatch(text):
        return int(text)
    if _LEADING_ZERO.fullmatch(text):
        raise _RefusedError(f"{text[:60]} has a leading zero; drop it, or quote the text", event.start_mark)
    if _FLOAT.fullmatch(text) and math.isfinite(number := float(text)):
        return number
    if _FLOAT.fullmatch(text) or _NOT_FINITE.fullmatch(text):
        raise _RefusedError(f"{text[:60]} is not a finite number; write one, or quote the text", event.start_mark)
    return text


def _kind(value: object) -> str:
    names = {dict: "a mapping", list: "a list", str: "text", bool: "a boolean", int: "a number", float: "a number"}
    return names.get(type(value), "null")
