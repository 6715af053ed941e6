"""Labels out of files of any format, and into them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.core.records import Choice
from orchestrator.errors import UsageError
from orchestrator.labels.comparisons import Comparison, Labelled, PassedOver, Reading
from orchestrator.labels.formats import Format
from orchestrator.labels.projects import Project
from orchestrator.labels.rows import (
    BadRows,
    FirstSeen,
    RowError,
    object_of,
    read_array,
    read_lines,
    refuse_existing,
    write_array,
    write_lines,
)


@dataclass(frozen=True, slots=True)
class Read:
    labels: tuple[Labelled, ...]
    numbers: tuple[int, ...]
    """Of the record that each label stood in."""
    bad: BadRows
    passed_over: Mapping[str, int]
    """What good records held besides labels, by what it is."""


def read_labels(path: Path, form: Format, reading: Reading) -> Read:
    """All labels of a file, and what is wrong with the records that gave none.

    Raises:
        UsageError: the file as a whole cannot be read.
    """
    bad = BadRows(str(path), what := "record" if form.is_array else "line")
    seen = FirstSeen()
    labels: list[Labelled] = []
    numbers: list[int] = []
    passed_over: Counter[str] = Counter()
    for number, value in read_array(path) if form.is_array else read_lines(path, bad):
        try:
            said = tuple(form.read(number, object_of(value), reading))
            of_record = [label for label in said if isinstance(label, Labelled)]
            for label in of_record:
                seen.check(number, label.item, label.rater, what)
        except RowError as error:
            bad.add(number, str(error))
        else:
            labels += of_record
            numbers += [number] * len(of_record)
            passed_over.update(other.what for other in said if isinstance(other, PassedOver))
    return Read(tuple(labels), tuple(numbers), bad, passed_over)


def write_labels(path: Path, form: Format, labels: Sequence[Labelled], *, escape: bool = False) -> int:
    """Write a new file, whole or not at all; gives the number of labels that the format cannot say.

    Args:
        escape: write texts so that whoever takes them for HTML shows them as they are.

    Raises:
        UsageError: there is a file already, or a label has no form in this format.
        StorageError: the disk refuses.
    """
    refuse_existing(path)
    write: Any = write_array if form.is_array else write_lines
    if escape and form.project is None:
        raise UsageError(f"--escape is for tools that show texts in a browser, and {form.name} is none; leave it out")
    rows = form.write(labels) if form.project is None else form.project.write(labels, escape=escape)
    try:
        write(path, rows)
    except RowError as error:
        raise UsageError(f"{error}; nothing was written") from error
    return sum(label.chosen_and_rejected is None for label in labels) if form.winners_only else 0


def write_tasks(path: Path, project: Project, comparisons: Sequence[Comparison], *, escape: bool) -> None:
    """Write a new file of what people are to label elsewhere, whole or not at all.

    Raises:
        UsageError: there is a file already.
        StorageError: the disk refuses.
    """
    write_array(path, project.tasks(comparisons, escape=escape))


def parse_words(said: Sequence[str], words: dict[str, Choice]) -> dict[str, Choice]:
    """Add `VALUE=CHOICE` to the words that stand for choices.

    Raises:
        UsageError: malformed, or no choice.
    """
    added = dict(words)
    for text in said:
        value, equals, choice = text.rpartition("=")
        if not (value and equals) or choice not in list(Choice):
            raise UsageError(f"--map {text!r}: expected VALUE=CHOICE with one of {', '.join(Choice)}")
        added[value] = Choice(choice)
    return added
