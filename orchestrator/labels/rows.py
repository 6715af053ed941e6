"""Files of rows: read row by row with every bad one reported by its number, and written whole or not at all."""

import gzip
import json
import os
import tempfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NoReturn

from orchestrator.disk import refusals_reported, sync_directory
from orchestrator.errors import UsageError
from orchestrator.text import visible

SHOWN: Final = 20
"""Bad rows that are told one by one; the rest are counted."""
_GZIP: Final = b"\x1f\x8b"


class RowError(ValueError):
    """What is wrong with one row; never leaves a command without the row's number."""


class BadRows:
    """Collects what is wrong, row by row."""

    def __init__(self, source: str, what: str = "line") -> None:
        self._source, self._what = source, what
        self._found: list[tuple[int, str]] = []

    def __len__(self) -> int:
        return len(self._found)

    def add(self, number: int, why: str) -> None:
        self._found.append((number, why))

    def told(self) -> str:
        """The first ones in full, the rest as a count."""
        shown = [f"  {self._what} {number}: {visible(why, 160)}" for number, why in sorted(self._found)[:SHOWN]]
        more = [f"  and {len(self) - SHOWN} more"] if len(self) > SHOWN else []
        return "\n".join([*shown, *more])

    def refuse(self, consequence: str) -> None:
        """Raises:
        UsageError: anything is bad; the message names the rows and ends with what therefore did not happen.
        """
        if self._found:
            rows = f"{len(self)} bad {self._what}" + ("s" if len(self) > 1 else "")
            raise UsageError(f"{self._source}: {rows}; {consequence}\n{self.told()}")


def read_lines(path: Path, bad: BadRows) -> Iterator[tuple[int, Any]]:
    """Number, from 1, and value of every line of JSON; blank lines are passed over. A gzip file is read as such.

    Raises:
        UsageError: the file cannot be read.
    """
    # raw_decode on stripped text: `decode` would look for white space twice more.
    decode = json.JSONDecoder(parse_constant=_refuse_constant).raw_decode
    for number, line in enumerate(_lines(path), 1):
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
            if not text:
                continue
            value, end = decode(text)
            if end < len(text):
                raise ValueError(f"more than one value: character {end} begins another")
            yield number, value
        except (ValueError, RecursionError) as error:
            bad.add(number, _why(error))


def read_array(path: Path) -> list[tuple[int, Any]]:
    """Number, from 1, and value of every element of a file that is one JSON array.

    Raises:
        UsageError: the file cannot be read, or is no such thing.
    """
    data = b"".join(_lines(path))
    try:
        value = json.loads(data.decode("utf-8-sig"), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path}: {_why(error)}; a JSON array of records is wanted here") from error
    if not isinstance(value, list):
        raise UsageError(f"{path}: it holds {kind_of(value)}; a JSON array of records is wanted here")
    return list(enumerate(value, 1))


def write_lines(path: Path, rows: Iterable[Any]) -> None:
    """One line of JSON for each row, see `write_whole`."""
    write_whole(path, (json.dumps(row, allow_nan=False) + "\n" for row in rows))


def write_array(path: Path, rows: Iterable[Any]) -> None:
    """One JSON array, a row a line, see `write_whole`."""

    def chunks() -> Iterator[str]:
        opening = "[\n"
        for row in rows:
            yield opening + json.dumps(row, allow_nan=False)
            opening = ",\n"
        yield "[]\n" if opening == "[\n" else "\n]\n"

    write_whole(path, chunks())


def write_whole(path: Path, chunks: Iterable[str]) -> None:
    """Write a new file that is there as a whole or not at all, whatever happens meanwhile.

    Raises:
        UsageError: there is a file already, or no such folder.
        StorageError: the disk refuses.
    """
    refuse_existing(path)
    with refusals_reported(path):
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with open(descriptor, "w", encoding="ascii") as file:
                file.writelines(chunks)
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(path)
        except BaseException:
            with suppress(FileNotFoundError):
                os.unlink(name)
            raise
        sync_directory(path.parent)


def refuse_existing(path: Path) -> None:
    """Raises:
    UsageError: there is something at `path` already, or no folder to put it in.
    """
    if path.exists():
        raise UsageError(f"{path} exists already and is not overwritten; choose another --out")
    if not path.parent.is_dir():
        raise UsageError(f"{path}: there is no folder {path.parent}; make it, or choose another --out")


def kind_of(value: Any) -> str:
    """What a JSON value is, in words for people."""
    if value is None:
        return "null"
    kinds: tuple[tuple[type, str], ...] = (
        (bool, "a boolean"), (str, "text"), (int, "a number"), (float, "a number"), (list, "a list")
    )  # fmt: skip
    return next((name for kind, name in kinds if isinstance(value, kind)), "an object")


def name_of(row: dict[str, Any], field: str) -> str:
    """The text or whole number that names an item or a rater, as text.

    Raises:
        RowError: it is missing, empty or something else.
    """
    if field not in row:
        raise RowError(f"{field} is missing")
    value = row[field]
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        raise RowError(f"{field} is {'empty' if value == '' else kind_of(value)}; text or a whole number is wanted")
    return str(value)


def object_of(value: Any) -> dict[str, Any]:
    """Raises:
    RowError: the row is no object.
    """
    if not isinstance(value, dict):
        raise RowError(f"it is {kind_of(value)}, not an object")
    return value


class FirstSeen:
    """Refuses a second label of one rater on one item."""

    def __init__(self) -> None:
        self._at: dict[tuple[str | int, str | int], int] = {}

    def check(self, number: int, item: str | int, rater: str | int, what: str = "line") -> None:
        """Raises:
        RowError: names the earlier row.
        """
        if (item, rater) in self._at:
            raise RowError(f"rater {rater!r} labelled item {item!r} before, in {what} {self._at[item, rater]}")
        self._at[item, rater] = number


def _lines(path: Path) -> Iterator[bytes]:
    try:
        with gzip.open(path) if _is_gzip(path) else path.open("rb") as file:
            yield from file
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise UsageError(f"{path}: the gzip file is damaged ({error}); fetch it anew") from error
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or error}; name a file that can be read") from error


def _is_gzip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == _GZIP


def _refuse_constant(word: str) -> NoReturn:
    raise ValueError(f"{word} is no JSON")


def _why(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "it is nested too deep"
    if isinstance(error, UnicodeDecodeError):
        return f"byte {error.start} is no UTF-8"
    return f"no JSON: {error}" if isinstance(error, json.JSONDecodeError) else str(error)
