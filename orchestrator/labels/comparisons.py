"""Labelled comparisons as they travel between tools: one label of one rater on two responses to one prompt.

A prompt and its responses are texts, or all three are conversations: lists of messages with a role and a content.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeAlias

from orchestrator.core.records import Choice, Harm
from orchestrator.labels.rows import RowError, kind_of, name_of


@dataclass(frozen=True, slots=True)
class Message:
    role: str
    content: str


Conversation: TypeAlias = tuple[Message, ...]
Text: TypeAlias = str | Conversation

CHOICE_WORDS: Final[Mapping[str, Choice]] = {choice.value: choice for choice in Choice}
_UNKEPT: Final = re.compile("[\0\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Reading:
    """What a record does not say of itself."""

    rater: str = "imported"
    """Who gave the labels of formats that know no raters."""
    words: Mapping[str, Choice] = field(default_factory=lambda: dict(CHOICE_WORDS))
    """What stands for which choice."""
    fields: tuple[str, str, str] = ("prompt", "response_1", "response_2")
    """Names of prompt, first and second response, in formats that leave them to the project."""
    question: str | None = None
    """Name of the question or control, where a record has several."""


@dataclass(frozen=True, slots=True)
class PassedOver:
    """Something in a record that is no label of ours and spoils none; it is counted."""

    what: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """What is to be labelled. Nothing in it tells whose response is whose."""

    item: str
    prompt: Text
    response_1: Text
    response_2: Text
    sealed: str | None = None
    """Of a campaign's: hash of the event that sealed it, which no other campaign has."""

    @property
    def breaks_databases(self) -> bool:
        """Whether it holds what JSON can say and PostgreSQL cannot keep: NUL, or half a surrogate pair."""
        texts = (self.prompt, self.response_1, self.response_2)
        return any(_UNKEPT.search(part) for text in texts for part in _parts(text))


@dataclass(frozen=True, slots=True)
class Labelled:
    """The unit of import and export."""

    item: str
    rater: str
    label: Choice
    prompt: Text
    response_1: Text
    response_2: Text
    harm: Harm | None = None
    """Which responses the rater flagged as harmful."""
    sealed: str | None = None
    """As `Comparison.sealed`, where the record tells it."""

    @property
    def comparison(self) -> Comparison:
        return Comparison(self.item, self.prompt, self.response_1, self.response_2, self.sealed)

    @property
    def is_conversation(self) -> bool:
        return not isinstance(self.prompt, str)

    @property
    def chosen_and_rejected(self) -> tuple[Text, Text] | None:
        """None where the label names no winner."""
        match self.label:
            case Choice.FIRST:
                return self.response_1, self.response_2
            case Choice.SECOND:
                return self.response_2, self.response_1
        return None

    def to_row(self) -> dict[str, Any]:
        """The line of our own files."""
        return {
            "item": self.item,
            "rater": self.rater,
            "label": self.label.value,
            "prompt": to_json(self.prompt),
            "response_1": to_json(self.response_1),
            "response_2": to_json(self.response_2),
            **({"harm": self.harm.value} if self.harm is not None else {}),
            **({"sealed": self.sealed} if self.sealed is not None else {}),
        }


def from_row(row: dict[str, Any], words: Mapping[str, Choice]) -> Labelled:
    """The inverse of `Labelled.to_row`.

    Raises:
        RowError: something is missing or of the wrong kind.
    """
    texts = (text_of(row, "prompt"), text_of(row, "response_1"), text_of(row, "response_2"))
    found = labelled(name_of(row, "item"), name_of(row, "rater"), choice_of(row.get("label"), words), *texts)
    harm = None if row.get("harm") is None else _harm_of(row["harm"])
    return replace(found, harm=harm, sealed=seal_of(row, "sealed"))


def labelled(
    item: str,
    rater: str,
    label: Choice,
    prompt: Text,
    response_1: Text,
    response_2: Text,
    harm: Harm | None = None,
    sealed: str | None = None,
) -> Labelled:
    """Raises:
    RowError: texts and conversations are mixed.
    """
    if len({isinstance(text, str) for text in (prompt, response_1, response_2)}) > 1:
        raise RowError("prompt and responses must all be texts, or all lists of messages")
    return Labelled(item, rater, label, prompt, response_1, response_2, harm, sealed)


def seal_of(row: Mapping[str, Any], field: str) -> str | None:
    """Raises:
    RowError: what should name a seal is no text.
    """
    value = row.get(field)
    if value is not None and not isinstance(value, str):
        raise RowError(f"{field} is {kind_of(value)}, not text")
    return value


def choice_of(value: Any, words: Mapping[str, Choice]) -> Choice:
    """What a label says, by the words that stand for choices.

    Raises:
        RowError: no word of it.
    """
    if value is None:
        raise RowError("label is missing")
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise RowError(f"label is {kind_of(value)}; one of {', '.join(words)} is wanted")
    if str(value) not in words:
        raise RowError(
            f"label {str(value)!r} is not one of {', '.join(words)}; --map {value}=CHOICE gives it a meaning"
        )
    return words[str(value)]


def _harm_of(value: Any) -> Harm:
    if value not in list(Harm):
        raise RowError(f"harm {value!r} is not one of {', '.join(Harm)}")
    return Harm(value)


def text_of(row: Mapping[str, Any], field: str) -> Text:
    """A text or a conversation.

    Raises:
        RowError: it is missing, or neither.
    """
    if field not in row:
        raise RowError(f"{field} is missing")
    value = row[field]
    return value if isinstance(value, str) else conversation_of(value, field)


def plain_text_of(row: Mapping[str, Any], field: str) -> str:
    """Raises:
    RowError: it is missing, or no text.
    """
    text = text_of(row, field)
    if not isinstance(text, str):
        raise RowError(f"{field} is a list of messages; a format with `chat` in its name reads those")
    return text


def conversation_of(value: Any, field: str) -> Conversation:
    """Raises:
    RowError: it is no list of messages with nothing but a role and a content, both texts.
    """
    if not isinstance(value, list):
        raise RowError(f"{field} is {kind_of(value)}, not text")
    messages = []
    for message in value:
        if not isinstance(message, dict) or set(message) != {"role", "content"}:
            raise RowError(f"{field}: a message has a role and a content and nothing else")
        if not (isinstance(message["role"], str) and isinstance(message["content"], str)):
            raise RowError(f"{field}: role and content of a message must be texts")
        messages.append(Message(message["role"], message["content"]))
    if not messages:
        raise RowError(f"{field} is an empty list of messages")
    return tuple(messages)


def to_json(text: Text) -> Any:
    if isinstance(text, str):
        return text
    return [{"role": message.role, "content": message.content} for message in text]


def _parts(text: Text) -> Iterator[str]:
    if isinstance(text, str):
        yield text
    else:
        for message in text:
            yield from (message.role, message.content)
