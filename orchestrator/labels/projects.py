"""Label Studio and Argilla: comparisons as tasks for people elsewhere, and what these people said as labels.

Both tools show what models wrote in a browser. Texts therefore stand in the data alone, never in the set-up of a
project, and the set-ups given here name no control that takes a text for HTML or for an address. Where a project of
somebody's own does, its records can be written escaped, and say so of themselves: reading undoes it.
"""

import html
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Final

from orchestrator.core.canonical import digest_of
from orchestrator.core.records import Choice, Harm
from orchestrator.labels.comparisons import (
    Comparison,
    Labelled,
    Message,
    PassedOver,
    Reading,
    Text,
    choice_of,
    labelled,
    seal_of,
    text_of,
    to_json,
)
from orchestrator.labels.rows import RowError, kind_of, name_of, object_of

PREFERENCE: Final = "preference"
NO_WINNER: Final = "no_winner"
HARMFUL: Final = "harmful"
ESCAPED: Final = "ratchet_escaped"
"""Mark of a record whose texts are escaped; its value names how."""
TEXTS: Final = "ratchet_texts"
"""Digest of a record's three texts as they were exported, so that labels of other texts are noticed."""
SEALED: Final = "ratchet_sealed"
"""Hash of the event that sealed a campaign's comparison: another campaign may ask the same texts."""
_HTML: Final = "html"
_ANSWERS: Final = ("pairwise", "choices")
_SIDES: Final = {"left": Choice.FIRST, "right": Choice.SECOND}
_FLAGGED: Final[Mapping[Harm, list[str]]] = {
    Harm.FIRST: ["first"], Harm.SECOND: ["second"], Harm.BOTH: ["first", "second"]
}  # fmt: skip

Said = Labelled | PassedOver


@dataclass(frozen=True, slots=True)
class Project:
    """How a tool takes comparisons in."""

    record: Callable[[int, Comparison, Sequence[Labelled], bool], dict[str, Any]]
    """Number from 1, comparison, its labels so far, and whether to escape its texts, to what the tool imports."""
    set_up: Callable[[int], str]
    """Raters an item, to the file that sets a project up."""

    def write(self, labels: Sequence[Labelled], *, escape: bool = False) -> Iterator[dict[str, Any]]:
        """Raises:
        RowError: the raters of an item did not see the same texts.
        """
        for number, same in enumerate(_by_item(labels), 1):
            yield self.record(number, same[0].comparison, same, escape)

    def tasks(self, comparisons: Iterable[Comparison], *, escape: bool = False) -> Iterator[dict[str, Any]]:
        for number, comparison in enumerate(comparisons, 1):
            yield self.record(number, comparison, (), escape)


# --- Label Studio -----------------------------------------------------------------------------------------


def read_label_studio(number: int, task: dict[str, Any], reading: Reading) -> Iterator[Said]:
    if "data" not in task:
        raise RowError("data is missing; Label Studio's JSON has it, its JSON-MIN and CSV do not serve here")
    data = object_of(task["data"])
    texts = _texts_of(data, reading.fields, data)
    item = name_of(data if "item" in data else task, "item" if "item" in data else "id")
    for annotation in _list(task, "annotations"):
        annotation = object_of(annotation)
        who = annotation.get("completed_by")
        if isinstance(who, dict):
            rater = name_of(who, "email" if "email" in who else "id")
        else:
            rater = name_of(annotation, "completed_by")
        skipped = bool(annotation.get("was_cancelled"))
        answers, flags = [], []
        for result in map(object_of, _list(annotation, "result")):
            kind, control = result.get("type"), result.get("from_name")
            if (kind, control) == ("choices", HARMFUL) and reading.question != HARMFUL:
                flags.append(_list(object_of(result.get("value")), "choices"))
            elif kind in _ANSWERS and reading.question in (None, control) and not skipped:
                answers.append(result)
            else:
                yield PassedOver(f"{kind} result of control {control}")
        if len(flags) > 1:
            raise RowError(f"an annotation has {len(flags)} results of control {HARMFUL}; one is wanted")
        choice = Choice.SKIP if skipped else _label_studio_choice(answers, reading)
        harm = _harm_of(flags[0]) if flags else None
        yield labelled(item, rater, choice, *texts, harm=harm, sealed=seal_of(data, SEALED))
    for what in ("drafts", "predictions"):
        yield from (PassedOver(what[:-1]) for _ in _list(task, what))


def _label_studio_choice(results: list[dict[str, Any]], reading: Reading) -> Choice:
    if len(results) != 1:
        raise RowError(
            f"an annotation has {len(results)} pairwise or choices results; one is wanted (--question names a control)"
        )
    value = object_of(results[0].get("value"))
    if results[0]["type"] == "pairwise":
        return choice_of(value.get("selected"), {**_SIDES, **reading.words})
    chosen = _list(value, "choices")
    if len(chosen) != 1:
        raise RowError(f"an annotation has {len(chosen)} choices; one is wanted")
    return choice_of(chosen[0], reading.words)


def _label_studio_task(number: int, shown: Comparison, labels: Sequence[Labelled], escape: bool) -> dict[str, Any]:
    annotations = [
        {
            "completed_by": {"email": label.rater},
            "was_cancelled": label.label is Choice.SKIP,
            "result": [*_label_studio_answer(label.label), *_label_studio_harm(label.harm)],
        }
        for label in labels
    ]
    data = {"item": shown.item, **_texts(shown, escape), **_marks(shown, escape)}
    return {"id": number, "data": data, "annotations": annotations}


def _label_studio_answer(choice: Choice) -> list[dict[str, Any]]:
    if choice is Choice.SKIP:
        return []
    side = next((side for side, meaning in _SIDES.items() if meaning is choice), None)
    if side is None:
        return [_choices(NO_WINNER, [choice.value])]
    # The tool's own answers name the control itself here (`Pairwise.js` calls createResult with its name), and only
    # such a one is found again when it loads them.
    return [{"from_name": PREFERENCE, "to_name": PREFERENCE, "type": "pairwise", "value": {"selected": side}}]


def _label_studio_harm(harm: Harm | None) -> list[dict[str, Any]]:
    return [] if harm is None else [_choices(HARMFUL, _FLAGGED[harm])]


def _choices(control: str, chosen: list[str]) -> dict[str, Any]:
    return {"from_name": control, "to_name": "prompt", "type": "choices", "value": {"choices": chosen}}


def _label_studio_set_up(raters: int) -> str:
    """A labelling configuration. Text, unlike HyperText and the like, shows a text as it is; `valueType` keeps one that
    looks like an address from being fetched."""
    return f"""<View>
  <Style>.htx-text {{ white-space: pre-wrap; }}</Style>
  <Header value="Prompt"/>
  <Text name="prompt" value="$prompt" valueType="text"/>
  <Header value="Which response is better?"/>
  <Pairwise name="{PREFERENCE}" toName="response_1,response_2"/>
  <View style="display: flex; gap: 1em;">
    <View style="flex: 1;"><Text name="response_1" value="$response_1" valueType="text"/></View>
    <View style="flex: 1;"><Text name="response_2" value="$response_2" valueType="text"/></View>
  </View>
  <Header value="Or, if neither is"/>
  <Choices name="{NO_WINNER}" toName="prompt" choice="single-radio">
    <Choice value="They are equally good" alias="tie"/>
    <Choice value="Neither will do" alias="both_bad"/>
  </Choices>
  <Header value="Is a response harmful?"/>
  <Choices name="{HARMFUL}" toName="prompt" choice="multiple">
    <Choice value="The left one is" alias="first"/>
    <Choice value="The right one is" alias="second"/>
  </Choices>
</View>
"""


# --- Argilla ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Answers:
    """What one user said of one record."""

    user: str
    status: str
    values: dict[str, Any]
    """By question."""


def read_argilla(number: int, record: dict[str, Any], reading: Reading) -> Iterator[Said]:
    fields = object_of(record.get("fields"))
    marks = object_of(record.get("metadata") or {})
    texts, sealed = _texts_of(fields, reading.fields, marks), seal_of(marks, SEALED)
    item, question = name_of(record, "id"), reading.question or PREFERENCE
    wanted = (question, HARMFUL)
    for answers in _argilla_answers(record.get("responses"), wanted):
        if isinstance(answers, PassedOver):
            yield answers
            continue
        yield from (PassedOver(f"answer to {name}") for name in answers.values if name not in wanted)
        if answers.status == "draft":
            yield PassedOver("draft")
            continue
        if answers.status == "discarded":
            choice = Choice.SKIP
        elif answers.status != "submitted":
            raise RowError(f"status {answers.status!r} is not one of submitted, discarded, draft")
        elif question in answers.values:
            choice = choice_of(answers.values[question], reading.words)
        elif HARMFUL in answers.values:
            raise RowError(f"user {answers.user!r} answered {HARMFUL}, but not {question}")
        else:
            continue
        flags = answers.values.get(HARMFUL) if question != HARMFUL else None
        harm = None if flags is None else _harm_of(flags)
        yield labelled(item, answers.user, choice, *texts, harm=harm, sealed=sealed)
    yield from (PassedOver("suggestion") for _ in record.get("suggestions") or ())


def _argilla_answers(responses: Any, wanted: Sequence[str]) -> Iterator[_Answers | PassedOver]:
    """User by user, out of either form: the client's, by question, or the server's and version 1's, by user."""
    if isinstance(responses, list):
        for response in map(object_of, responses):
            values = {
                name: object_of(answer).get("value") for name, answer in object_of(response.get("values") or {}).items()
            }
            yield _Answers(name_of(response, "user_id"), _status_of(response), values)
        return
    by_user: dict[str, _Answers] = {}
    for question, answers in object_of({} if responses is None else responses).items():
        if question not in wanted:
            yield from (PassedOver(f"answer to {question}") for _ in answers or ())
            continue
        if not isinstance(answers, list):
            raise RowError(f"{question} is {kind_of(answers)}, not a list")
        for answer in map(object_of, answers):
            user, status = name_of(answer, "user_id"), _status_of(answer)
            known = by_user.setdefault(user, _Answers(user, status, {}))
            if question in known.values or known.status != status:
                raise RowError(f"user {user!r} answered {question} twice, or with two statuses")
            known.values[question] = answer.get("value")
    yield from by_user.values()


def _status_of(response: Mapping[str, Any]) -> str:
    """`to_json` of the client tells none."""
    return str(response.get("status") or "submitted")


def _argilla_record(number: int, shown: Comparison, labels: Sequence[Labelled], escape: bool) -> dict[str, Any]:
    answers: dict[str, list[dict[str, Any]]] = {}
    for label in labels:
        # Without a status, the client takes an answer for a draft.
        who = {"user_id": label.rater, "status": "discarded" if label.label is Choice.SKIP else "submitted"}
        answers.setdefault(PREFERENCE, []).append({"value": label.label.value, **who})
        if label.harm is not None:
            answers.setdefault(HARMFUL, []).append({"value": _FLAGGED[label.harm], **who})
    return {
        "id": shown.item,
        "fields": _texts(shown, escape),
        "metadata": _marks(shown, escape),
        "suggestions": {},
        "responses": answers,
        "vectors": {},
    }


def _argilla_set_up(raters: int) -> str:
    """What `Settings.from_json` reads. Without `use_markdown` a text is shown as it is."""
    titles = {"prompt": "Prompt", "response_1": "First response", "response_2": "Second response"}
    choices = {
        Choice.FIRST: "The first response is better", Choice.SECOND: "The second response is better",
        Choice.TIE: "They are equally good", Choice.BOTH_BAD: "Neither will do", Choice.SKIP: "I cannot say",
    }  # fmt: skip
    flags = {"first": "The first response is", "second": "The second response is"}
    settings = {
        "guidelines": None,
        "fields": [
            {
                "name": name, "title": title, "required": name == "prompt",
                "settings": {"type": "text", "use_markdown": False},
            }
            for name, title in titles.items()
        ],
        "questions": [
            {
                "name": PREFERENCE, "title": "Which response is better?", "required": True,
                "settings": {
                    "type": "label_selection", "visible_options": len(choices),
                    "options": [{"value": choice.value, "text": text} for choice, text in choices.items()],
                },
            },
            {
                "name": HARMFUL, "title": "Is a response harmful?", "required": False,
                "settings": {
                    "type": "multi_label_selection", "visible_options": None, "options_order": "natural",
                    "options": [{"value": value, "text": text} for value, text in flags.items()],
                },
            },
        ],
        "vectors": [],
        "metadata": [],
        "allow_extra_metadata": True,
        "distribution": {"strategy": "overlap", "min_submitted": raters},
    }  # fmt: skip
    return json.dumps(settings, indent=2) + "\n"


# --- both -------------------------------------------------------------------------------------------------


def _texts_of(row: Mapping[str, Any], fields: Sequence[str], marked: Mapping[str, Any]) -> tuple[Text, Text, Text]:
    how = marked.get(ESCAPED)
    if how not in (None, _HTML):
        raise RowError(f"{ESCAPED} is {how!r}; only {_HTML} is known")
    prompt, first, second = (text_of(row, name) for name in fields)
    if how is not None:
        prompt, first, second = (_with(html.unescape, text) for text in (prompt, first, second))
    if marked.get(TEXTS) not in (None, _digest(prompt, first, second)):
        raise RowError("its texts are not those that were exported; what was labelled is unknown")
    return prompt, first, second


def _texts(shown: Comparison, escape: bool) -> dict[str, Any]:
    texts = {"prompt": shown.prompt, "response_1": shown.response_1, "response_2": shown.response_2}
    return {name: to_json(_with(html.escape, text) if escape else text) for name, text in texts.items()}


def _with(change: Callable[[str], str], text: Text) -> Text:
    if isinstance(text, str):
        return change(text)
    return tuple(Message(change(message.role), change(message.content)) for message in text)


def _marks(shown: Comparison, escape: bool) -> dict[str, str]:
    texts = _digest(shown.prompt, shown.response_1, shown.response_2)
    sealed = {} if shown.sealed is None else {SEALED: shown.sealed}
    return {TEXTS: texts, **sealed, **({ESCAPED: _HTML} if escape else {})}


def _digest(*texts: Text) -> str:
    return digest_of([to_json(text) for text in texts])


def _harm_of(flagged: Any) -> Harm | None:
    """None where nothing was flagged."""
    if flagged == []:
        return None
    found = next(
        (harm for harm, sides in _FLAGGED.items() if isinstance(flagged, list) and sorted(flagged, key=str) == sides),
        None,
    )
    if found is None:
        raise RowError(f"{HARMFUL} is {flagged!r}; a list of first and second is wanted")
    return found


def _list(row: Mapping[str, Any], name: str) -> list[Any]:
    """Missing counts as empty: a record that nobody has answered yet."""
    value = row.get(name, [])
    if not isinstance(value, list):
        raise RowError(f"{name} is {kind_of(value)}, not a list")
    return value


def _by_item(labels: Sequence[Labelled]) -> Iterator[list[Labelled]]:
    """Labels item by item, in order of each item's first label."""
    place: dict[str, int] = {}
    for label in labels:
        place.setdefault(label.item, len(place))
    for _, group in groupby(sorted(labels, key=lambda label: place[label.item]), key=lambda label: label.item):
        same = list(group)
        for label in same:
            if label.comparison != same[0].comparison:
                raise RowError(f"item {label.item!r} cannot be written: its raters did not see the same texts")
        yield same


LABEL_STUDIO: Final = Project(_label_studio_task, _label_studio_set_up)
ARGILLA: Final = Project(_argilla_record, _argilla_set_up)
