"""A batch's labels in order of arrival: immutable, indexed, and cheap to add to.

Queues hold up to a hundred thousand labels that arrive one by one, and each new state keeps all of them. So the logs
that follow from one another share one list of operations and its indices, which belong to the longest of them; a
log that is no longer the longest makes indices of its own when it is asked for anything. Threads may ask for one
log while others add to it.
"""

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, Self, TypeVar, overload

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from orchestrator.core.records import Label

Place = tuple[int, str]
"""Item and rater: of each pair, one label stands at most."""
T = TypeVar("T")
_EMPTY: Final[Mapping[int, Label]] = MappingProxyType({})


class _Index:
    """Operations in order (a label, or the place of one that was taken back) and what they come to."""

    __slots__ = ("by_item", "by_rater", "frontier", "lock", "operations", "standing")

    def __init__(self, operations: Iterable[Label | Place] = ()) -> None:
        self.lock = threading.Lock()
        self.operations: list[Label | Place] = []
        self.standing: dict[Place, Label] = {}
        self.by_item: dict[int, list[Label]] = {}
        self.by_rater: dict[str, dict[int, Label]] = {}
        self.frontier: dict[int, int] = {}
        for operation in operations:
            self.do(operation)

    def do(self, operation: Label | Place) -> None:
        if isinstance(operation, Label):
            self.standing[operation.item, operation.rater] = operation
            self.by_item.setdefault(operation.item, []).append(operation)
            self.by_rater.setdefault(operation.rater, {})[operation.item] = operation
        else:
            item, rater = operation
            label = self.standing.pop(operation)
            self.by_item[item].remove(label)
            del self.by_rater[rater][item]
            self.frontier = {verdicts: min(front, item) for verdicts, front in self.frontier.items()}
        self.operations.append(operation)

    def front(self, verdicts: int) -> int:
        """The first item with fewer than so many labels."""
        item = self.frontier.get(verdicts, 0)
        while len(self.by_item.get(item, ())) >= verdicts:
            item += 1
        self.frontier[verdicts] = item
        return item


class LabelLog(Sequence[Label]):
    """Labels that stand, in order of arrival."""

    __slots__ = ("_index", "_operations")

    def __init__(self, labels: Iterable[Label] = ()) -> None:
        """
        Raises:
            ValueError: a rater has labelled an item twice.
        """
        self._index = _Index()
        self._operations = 0
        for label in labels:
            if (label.item, label.rater) in self._index.standing:
                raise ValueError(f"{label.rater} has labelled item {label.item} twice")
            self._index.do(label)
            self._operations += 1

    def plus(self, label: Label) -> Self:
        """With one more.

        Raises:
            ValueError: its rater has labelled the item already.
        """
        if self.of(label.item, label.rater) is not None:
            raise ValueError(f"{label.rater} has labelled item {label.item} already")
        return self._after(label)

    def minus(self, item: int, rater: str) -> Self:
        """Without the label that a rater has taken back.

        Raises:
            ValueError: there is none.
        """
        if self.of(item, rater) is None:
            raise ValueError(f"{rater} has no label on item {item}")
        return self._after((item, rater))

    def of(self, item: int, rater: str) -> Label | None:
        return self._ask(lambda index: index.standing.get((item, rater)))

    def on(self, item: int) -> tuple[Label, ...]:
        """All labels of one item, in order of arrival."""
        return self._ask(lambda index: tuple(index.by_item.get(item, ())))

    def count_on(self, item: int) -> int:
        return self._ask(lambda index: len(index.by_item.get(item, ())))

    def by(self, rater: str) -> tuple[Label, ...]:
        """All labels of one rater, in order of arrival."""
        return self._ask(lambda index: tuple(index.by_rater.get(rater, _EMPTY).values()))

    def count_by(self, rater: str) -> int:
        return self._ask(lambda index: len(index.by_rater.get(rater, _EMPTY)))

    @property
    def raters(self) -> frozenset[str]:
        return self._ask(lambda index: frozenset(rater for rater, said in index.by_rater.items() if said))

    def front(self, verdicts: int) -> int:
        """The first item with fewer than so many labels; may lie behind the queue's end."""
        return self._ask(lambda index: index.front(verdicts))

    def all(self) -> tuple[Label, ...]:
        return self._ask(lambda index: tuple(index.standing.values()))

    @overload
    def __getitem__(self, place: int) -> Label: ...
    @overload
    def __getitem__(self, place: slice) -> tuple[Label, ...]: ...
    def __getitem__(self, place: int | slice) -> Label | tuple[Label, ...]:
        return self.all()[place]

    def __len__(self) -> int:
        return self._ask(lambda index: len(index.standing))

    def __iter__(self) -> Iterator[Label]:
        return iter(self.all())

    def __eq__(self, other: object) -> bool:
        return self.all() == tuple(other) if isinstance(other, LabelLog | tuple) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.all())

    def __repr__(self) -> str:
        return f"LabelLog({list(self)!r})"

    def _after(self, operation: Label | Place) -> Self:
        index, length = self._index, self._operations
        after = object.__new__(type(self))
        with index.lock:
            if length == len(index.operations):
                index.do(operation)
            elif index.operations[length] != operation:
                index = _Index([*index.operations[:length], operation])
            # Otherwise the same was added before: by a trial of what is now for good.
        after._index, after._operations = index, length + 1
        return after

    def _ask(self, question: Callable[[_Index], T]) -> T:
        """Answer from indices that hold this log's operations and no more."""
        index = self._index
        with index.lock:
            if self._operations == len(index.operations):
                return question(index)
            operations = index.operations[: self._operations]
        index = _Index(operations)
        answer = question(index)
        self._index = index
        return answer

    def __reduce__(self) -> tuple[type[Self], tuple[tuple[Label, ...]]]:
        return type(self), (self.all(),)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        from_labels = core_schema.no_info_after_validator_function(cls, handler(tuple[Label, ...]))
        return core_schema.union_schema(
            [core_schema.is_instance_schema(cls), from_labels],
            serialization=core_schema.plain_serializer_function_ser_schema(
                lambda log: [label.model_dump(mode="json") for label in log]
            ),
        )
