"""Files of rows: every bad line by its number, and new files whole or not at all."""

import gzip
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.errors import UsageError
from orchestrator.labels.rows import BadRows, read_lines, write_array, write_lines, write_whole


def test_lines_are_numbered_as_an_editor_does(tmp_path: Path) -> None:
    path = tmp_path / "rows"
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}\n\n  \n[2]\r\n"\\ud83d"\nnull')
    bad = BadRows("rows")
    assert list(read_lines(path, bad)) == [(1, {"a": 1}), (4, [2]), (5, "\ud83d"), (6, None)]
    assert len(bad) == 0


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b"{", "no JSON"),
        (b"\xff\xfe", "byte 0 is no UTF-8"),
        (b"NaN", "NaN is no JSON"),
        (b'{"a": -Infinity}', "-Infinity is no JSON"),
        (b"{} {}", "more than one value"),
        (b"[" * 100_000, "nested too deep"),
        (b"9" * 5_000, "digits"),
        (b'"\x1b[31m', "no JSON"),
    ],
)
def test_a_line_that_is_no_json_spoils_itself_alone(line: bytes, why: str, tmp_path: Path) -> None:
    path = tmp_path / "rows"
    path.write_bytes(b"1\n" + line + b"\n3\n")
    bad = BadRows("rows")
    assert list(read_lines(path, bad)) == [(1, 1), (3, 3)]
    assert bad.told().startswith("  line 2: ")
    assert why in bad.told()


def test_what_a_row_holds_is_shown_never_obeyed() -> None:
    bad = BadRows("rows")
    bad.add(1, "label '\x1b[2J\u202e' is odd")
    assert "\x1b" not in bad.told()
    assert "\\x1b[2J\\u202e" in bad.told()


def test_gzip_is_read_as_such_and_a_damaged_one_is_told(tmp_path: Path) -> None:
    path = tmp_path / "rows.gz"
    whole = gzip.compress(b"1\n2\n")
    path.write_bytes(whole)
    assert list(read_lines(path, BadRows(""))) == [(1, 1), (2, 2)]
    for damaged in (whole[:-6], whole[:12] + b"\0\0\0" + whole[15:]):
        path.write_bytes(damaged)
        with pytest.raises(UsageError, match="damaged"):
            list(read_lines(path, BadRows("")))


def test_what_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        list(read_lines(tmp_path / "nowhere", BadRows("")))
    with pytest.raises(UsageError, match="directory"):
        list(read_lines(tmp_path, BadRows("")))


def test_arrays_and_lines_are_ascii_json(tmp_path: Path) -> None:
    write_array(tmp_path / "none", [])
    write_array(tmp_path / "some", [{"a": "\ud83d"}, 2])
    write_lines(tmp_path / "lines", ["é", None])
    assert (tmp_path / "none").read_bytes() == b"[]\n"
    assert (tmp_path / "some").read_bytes() == b'[\n{"a": "\\ud83d"},\n2\n]\n'
    assert (tmp_path / "lines").read_bytes() == b'"\\u00e9"\nnull\n'


def test_nothing_is_left_of_a_write_that_failed(tmp_path: Path) -> None:
    def chunks() -> Iterator[str]:
        yield "half"
        assert len(os.listdir(tmp_path)) == 1, "a temporary sibling"
        assert not (tmp_path / "out").exists()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_whole(tmp_path / "out", chunks())
    assert os.listdir(tmp_path) == []


def test_no_file_is_overwritten_and_no_folder_made(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    with pytest.raises(UsageError, match="not overwritten"):
        write_whole(tmp_path / "out", ["theirs"])
    assert (tmp_path / "out").read_text() == "mine"
    with pytest.raises(UsageError, match="no folder"):
        write_whole(tmp_path / "nowhere" / "out", ["theirs"])
