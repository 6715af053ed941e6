"""Reading texts from files: .txt (one a line), .tsv (one column of each line), .jsonl (one field of each object).

Any of them may be gzipped. Files are read a line at a time and strictly: whatever is not as expected is a
`TaskError` that names file and row, since a row left out silently would change what a campaign means.
"""

import gzip
import json
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Final, cast

from policies.errors import TaskError

MAX_LINE_BYTES: Final = 100_000
"""A longer line is no text for a small model; it is a file of another kind, or an attack on memory."""
KINDS: Final = (".txt", ".tsv", ".jsonl")


def read_texts(path: Path, *, field: str = "text", column: int | None = None) -> Iterator[str]:
    """Give the texts of a file in order, runs of white space made one blank, blank lines left out.

    `field` names the text in an object of a .jsonl file. `column` picks, from 1, a tab-separated column of a .tsv
    or .txt file; without it a .txt line is a text as it stands.

    Raises:
        TaskError: naming file and row.
    """
    kind = _kind(path)
    if kind == ".tsv" and column is None:
        raise TaskError(f"{path}: which column holds the text? set task.options.column, counted from 1")
    for row, line in read_lines(path):
        if kind == ".jsonl":
            text = _field(line, field, f"{path}, row {row}")
        elif column is not None:
            text = _column(line, column, f"{path}, row {row}")
        else:
            text = line
        if words := text.split():
            yield " ".join(words)


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Give each line that is not blank with its row, from 1, without its line end.

    Raises:
        TaskError: if the file cannot be read, a line is no UTF-8, or a line exceeds MAX_LINE_BYTES.
    """
    row = 0
    try:
        with ExitStack() as stack:
            file = _opened(path, stack)
            while line := file.readline(MAX_LINE_BYTES + 1):
                row += 1
                if len(line) > MAX_LINE_BYTES:
                    raise TaskError(f"{path}, row {row}: over {MAX_LINE_BYTES:,} bytes; put one text on a line")
                text = line.decode("utf-8-sig" if row == 1 else "utf-8").rstrip("\r\n")
                if text.strip():
                    yield row, text
    except UnicodeDecodeError as error:
        raise TaskError(f"{path}, row {row}: not UTF-8 ({error.reason}); convert the file") from error
    except (OSError, EOFError, zlib.error) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise TaskError(f"{path}, after row {row}: cannot be read: {why}") from error


def _opened(path: Path, stack: ExitStack) -> IO[bytes]:
    raw = stack.enter_context(path.open("rb"))
    return cast(IO[bytes], stack.enter_context(gzip.GzipFile(fileobj=raw))) if path.suffix == ".gz" else raw


def _kind(path: Path) -> str:
    kind = path.with_suffix("").suffix if path.suffix == ".gz" else path.suffix
    if kind not in KINDS:
        raise TaskError(f"{path}: cannot tell what it holds; name it {', '.join(KINDS)}, with .gz after it if gzipped")
    return kind


def _field(line: str, field: str, where: str) -> str:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise TaskError(f"{where}: not JSON: {error}") from error
    if not isinstance(record, dict) or field not in record:
        keys = ", ".join(record) if isinstance(record, dict) else f"a {type(record).__name__}, not an object"
        raise TaskError(f"{where}: no field {field!r} (found: {keys[:200]}); set task.options.field")
    value = record[field]
    if not isinstance(value, str):
        raise TaskError(f"{where}: field {field!r} holds a {type(value).__name__}, not a text")
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise TaskError(f"{where}: field {field!r} holds half a character (a lone surrogate)")
    return value


def _column(line: str, column: int, where: str) -> str:
    cells = line.split("\t")
    if len(cells) < column:
        raise TaskError(f"{where}: {len(cells)} tab-separated columns, task.options.column asks for number {column}")
    return cells[column - 1]
