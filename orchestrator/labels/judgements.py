"""Labels of any kind, from a file of rows or from a campaign, coded as `core.agreement` takes them.

A row is `{"item": …, "rater": …, "label": …}`. Items and raters are texts or whole numbers, labels
texts, numbers or booleans; 1 and "1" are two names, as in JSON. A row may also say what is known of its item:

    gold                  the right label, of a check item or from a better evaluator
    prediction            the label that a reward model foretells
    length_1, length_2    lengths of the two responses, in any unit; or the texts response_1 and response_2 themselves

Where labels are choices (first, second, tie, both_bad, skip), a skip is no label, and the sides are known.
"""

import json
import math
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeAlias, TypeVar

import numpy as np

from orchestrator.core.agreement import CodedLabels, Floats, Ints
from orchestrator.core.records import Choice
from orchestrator.errors import UsageError
from orchestrator.labels.rows import BadRows, FirstSeen, RowError, kind_of, object_of, read_lines

K = TypeVar("K")
Name: TypeAlias = str | int
Value: TypeAlias = str | int | float | bool
"""A label as it stands in a file."""

MAX_CLASSES: Final = 1_000
"""Different labels in one file; more are no categories, but a measurement or a mistake."""
TIE_WORDS: Final = frozenset({"tie", "equal", "same", "draw", "neutral"})
"""Between two other labels, one of these stands in the middle."""
CHOICE_RANKS: Final = {"second": 0, "tie": 1, "both_bad": 1, "first": 2}
_CHOICES: Final = frozenset(choice.value for choice in Choice)


class Judgement(NamedTuple):
    """One row. A tuple, since there may be millions."""

    item: Name
    rater: Name
    label: Value
    gold: Value | None = None
    prediction: Value | None = None
    longer: int = 0
    """Which response is longer, 1 or 2; 0 where that is not known or they are as long as each other."""


@dataclass(frozen=True, slots=True, eq=False)
class Judgements:
    """Coded; arrays have an entry for each of N labels."""

    labels: CodedLabels
    items: tuple[Name, ...]
    raters: tuple[Name, ...]
    classes: tuple[Value, ...]
    """In ascending order where there is one."""
    rank_K: Ints | None
    """Place of each class in that order; None where nobody said one."""
    gold_right_N: Floats
    """1 where the label is gold's, 0 where not, NaN where there is no gold."""
    foretold_N: Floats
    """Likewise for the prediction."""
    longer_N: Ints
    skipped: int
    """Choices of `skip`, which are no labels."""

    @property
    def are_choices(self) -> bool:
        """Whether labels say which side won."""
        return bool({"first", "second"} & set(self.classes)) and set(self.classes) <= _CHOICES

    def ordinal(self) -> CodedLabels | None:
        """The labels coded by rank; equal ranks become one class."""
        if self.rank_K is None:
            return None
        ranks = int(self.rank_K.max(initial=-1)) + 1
        return CodedLabels(
            self.labels.item_N, self.labels.rater_N, self.rank_K[self.labels.class_N],
            self.labels.items, self.labels.raters, ranks,
        )  # fmt: skip


def read_judgements(path: Path, order: Sequence[str] | None = None) -> Judgements:
    """Read a file of rows.

    Args:
        order: all labels in ascending order, as texts, for figures on ranks.

    Raises:
        UsageError: any row is bad (all are named), there is none, or the order does not fit.
    """
    bad = BadRows(str(path))

    def rows() -> Iterator[Judgement]:
        seen = FirstSeen()
        for number, value in read_lines(path, bad):
            try:
                row = judgement_of(object_of(value))
                seen.check(number, row.item, row.rater)
            except RowError as error:
                bad.add(number, str(error))
            else:
                yield row
        bad.refuse("no figures were made")

    found = code(rows(), order)
    if not len(found.labels) + found.skipped:
        raise UsageError(f'{path}: there is no row in it; one is {{"item": …, "rater": …, "label": …}}')
    return found


def judgement_of(row: dict[str, Any]) -> Judgement:
    """Raises:
    RowError: the row is bad.
    """
    if len(row) == 3:  # nothing but the three: the common case, and there may be millions
        return Judgement(_name(row, "item"), _name(row, "rater"), _label(row, "label"))
    return Judgement(
        item=_name(row, "item"),
        rater=_name(row, "rater"),
        label=_label(row, "label"),
        gold=_label(row, "gold") if row.get("gold") is not None else None,
        prediction=_label(row, "prediction") if row.get("prediction") is not None else None,
        longer=_longer(row),
    )


def code(rows: Iterable[Judgement], order: Sequence[str] | None = None) -> Judgements:
    """Number items, raters and labels in an order that does not depend on that of the rows.

    Raises:
        UsageError: there are too many different labels, or the order does not name each once.
    """
    # Numbers alone are kept of a row: millions of small objects would keep the garbage collector busy.
    item_codes: dict[Name, int] = {}
    rater_codes: dict[Name, int] = {}
    label_codes: dict[Value | tuple[bool], int] = {}
    item, rater, label, longer = array("q"), array("q"), array("q"), array("q")
    gold_right, foretold = array("d"), array("d")
    for row in rows:
        item.append(item_codes.setdefault(row.item, len(item_codes)))
        rater.append(rater_codes.setdefault(row.rater, len(rater_codes)))
        label.append(label_codes.setdefault(_key(row.label), len(label_codes)))
        gold_right.append(_is_right(row.label, row.gold))
        foretold.append(_is_right(row.label, row.prediction))
        longer.append(row.longer)
    are_choices = label_codes.keys() <= _CHOICES and not label_codes.keys().isdisjoint(("first", "second"))
    label_N = np.array(label, dtype=np.int64)
    kept_N = label_N != (label_codes.get("skip", -1) if are_choices else -1)
    values = {key: key[0] if isinstance(key, tuple) else key for key in label_codes}
    if are_choices:
        values.pop("skip", None)
    if len(values) > MAX_CLASSES:
        raise UsageError(f"{len(values)} different labels are no categories; give {MAX_CLASSES} or fewer")
    classes, rank_K = _ordered(list(values.values()), order, are_choices=are_choices)
    items, item_N = _recoded(item_codes, sorted(item_codes, key=_natural), np.array(item)[kept_N])
    raters, rater_N = _recoded(rater_codes, sorted(rater_codes, key=_natural), np.array(rater)[kept_N])
    _, class_N = _recoded(label_codes, [_key(value) for value in classes], label_N[kept_N])
    return Judgements(
        labels=CodedLabels(item_N, rater_N, class_N, len(items), len(raters), len(classes)),
        items=items,
        raters=raters,
        classes=tuple(classes),
        rank_K=rank_K,
        gold_right_N=np.array(gold_right)[kept_N],
        foretold_N=np.array(foretold)[kept_N],
        longer_N=np.array(longer, dtype=np.int64)[kept_N],
        skipped=int((~kept_N).sum()),
    )


def _recoded(codes: dict[K, int], names: Sequence[K], code_N: Ints) -> tuple[tuple[K, ...], Ints]:
    """Codes by place among `names`, of which those are left out that no label has any more."""
    used = np.zeros(len(codes), dtype=bool)
    used[code_N] = True
    left = tuple(name for name in names if used[codes[name]])
    place = np.zeros(len(codes), dtype=np.int64)
    place[[codes[name] for name in left]] = np.arange(len(left))
    return left, place[code_N]


def _ordered(values: list[Value], order: Sequence[str] | None, *, are_choices: bool) -> tuple[list[Value], Ints | None]:
    """Labels in ascending order with their ranks; alphabetical and without ranks where nothing says how they rank."""
    values = sorted(values, key=lambda value: (kind_of(value), value))
    in_turn = np.arange(len(values))
    if order is not None:
        names = {value if isinstance(value, str) else json.dumps(value): value for value in values}
        if sorted(order) != sorted(names) or len(names) < len(values):
            raise UsageError(f"--order must name each label once: {', '.join(names)}")
        return [names[name] for name in order], in_turn
    if are_choices:
        values.sort(key=lambda value: CHOICE_RANKS[str(value)])
        _, rank_K = np.unique([CHOICE_RANKS[str(value)] for value in values], return_inverse=True)
        return values, rank_K
    if len({kind_of(value) for value in values}) == 1 and not isinstance(values[0], str):
        return values, in_turn
    ties = [value for value in values if str(value).casefold() in TIE_WORDS]
    if len(values) <= 2:
        return values, in_turn
    if len(values) == 3 and len(ties) == 1:
        low, high = (value for value in values if value not in ties)
        return [low, *ties, high], in_turn
    return values, None


def _is_right(said: Value, truth: Value | None) -> float:
    return math.nan if truth is None else float(_key(said) == _key(truth))


def _key(value: Value) -> Value | tuple[bool]:
    """Python holds True and 1 for the same; JSON does not."""
    return (value,) if isinstance(value, bool) else value


def _natural(name: Name) -> tuple[bool, int, str, bool]:
    """Whole numbers by size, before other names."""
    text = str(name)
    is_number = text.isascii() and text.isdigit() and len(text) < 1_000
    return (not is_number, int(text) if is_number else 0, text, isinstance(name, str))


def _name(row: dict[str, Any], field: str) -> Name:
    value = row.get(field)
    if (type(value) is str and value) or type(value) is int:
        return value
    what = "missing" if field not in row else "empty" if value == "" else kind_of(value)
    raise RowError(f"{field} is {what}; text or a whole number is wanted")


def _label(row: dict[str, Any], field: str) -> Value:
    value = row.get(field)
    if isinstance(value, (str, bool, int)) or (isinstance(value, float) and math.isfinite(value)):
        return value
    what = "missing" if field not in row else kind_of(value)
    raise RowError(f"{field} is {what}; text, a number or a boolean is wanted")


def _longer(row: dict[str, Any]) -> int:
    lengths = []
    for length, text in (("length_1", "response_1"), ("length_2", "response_2")):
        if length in row:
            value = row[length]
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
                raise RowError(f"{length} is {kind_of(value)}; a number that is not negative is wanted")
            lengths.append(value)
        elif isinstance(row.get(text), str):
            lengths.append(len(row[text]))
    if len(lengths) < 2 or lengths[0] == lengths[1]:
        return 0
    return 1 if lengths[0] > lengths[1] else 2
