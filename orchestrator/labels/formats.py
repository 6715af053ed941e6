"""The formats in which other tools keep preference labels: what a record of each says, and how to say it in each.

A format reads one record into labels and writes labels as records. Formats of chosen and rejected responses know no
items, raters or ties: reading numbers the items and puts the chosen response on a side drawn by the record's digest,
so that nobody can learn that the first one wins; writing leaves out labels without a winner.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from orchestrator.core.canonical import digest_of
from orchestrator.core.records import Choice
from orchestrator.labels.comparisons import (
    Conversation,
    Labelled,
    Message,
    PassedOver,
    Reading,
    Text,
    conversation_of,
    from_row,
    labelled,
    plain_text_of,
    to_json,
)
from orchestrator.labels.projects import ARGILLA, LABEL_STUDIO, Project, read_argilla, read_label_studio
from orchestrator.labels.rows import RowError

_TURN: Final = re.compile(r"\n\n(Human|Assistant):")
_ROLES: Final = {"Human": "user", "Assistant": "assistant"}
_NAMES: Final = {role: name for name, role in _ROLES.items()}
_REPLY: Final = "\n\nAssistant:"


Read = Callable[[int, dict[str, Any], Reading], Iterable[Labelled | PassedOver]]
Write = Callable[[Sequence[Labelled]], Iterator[dict[str, Any]]]


@dataclass(frozen=True, slots=True)
class Format:
    name: str
    about: str
    is_array: bool
    """One JSON array, rather than a record a line."""
    winners_only: bool
    """Whether only labels with a winner can be said in it."""
    read: Read
    """Number of the record and the record to its labels; raises RowError."""
    write: Write
    """Labels to records; raises RowError, which names the item."""
    project: Project | None = None
    """Where people label in the tool itself."""


# --- chosen and rejected ----------------------------------------------------------------------------------


def _pair(number: int, prompt: Text, chosen: Text, rejected: Text, reading: Reading) -> list[Labelled]:
    chosen_first = int(digest_of([to_json(text) for text in (prompt, chosen, rejected)])[0], 16) % 2 == 0
    first, second = (chosen, rejected) if chosen_first else (rejected, chosen)
    label = Choice.FIRST if chosen_first else Choice.SECOND
    return [labelled(f"row{number}", reading.rater, label, prompt, first, second)]


def _both(row: Mapping[str, Any], read: Callable[[Mapping[str, Any], str], Any]) -> tuple[Any, Any]:
    return read(row, "chosen"), read(row, "rejected")


def _no_prompt(row: Mapping[str, Any]) -> None:
    if "prompt" in row:
        raise RowError("prompt stands apart here; a format without `implicit` in its name reads that")


def _chat_of(row: Mapping[str, Any], name: str) -> Conversation:
    if name not in row:
        raise RowError(f"{name} is missing")
    if isinstance(row[name], str):
        raise RowError(f"{name} is text, not a list of messages; a format without `chat` in its name reads that")
    return conversation_of(row[name], name)


def _winners(labels: Sequence[Labelled]) -> Iterator[tuple[Labelled, Text, Text]]:
    for label in labels:
        if (pair := label.chosen_and_rejected) is not None:
            yield label, *pair


def _read_hh(number: int, row: dict[str, Any], reading: Reading) -> list[Labelled]:
    chosen, rejected = _both(row, plain_text_of)
    cut = _shared(chosen, rejected).rfind(_REPLY)
    if not _TURN.match(chosen) or cut < 0:
        raise RowError("chosen and rejected must begin with the same Human and Assistant turns")
    cut += len(_REPLY)
    return _pair(number, chosen[:cut], chosen[cut:], rejected[cut:], reading)


def _write_hh(labels: Sequence[Labelled]) -> Iterator[dict[str, Any]]:
    for label, chosen, rejected in _winners(labels):
        yield {name: _dialogue(label, text) for name, text in (("chosen", chosen), ("rejected", rejected))}


def _read_plain(number: int, row: dict[str, Any], reading: Reading) -> list[Labelled]:
    return _pair(number, plain_text_of(row, "prompt"), *_both(row, plain_text_of), reading)


def _write_plain(labels: Sequence[Labelled]) -> Iterator[dict[str, Any]]:
    for label, chosen, rejected in _winners(labels):
        if label.is_conversation:
            raise _refused(label, "it is a conversation, which needs a format with `chat` in its name")
        yield {"prompt": label.prompt, "chosen": chosen, "rejected": rejected}


def _read_plain_implicit(number: int, row: dict[str, Any], reading: Reading) -> list[Labelled]:
    _no_prompt(row)
    chosen, rejected = _both(row, plain_text_of)
    cut = _last_break(_shared(chosen, rejected))
    return _pair(number, chosen[:cut], chosen[cut:], rejected[cut:], reading)


def _write_plain_implicit(labels: Sequence[Labelled]) -> Iterator[dict[str, Any]]:
    for row in _write_plain(labels):
        yield {name: row["prompt"] + row[name] for name in ("chosen", "rejected")}


def _read_chat(number: int, row: dict[str, Any], reading: Reading) -> list[Labelled]:
    return _pair(number, _chat_of(row, "prompt"), *_both(row, _chat_of), reading)


def _write_chat(labels: Sequence[Labelled]) -> Iterator[dict[str, Any]]:
    for label, chosen, rejected in _winners(labels):
        prompt, *said = _as_conversations(label.prompt, chosen, rejected)
        yield {"prompt": to_json(prompt), "chosen": to_json(said[0]), "rejected": to_json(said[1])}


def _read_chat_implicit(number: int, row: dict[str, Any], reading: Reading) -> list[Labelled]:
    _no_prompt(row)
    chosen, rejected = _both(row, _chat_of)
    shorter = min(len(chosen), len(rejected))
    cut = next((at for at in range(shorter) if chosen[at] != rejected[at]), shorter - 1)
    if cut == 0:
        raise RowError("chosen and rejected share no beginning, so there is no prompt")
    return _pair(number, chosen[:cut], chosen[cut:], rejected[cut:], reading)


def _write_chat_implicit(labels: Sequence[Labelled]) -> Iterator[dict[str, Any]]:
    for row in _write_chat(labels):
        yield {name: row["prompt"] + row[name] for name in ("chosen", "rejected")}


# --- records with raters ----------------------------------------------------------------------------------


def _read_own(number: int, row: dict[str, Any], reading: Reading) -> list[Labelled]:
    return [from_row(row, reading.words)]


def _write_own(labels: Sequence[Labelled]) -> Iterator[dict[str, Any]]:
    return (label.to_row() for label in labels)


# --- dialogues and prompts --------------------------------------------------------------------------------


def _shared(first: str, second: str) -> str:
    """The longest common beginning."""
    at = next((at for at, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), None)
    return first[: min(len(first), len(second)) if at is None else at]


def _last_break(text: str) -> int:
    """Where the last white space of a text begins, so that no word is cut in two; 0 where there is none."""
    at = len(text)
    while at and not text[at - 1].isspace():
        at -= 1
    return len(text[:at].rstrip())


def _is_dialogue(prompt: Text) -> bool:
    """Whether a prompt is written as Human and Assistant turns already, up to the turn to be answered."""
    return isinstance(prompt, str) and bool(_TURN.match(prompt)) and prompt.endswith(_REPLY)


def _dialogue(label: Labelled, response: Text) -> str:
    """Prompt and response as Human and Assistant turns."""
    if _is_dialogue(label.prompt):
        return f"{label.prompt}{response}"
    prompt, answer = _as_conversations(label.prompt, response)
    for message in prompt + answer:
        if message.role not in _NAMES or _TURN.search(message.content):
            raise _refused(label, "it has a role or a text that Human and Assistant turns cannot hold")
    return "".join(f"\n\n{_NAMES[message.role]}: {message.content}" for message in prompt + answer)


def _as_conversations(prompt: Text, *responses: Text) -> list[Conversation]:
    if not isinstance(prompt, str):
        return [text if not isinstance(text, str) else (Message("assistant", text),) for text in (prompt, *responses)]
    if _is_dialogue(prompt):
        turns = _turns(prompt[: -len(_REPLY)])
        return [turns, *(_turns(f"{_REPLY}{response}") for response in responses)]
    return [(Message("user", prompt),), *((Message("assistant", str(response)),) for response in responses)]


def _turns(dialogue: str) -> Conversation:
    _, *parts = _TURN.split(dialogue)
    return tuple(
        Message(_ROLES[name], content.removeprefix(" ")) for name, content in zip(parts[::2], parts[1::2], strict=True)
    )


def _refused(label: Labelled, why: str) -> RowError:
    return RowError(f"item {label.item!r} cannot be written: {why}")


FORMATS: Final[Mapping[str, Format]] = {
    form.name: form
    for form in (
        Format("ratchet", "a label a line, with item, rater, label, prompt and both responses", False, False,
               _read_own, _write_own),
        Format("hh-rlhf", "whole dialogues `chosen` and `rejected` in Human and Assistant turns", False, True,
               _read_hh, _write_hh),
        Format("trl", "texts `prompt`, `chosen`, `rejected`", False, True, _read_plain, _write_plain),
        Format("trl-implicit", "texts `chosen` and `rejected`, both with the prompt", False, True,
               _read_plain_implicit, _write_plain_implicit),
        Format("trl-chat", "lists of messages `prompt`, `chosen`, `rejected`", False, True, _read_chat, _write_chat),
        Format("trl-chat-implicit", "lists of messages `chosen` and `rejected`, both with the prompt", False, True,
               _read_chat_implicit, _write_chat_implicit),
        Format("label-studio", "Label Studio's tasks with annotations, of a Pairwise or Choices control", True, False,
               read_label_studio, LABEL_STUDIO.write, LABEL_STUDIO),
        Format("argilla", "Argilla's records with one label or rating question", True, False,
               read_argilla, ARGILLA.write, ARGILLA),
    )
}  # fmt: skip
