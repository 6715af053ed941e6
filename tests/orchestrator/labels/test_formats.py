"""Labels into every format and back, whatever texts they hold; what a format cannot say is refused, by its row."""

import gzip
import json
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hostile_texts import HOSTILE
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.core.records import Choice, Harm
from orchestrator.errors import UsageError
from orchestrator.labels.comparisons import CHOICE_WORDS, Labelled, Message, Reading, Text
from orchestrator.labels.exchange import parse_words, read_labels, write_labels
from orchestrator.labels.formats import FORMATS

anything = st.text(st.characters(exclude_categories=()), max_size=12)
"""Any character at all: controls, lone surrogates, combining marks; and nothing."""
texts = st.one_of(anything, st.sampled_from(["", " ", "true", "\n\n", "\ufeffa\0b", "\ud83d", "a\u2028b\r\nc"]))
conversations = st.lists(
    st.builds(Message, st.sampled_from(["user", "assistant", "system"]), texts), min_size=1, max_size=3
).map(tuple)
names = st.text(min_size=1, max_size=5)
MARKUP = (
    "<script>alert(1)</script><img src=x onerror=alert(1)>",
    "{{7*7}} ${7*7} <%= 7 %> $prompt javascript:alert(1)",
    "&lt;b&gt; &amp;amp; &#x27; &#0; &notit; &",
    "s3://bucket/key https://a.example/x.txt data:text/html,<b>",
    '"/></Text></View><HyperText value="$prompt"/>',
)


def labels_of(text: st.SearchStrategy[Any], choices: Sequence[Choice] = tuple(Choice)) -> st.SearchStrategy[Any]:
    """Several items with their texts, several raters each."""

    @st.composite
    def drawn(draw: st.DrawFn) -> list[Labelled]:
        labels = []
        for item in draw(st.lists(names, unique=True, max_size=4)):
            shown = [draw(text) for _ in range(3)]
            for rater in draw(st.lists(names, unique=True, min_size=1, max_size=3)):
                flags = draw(st.sampled_from([None, *Harm]))
                labels.append(
                    Labelled(item, rater, draw(st.sampled_from(choices)), shown[0], shown[1], shown[2], flags)
                )
        return labels

    return drawn()


any_labels = st.one_of(labels_of(texts), labels_of(conversations))
WINNERS = (Choice.FIRST, Choice.SECOND)


def through(form: str, labels: Sequence[Labelled], *, escape: bool = False, **reading: Any) -> list[Labelled]:
    """Written, and read again without anything bad."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "labels"
        write_labels(path, FORMATS[form], labels, escape=escape)
        read = read_labels(path, FORMATS[form], Reading(**reading))
    assert len(read.bad) == 0, read.bad.told()
    assert not read.passed_over
    return list(read.labels)


def pairs(labels: Sequence[Labelled]) -> list[tuple[Text, Text, Text]]:
    """Prompt, chosen and rejected of every label with a winner."""
    return [(label.prompt, *pair) for label in labels if (pair := label.chosen_and_rejected) is not None]


def wholes(labels: Sequence[Labelled]) -> list[tuple[Text, Text]]:
    """Chosen and rejected, each with the prompt before it."""
    return [(prompt + chosen, prompt + rejected) for prompt, chosen, rejected in pairs(labels)]  # type: ignore[operator]


class TestRoundTrips:
    @pytest.mark.parametrize("form", ["ratchet", "label-studio", "argilla"])
    @given(labels=any_labels)
    @settings(deadline=None, max_examples=50)
    def test_formats_with_raters_keep_everything(self, form: str, labels: list[Labelled]) -> None:
        assert through(form, labels) == labels

    @pytest.mark.parametrize("form", ["label-studio", "argilla"])
    @given(labels=any_labels)
    @settings(deadline=None, max_examples=50)
    def test_escaped_texts_come_back_as_they_were(self, form: str, labels: list[Labelled]) -> None:
        assert through(form, labels, escape=True) == labels

    @pytest.mark.parametrize("escape", [False, True])
    @pytest.mark.parametrize("form", ["label-studio", "argilla"])
    @pytest.mark.parametrize("text", [*HOSTILE, *MARKUP], ids=range(len(HOSTILE) + len(MARKUP)))
    def test_hostile_texts_come_back_to_the_byte(self, form: str, text: str, escape: bool) -> None:
        labels = [one(text, f"{text}.", f".{text}", choice) for choice in (Choice.SECOND,)]
        assert through(form, labels, escape=escape) == labels

    @given(labels_of(texts))
    @settings(deadline=None, max_examples=50)
    def test_trl_keeps_prompt_and_pair(self, labels: list[Labelled]) -> None:
        back = through("trl", labels, rater="crowd")
        assert pairs(back) == pairs(labels)
        assert {label.rater for label in back} <= {"crowd"}

    @given(labels_of(texts))
    @settings(deadline=None, max_examples=50)
    def test_trl_with_the_prompt_inside_keeps_the_whole_texts(self, labels: list[Labelled]) -> None:
        once = through("trl-implicit", labels)
        assert wholes(once) == wholes(labels)
        assert pairs(through("trl-implicit", once)) == pairs(once)

    @given(labels_of(conversations))
    @settings(deadline=None, max_examples=50)
    def test_trl_chat_keeps_prompt_and_pair(self, labels: list[Labelled]) -> None:
        assert pairs(through("trl-chat", labels)) == pairs(labels)

    @given(labels_of(conversations))
    @settings(deadline=None, max_examples=50)
    def test_trl_chat_with_the_prompt_inside_keeps_the_whole_conversations(self, labels: list[Labelled]) -> None:
        once = through("trl-chat-implicit", labels)
        assert wholes(once) == wholes(labels)
        assert pairs(through("trl-chat-implicit", once)) == pairs(once)

    @given(labels_of(texts))
    @settings(deadline=None, max_examples=50)
    def test_hh_keeps_the_dialogues(self, labels: list[Labelled]) -> None:
        once = through("hh-rlhf", labels)
        turned = [
            tuple(f"\n\nHuman: {prompt}\n\nAssistant: {said}" for said in pair) for prompt, *pair in pairs(labels)
        ]
        assert wholes(once) == turned
        assert pairs(through("hh-rlhf", once)) == pairs(once)

    def test_hh_of_real_people_comes_back_to_the_letter(self, tmp_path: Path) -> None:
        from label_data import hh_file

        form = FORMATS["hh-rlhf"]
        read = read_labels(hh_file(), form, Reading())
        assert (len(read.bad), len(read.labels)) == (0, 1607)
        write_labels(tmp_path / "hh.jsonl", form, read.labels)
        with gzip.open(hh_file()) as original:
            assert [json.loads(line) for line in original] == [
                json.loads(line) for line in (tmp_path / "hh.jsonl").read_text().splitlines()
            ]
        by_side = sum(label.label is Choice.FIRST for label in read.labels) / 1607
        assert by_side == pytest.approx(0.5, abs=0.05), "the chosen response stands on a random side"
        chats = [pair for pair in pairs(through("trl-chat", read.labels)) if len(pair[1]) == len(pair[2]) == 1]
        assert len(chats) >= 1602, "all but the last reply is shared"
        assert {message.role for prompt, *_ in chats for message in prompt} == {"user", "assistant"}  # type: ignore[union-attr]


def one(prompt: Text = "p", first: Text = "a", second: Text = "b", label: Choice = Choice.FIRST) -> Labelled:
    return Labelled("i", "r", label, prompt, first, second)


@pytest.mark.parametrize("harm", [None, *Harm])
def test_harm_travels_where_raters_do(tmp_path: Path, harm: Harm | None) -> None:
    label = replace(one(), harm=harm)
    assert label.to_row().get("harm") == (None if harm is None else harm.value)
    for name, kept in (("ratchet", harm), ("label-studio", harm), ("argilla", harm), ("trl", None)):
        file = tmp_path / name
        write_labels(file, FORMATS[name], [label])
        assert [read.harm for read in read_labels(file, FORMATS[name], Reading()).labels] == [kept]


@pytest.mark.parametrize("harm", ["third", 1, ["first"]])
def test_harm_that_means_nothing_makes_a_bad_row(tmp_path: Path, harm: Any) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps({**one().to_row(), "harm": harm}) + "\n")
    read = read_labels(file, FORMATS["ratchet"], Reading())
    assert not read.labels
    assert "is not one of first, second, both" in read.bad.told()


class TestShapes:
    """What stands in the files, by hand: round trips alone would not notice a format that only we can read."""

    @pytest.mark.parametrize(
        ("form", "record"),
        [
            ("hh-rlhf", {"chosen": "\n\nHuman: p\n\nAssistant: b", "rejected": "\n\nHuman: p\n\nAssistant: a"}),
            ("trl", {"prompt": "p", "chosen": "b", "rejected": "a"}),
            ("trl-implicit", {"chosen": "pb", "rejected": "pa"}),
            (
                "trl-chat",
                {
                    "prompt": [{"role": "user", "content": "p"}],
                    "chosen": [{"role": "assistant", "content": "b"}],
                    "rejected": [{"role": "assistant", "content": "a"}],
                },
            ),
            (
                "trl-chat-implicit",
                {
                    "chosen": [{"role": "user", "content": "p"}, {"role": "assistant", "content": "b"}],
                    "rejected": [{"role": "user", "content": "p"}, {"role": "assistant", "content": "a"}],
                },
            ),
        ],
    )
    def test_chosen_and_rejected(self, form: str, record: dict[str, Any]) -> None:
        assert list(FORMATS[form].write([one(label=Choice.SECOND)])) == [record]

    def test_ours(self) -> None:
        row = {"item": "i", "rater": "r", "label": "first", "prompt": "p", "response_1": "a", "response_2": "b"}
        assert list(FORMATS["ratchet"].write([one()])) == [row]

    def test_label_studio(self) -> None:
        labels = [one(), replace(one(label=Choice.TIE), rater="s"), replace(one(label=Choice.SKIP), rater="t")]
        (task,) = FORMATS["label-studio"].write(labels)
        # sha256sum of ["p","a","b"]
        texts = "2ec91f196666a2b4bd3bc12cd835d4c3a4c654f4a473b708b2e83eb997e7b903"
        assert task["data"] == {
            "item": "i", "prompt": "p", "response_1": "a", "response_2": "b", "ratchet_texts": texts
        }  # fmt: skip
        first, tie, skip = task["annotations"]
        assert first["result"][0] == {
            "from_name": "preference", "to_name": "preference", "type": "pairwise",
            "value": {"selected": "left"},
        }  # fmt: skip
        assert tie["result"][0]["value"] == {"choices": ["tie"]}
        assert (skip["was_cancelled"], skip["result"]) == (True, [])

    def test_argilla(self) -> None:
        (record,) = FORMATS["argilla"].write([one(), replace(one(label=Choice.TIE), rater="s")])
        assert record["fields"] == {"prompt": "p", "response_1": "a", "response_2": "b"}
        assert record["responses"] == {
            "preference": [
                {"value": "first", "user_id": "r", "status": "submitted"},
                {"value": "tie", "user_id": "s", "status": "submitted"},
            ]
        }

    def test_a_dialogue_becomes_turns(self) -> None:
        prompt = "\n\nHuman: hi\n\nAssistant: yes?\n\nHuman: why\n\nAssistant:"
        (row,) = FORMATS["trl-chat"].write([one(prompt, " so", " no")])
        assert [message["content"] for message in row["prompt"]] == ["hi", "yes?", "why"]
        assert row["chosen"] == [{"role": "assistant", "content": "so"}]

    @pytest.mark.parametrize("said", [("yes", "no"), ("so it is", "so be it")])
    def test_trl_reads_our_conversations_as_we_do(self, said: tuple[str, str]) -> None:
        from trl import data_utils

        (row,) = FORMATS["trl-chat-implicit"].write([one("why?", *said)])
        assert data_utils.is_conversational(row)
        assert data_utils.extract_prompt(row) == next(FORMATS["trl-chat"].write([one("why?", *said)]))

    def test_only_whole_words_are_shared(self) -> None:
        (label,) = FORMATS["trl-implicit"].read(1, {"chosen": "I like cats", "rejected": "I like cars"}, Reading())
        assert isinstance(label, Labelled)
        assert pairs([label]) == [("I like", " cats", " cars")]


GOOD: dict[str, dict[str, Any]] = {
    "ratchet": {"item": "i", "rater": 7, "label": "first", "prompt": "", "response_1": "a", "response_2": ""},
    "hh-rlhf": {"chosen": "\n\nHuman: q\n\nAssistant: a", "rejected": "\n\nHuman: q\n\nAssistant:"},
    "trl": {"prompt": "", "chosen": "a", "rejected": ""},
    "trl-implicit": {"chosen": "q a", "rejected": ""},
    "trl-chat": {
        name: [{"role": "user", "content": name}] for name in ("prompt", "chosen", "rejected")
    },
    "trl-chat-implicit": {
        name: [{"role": "user", "content": "q"}, {"role": "assistant", "content": name}]
        for name in ("chosen", "rejected")
    },
    "label-studio": {
        "id": 1,
        "data": {"prompt": "p", "response_1": "a", "response_2": "b"},
        "annotations": [
            {"completed_by": 3, "result": [{"type": "pairwise", "from_name": "x", "value": {"selected": "right"}}]}
        ],
    },
    "argilla": {
        "id": "1",
        "fields": {"prompt": "p", "response_1": "a", "response_2": "b"},
        "responses": {"preference": [{"value": "tie", "user_id": "u"}]},
    },
}  # fmt: skip

BAD: list[tuple[str, dict[str, Any], str]] = [
    ("ratchet", {"response_1": True}, "response_1 is a boolean, not text"),
    ("ratchet", {"response_2": 3}, "response_2 is a number"),
    ("ratchet", {"label": "best"}, "--map best=CHOICE"),
    ("ratchet", {"label": None}, "label is missing"),
    ("ratchet", {"item": ""}, "item is empty"),
    ("ratchet", {"rater": None}, "rater is null"),
    ("ratchet", {"rater": False}, "rater is a boolean"),
    ("ratchet", {"prompt": [{"role": "user", "content": "p"}]}, "all be texts"),
    ("hh-rlhf", {"chosen": "hello"}, "same Human and Assistant turns"),
    ("hh-rlhf", {"rejected": "\n\nHuman: other\n\nAssistant: a"}, "same Human and Assistant turns"),
    ("hh-rlhf", {"chosen": None}, "chosen is null"),
    ("trl", {"prompt": [{"role": "user", "content": "p"}]}, "`chat` in its name"),
    ("trl", {"chosen": False}, "chosen is a boolean"),
    ("trl-implicit", {"prompt": "p"}, "without `implicit`"),
    ("trl-chat", {"prompt": "p"}, "without `chat`"),
    ("trl-chat", {"chosen": []}, "empty"),
    ("trl-chat", {"chosen": [{"role": "user", "content": "a", "name": "b"}]}, "nothing else"),
    ("trl-chat", {"chosen": [{"role": "user", "content": True}]}, "must be texts"),
    ("trl-chat-implicit", {"chosen": [{"role": "user", "content": "other"}]}, "share no beginning"),
    ("label-studio", {"data": None}, "null, not an object"),
    ("label-studio", {"annotations": [{"completed_by": 1, "result": []}]}, "0 pairwise or choices results"),
    ("label-studio", {"annotations": [{"result": []}]}, "completed_by is missing"),
    ("argilla", {"fields": {}}, "prompt is missing"),
    ("argilla", {"responses": {"preference": [{"value": 4, "user_id": "u"}]}}, "--map 4=CHOICE"),
    ("argilla", {"responses": {"preference": "first"}}, "text, not a list"),
    ("argilla", {"responses": {"harmful": [{"value": ["first"], "user_id": "u"}]}}, "but not preference"),
    ("argilla", {"responses": [{"user_id": "u", "status": "lost", "values": {}}]}, "is not one of submitted"),
    ("argilla", {"metadata": {"ratchet_escaped": "rot13"}}, "only html is known"),
]


def saved(folder: Path, form: str, records: Sequence[Any]) -> Path:
    path = folder / "given"
    lines = [json.dumps(record) for record in records]
    path.write_text(f"[{','.join(lines)}]" if FORMATS[form].is_array else "\n".join(lines))
    return path


class TestBadRecords:
    @pytest.mark.parametrize("form", GOOD)
    def test_the_good_ones_are_good(self, form: str, tmp_path: Path) -> None:
        read = read_labels(saved(tmp_path, form, [GOOD[form]]), FORMATS[form], Reading())
        assert (len(read.bad), len(read.labels)) == (0, 1), read.bad.told()

    @pytest.mark.parametrize(("form", "change", "why"), BAD)
    def test_a_bad_one_is_told_by_its_number(self, form: str, change: dict[str, Any], why: str, tmp_path: Path) -> None:
        path = saved(tmp_path, form, [{**GOOD[form], **change}, 5])
        read = read_labels(path, FORMATS[form], Reading())
        assert len(read.labels) == 0
        first, second = read.bad.told().splitlines()
        assert " 1: " in first
        assert why in first
        assert " 2: it is a number, not an object" in second
        with pytest.raises(UsageError, match=r"2 bad .*; nothing was done"):
            read.bad.refuse("nothing was done")

    @given(st.lists(st.booleans(), min_size=1, max_size=60))
    @settings(deadline=None, max_examples=50)
    def test_every_one_is_told_or_counted(self, are_good: list[bool]) -> None:
        """A response of `true`, as real files have, is not the text "true"."""
        rows = [
            {**GOOD["ratchet"], "item": at, "response_1": "a" if good else True} for at, good in enumerate(are_good)
        ]
        with tempfile.TemporaryDirectory() as folder:
            read = read_labels(saved(Path(folder), "ratchet", rows), FORMATS["ratchet"], Reading())
        bad = [at + 1 for at, good in enumerate(are_good) if not good]
        assert (len(read.labels), len(read.bad)) == (sum(are_good), len(bad))
        told = read.bad.told().splitlines()
        assert [line.split(":")[0] for line in told[:20]] == [f"  line {number}" for number in bad[:20]]
        assert told[20:] == ([f"  and {len(bad) - 20} more"] if len(bad) > 20 else [])

    def test_a_second_label_names_both_rows(self, tmp_path: Path) -> None:
        path = saved(tmp_path, "ratchet", [GOOD["ratchet"], {**GOOD["ratchet"], "item": "j"}, GOOD["ratchet"]])
        assert "line 3: rater '7' labelled item 'i' before, in line 1" in read_labels(
            path, FORMATS["ratchet"], Reading()
        ).bad.told()  # fmt: skip

    def test_one_bad_annotation_spoils_its_task_alone(self, tmp_path: Path) -> None:
        good = GOOD["label-studio"]
        half = {**good, "id": 2, "annotations": [*good["annotations"], {"completed_by": 4, "result": []}]}
        read = read_labels(saved(tmp_path, "label-studio", [half, good]), FORMATS["label-studio"], Reading())
        assert [label.item for label in read.labels] == ["1"]
        assert read.bad.told().startswith("  record 1: ")

    @pytest.mark.parametrize("data", [b"", b"{}", b"[", b"\xff", b"[NaN]", b"[" * 100_000])
    def test_a_file_that_is_no_array_is_refused_as_a_whole(self, data: bytes, tmp_path: Path) -> None:
        (tmp_path / "given").write_bytes(data)
        with pytest.raises(UsageError, match="JSON array of records is wanted"):
            read_labels(tmp_path / "given", FORMATS["argilla"], Reading())


class TestReading:
    def test_words_fields_and_questions_are_the_project_s(self, tmp_path: Path) -> None:
        record = {
            "id": "1",
            "fields": {"ask": "p", "x": "a", "y": "b"},
            "responses": {"score": [{"value": 1, "user_id": "u"}, {"value": 3, "user_id": "v"}], "other": [5]},
        }
        words = parse_words(["1=first", "2=tie", "3=second"], dict(CHOICE_WORDS))
        reading = Reading(words=words, fields=("ask", "x", "y"), question="score")
        read = read_labels(saved(tmp_path, "argilla", [record]), FORMATS["argilla"], reading)
        assert [(label.rater, label.label) for label in read.labels] == [("u", Choice.FIRST), ("v", Choice.SECOND)]

    def test_of_several_controls_one_is_named(self, tmp_path: Path) -> None:
        results = [
            {"type": "pairwise", "from_name": name, "value": {"selected": side}}
            for name, side in (("help", "left"), ("harm", "right"))
        ]
        task = {**GOOD["label-studio"], "annotations": [{"completed_by": {"id": 5}, "result": results}]}
        path = saved(tmp_path, "label-studio", [task])
        assert len(read_labels(path, FORMATS["label-studio"], Reading()).bad) == 1
        (label,) = read_labels(path, FORMATS["label-studio"], Reading(question="harm")).labels
        assert (label.rater, label.label) == ("5", Choice.SECOND)

    @pytest.mark.parametrize("said", ["first", "=first", "a=best", "a=", ""])
    def test_a_word_needs_a_choice(self, said: str) -> None:
        with pytest.raises(UsageError, match="VALUE=CHOICE"):
            parse_words([said], {})


class TestWriting:
    CHAT = one((Message("user", "p"),), (Message("assistant", "a"),), (Message("assistant", "b"),))

    @pytest.mark.parametrize(
        ("form", "label", "why"),
        [
            ("trl", CHAT, "conversation"),
            ("trl-implicit", CHAT, "conversation"),
            ("hh-rlhf", one("p\n\nAssistant: sure"), "cannot hold"),
            ("hh-rlhf", one(first="a\n\nHuman: more"), "cannot hold"),
            ("hh-rlhf", replace(CHAT, prompt=(Message("system", "s"),)), "cannot hold"),
        ],
    )
    def test_what_a_format_cannot_hold_is_refused_and_nothing_is_left(
        self, form: str, label: Labelled, why: str, tmp_path: Path
    ) -> None:
        with pytest.raises(UsageError, match=f"item 'i' cannot be written: .*{why}.*nothing was written"):
            write_labels(tmp_path / "out", FORMATS[form], [label])
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("form", ["label-studio", "argilla"])
    def test_raters_of_an_item_saw_the_same(self, form: str, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="did not see the same texts"):
            write_labels(tmp_path / "out", FORMATS[form], [one(), replace(one("q"), rater="s")])

    def test_labels_without_a_winner_are_counted(self, tmp_path: Path) -> None:
        labels = [replace(one(label=choice), rater=choice) for choice in Choice]
        assert write_labels(tmp_path / "trl", FORMATS["trl"], labels) == 3
        assert write_labels(tmp_path / "ours", FORMATS["ratchet"], labels) == 0
        assert len((tmp_path / "trl").read_text().splitlines()) == 2
