"""Label Studio and Argilla: what their own files say, what is passed over, and set-ups that take no text for HTML.

The records are written after the tools' documentation and sources, so that no round trip can hide a mistake.
"""

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hostile_texts import HOSTILE

from orchestrator.core.records import Choice, Harm
from orchestrator.errors import UsageError
from orchestrator.labels.comparisons import Comparison, Labelled, Message, Reading
from orchestrator.labels.exchange import Read, read_labels, write_labels, write_tasks
from orchestrator.labels.formats import FORMATS
from orchestrator.labels.projects import ARGILLA, LABEL_STUDIO

TEXTS = {"prompt": "p", "response_1": "a", "response_2": "b"}


def read(folder: Path, form: str, *records: dict[str, Any], **reading: Any) -> Read:
    path = folder / "given.json"
    path.write_text(json.dumps(list(records)))
    return read_labels(path, FORMATS[form], Reading(**reading))


def said(found: Read) -> list[tuple[str, Choice, Harm | None]]:
    assert len(found.bad) == 0, found.bad.told()
    return [(label.rater, label.label, label.harm) for label in found.labels]


def annotation(who: Any, *results: dict[str, Any], **more: Any) -> dict[str, Any]:
    """As the task format documents it, with the keys that we have no use for."""
    return {
        "id": 1001, "completed_by": who, "result": list(results), "was_cancelled": False, "ground_truth": False,
        "created_at": "2026-03-09T22:16:08.728353Z", "lead_time": 4.288, "result_count": 1, "task": 1, **more,
    }  # fmt: skip


def choices(control: str, *values: str) -> dict[str, Any]:
    return {
        "id": "Dx_aB91ISN", "from_name": control, "to_name": "prompt", "type": "choices", "origin": "manual",
        "value": {"choices": list(values)},
    }  # fmt: skip


LEFT = {
    "id": "k2", "from_name": "preference", "to_name": "preference", "type": "pairwise", "origin": "manual",
    "value": {"selected": "left"},
}  # fmt: skip


class TestLabelStudio:
    def task(self, *annotations: dict[str, Any], **more: Any) -> dict[str, Any]:
        return {
            "id": 9,
            "data": {"item": "s0.a0.gate.3", **TEXTS},
            "annotations": list(annotations),
            "meta": {},
            **more,
        }

    def test_an_export_as_the_tool_writes_it(self, tmp_path: Path) -> None:
        task = self.task(
            annotation({"id": 1, "email": "ana@x.org", "first_name": "", "last_name": ""}, LEFT),
            annotation(7, choices("no_winner", "both_bad"), choices("harmful", "second", "first")),
            annotation(8, was_cancelled=True),
            drafts=[],
            predictions=[],
        )
        found = read(tmp_path, "label-studio", task)
        assert said(found) == [
            ("ana@x.org", Choice.FIRST, None), ("7", Choice.BOTH_BAD, Harm.BOTH), ("8", Choice.SKIP, None)
        ]  # fmt: skip
        assert {label.item for label in found.labels} == {"s0.a0.gate.3"}
        assert not found.passed_over

    def test_what_else_is_in_it_is_counted(self, tmp_path: Path) -> None:
        comment = {"type": "textarea", "from_name": "why", "to_name": "prompt", "value": {"text": ["so"]}}
        task = self.task(
            annotation(1, LEFT, comment), annotation(2, LEFT, comment), annotation(3, LEFT, was_cancelled=True),
            drafts=[{"result": [LEFT]}], predictions=[{"result": [LEFT]}, {"result": []}],
        )  # fmt: skip
        found = read(tmp_path, "label-studio", task)
        assert said(found) == [("1", Choice.FIRST, None), ("2", Choice.FIRST, None), ("3", Choice.SKIP, None)]
        assert found.passed_over == {
            "textarea result of control why": 2, "pairwise result of control preference": 1, "draft": 1, "prediction": 2
        }  # fmt: skip

    def test_two_answers_are_none(self, tmp_path: Path) -> None:
        found = read(tmp_path, "label-studio", self.task(annotation(1, LEFT, choices("no_winner", "tie"))))
        assert "an annotation has 2 pairwise or choices results" in found.bad.told()
        (only,) = read(
            tmp_path, "label-studio", self.task(annotation(1, LEFT, choices("no_winner", "tie"))), question="no_winner"
        ).labels
        assert only.label is Choice.TIE

    @pytest.mark.parametrize(
        ("task", "why"),
        [
            ({"id": 1, "prompt": "p", "preference": "left"}, "JSON-MIN"),
            ({"id": 1, "data": {**TEXTS, "ratchet_escaped": "twice"}}, "only html is known"),
            ({"id": 1, "data": TEXTS, "annotations": {}}, "annotations is an object, not a list"),
            (
                {"id": 1, "data": TEXTS, "annotations": [annotation(1, LEFT, choices("harmful", "third"))]},
                "a list of first and second is wanted",
            ),
        ],
    )
    def test_other_files_are_told(self, task: dict[str, Any], why: str, tmp_path: Path) -> None:
        found = read(tmp_path, "label-studio", task)
        assert not found.labels
        assert why in found.bad.told()
        assert len(found.bad.told().splitlines()) == 1

    def test_the_set_up_shows_texts_as_texts(self) -> None:
        root = ElementTree.fromstring(LABEL_STUDIO.set_up(2))
        taking = [element for element in root.iter() if any("$" in value for value in element.attrib.values())]
        assert [(element.tag, element.attrib["value"], element.attrib["valueType"]) for element in taking] == [
            ("Text", "$prompt", "text"), ("Text", "$response_1", "text"), ("Text", "$response_2", "text")
        ]  # fmt: skip
        names = {element.attrib["name"] for element in root.iter() if "name" in element.attrib}
        for element in root.iter():
            assert set(element.attrib.get("toName", "prompt").split(",")) <= names
        aliases = [element.attrib["alias"] for element in root.iter("Choice")]
        assert aliases == ["tie", "both_bad", "first", "second"]


class TestArgilla:
    def record(self, responses: Any, **more: Any) -> dict[str, Any]:
        return {
            "id": "initial.4", "fields": TEXTS, "metadata": {}, "suggestions": {}, "responses": responses,
            "vectors": {}, "_server_id": "b6f1", **more,
        }  # fmt: skip

    def test_records_to_json(self, tmp_path: Path) -> None:
        """The client's `Record.to_dict` (2.8.0): by question, without a status."""
        found = read(
            tmp_path, "argilla",
            self.record({
                "preference": [{"value": "second", "user_id": "u"}, {"value": "tie", "user_id": "v"}],
                "harmful": [{"value": ["first"], "user_id": "v"}, {"value": [], "user_id": "u"}],
                "why": [{"value": "so", "user_id": "v"}],
            }, suggestions={"preference": {"value": "first", "score": None, "agent": "m"}}),
        )  # fmt: skip
        assert said(found) == [("u", Choice.SECOND, None), ("v", Choice.TIE, Harm.FIRST)]
        assert found.passed_over == {"answer to why": 1, "suggestion": 1}

    def test_answers_by_user_with_their_status(self, tmp_path: Path) -> None:
        """The server's answers, and version 1's files."""
        found = read(
            tmp_path, "argilla",
            self.record([
                {"user_id": "u", "status": "submitted", "values": {"preference": {"value": "first"}}},
                {"user_id": "v", "status": "discarded", "values": None},
                {"user_id": "w", "status": "draft", "values": {"preference": {"value": "tie"}}},
                {"user_id": "x", "status": "submitted",
                 "values": {"preference": {"value": "both_bad"}, "harmful": {"value": ["first", "second"]}}},
            ], metadata=None, suggestions=None),
        )  # fmt: skip
        assert said(found) == [
            ("u", Choice.FIRST, None), ("v", Choice.SKIP, None), ("x", Choice.BOTH_BAD, Harm.BOTH)
        ]  # fmt: skip
        assert found.passed_over == {"draft": 1}

    def test_one_user_answers_once(self, tmp_path: Path) -> None:
        twice = {"preference": [{"value": "first", "user_id": "u"}, {"value": "tie", "user_id": "u"}]}
        assert "answered preference twice" in read(tmp_path, "argilla", self.record(twice)).bad.told()

    def test_the_set_up_shows_texts_as_texts_and_offers_every_choice(self) -> None:
        found = json.loads(ARGILLA.set_up(3))
        assert [(field["name"], field["settings"]) for field in found["fields"]] == [
            (name, {"type": "text", "use_markdown": False}) for name in TEXTS
        ]
        preference, harmful = found["questions"]
        assert [option["value"] for option in preference["settings"]["options"]] == list(Choice)
        assert [option["value"] for option in harmful["settings"]["options"]] == ["first", "second"]
        assert found["distribution"] == {"strategy": "overlap", "min_submitted": 3}


class TestTasks:
    @pytest.mark.parametrize("form", ["label-studio", "argilla"])
    def test_an_annotated_task_is_a_label(self, form: str, tmp_path: Path) -> None:
        """As the tool adds an annotation to what it was given."""
        shown = [Comparison(f"initial.{at}", text, text[:9], f"{text}!") for at, text in enumerate(HOSTILE)]
        project = FORMATS[form].project
        assert project is not None
        write_tasks(tmp_path / "tasks.json", project, shown, escape=False)
        records = json.loads((tmp_path / "tasks.json").read_text())
        for record in records:
            if form == "label-studio":
                assert record["annotations"] == []
                record["annotations"].append(annotation(5, choices("no_winner", "tie"), choices("harmful", "first")))
            else:
                assert record["responses"] == {}
                record["responses"] = {"preference": [{"value": "tie", "user_id": "5"}],
                                       "harmful": [{"value": ["first"], "user_id": "5"}]}  # fmt: skip
        assert list(read(tmp_path, form, *records).labels) == [
            Labelled(c.item, "5", Choice.TIE, c.prompt, c.response_1, c.response_2, Harm.FIRST) for c in shown
        ]

    def test_escaped_texts_hold_no_markup(self, tmp_path: Path) -> None:
        chat = (Message("user", "<b>&amp;"),)
        label = Labelled("i", "r", Choice.FIRST, chat, chat, (Message("assistant", "\"'"),))
        write_labels(tmp_path / "out", FORMATS["argilla"], [label], escape=True)
        (record,) = json.loads((tmp_path / "out").read_text())
        assert record["fields"]["prompt"] == [{"role": "user", "content": "&lt;b&gt;&amp;amp;"}]
        assert record["fields"]["response_2"][0]["content"] == "&quot;&#x27;"
        assert record["metadata"]["ratchet_escaped"] == "html"
        with pytest.raises(UsageError, match="trl is none"):
            write_labels(tmp_path / "trl", FORMATS["trl"], [label], escape=True)

    @pytest.mark.parametrize("escape", [False, True])
    @pytest.mark.parametrize(("form", "where"), [("label-studio", "data"), ("argilla", "fields")])
    def test_other_texts_than_were_exported_are_refused(
        self, form: str, where: str, escape: bool, tmp_path: Path
    ) -> None:
        label = Labelled("i", "r", Choice.FIRST, "see s3://bucket/key", "a", "b")
        write_labels(tmp_path / "out", FORMATS[form], [label], escape=escape)
        (record,) = json.loads((tmp_path / "out").read_text())
        assert list(read(tmp_path, form, record).labels) == [label]
        record[where]["prompt"] = "see https://bucket.example/key?signed"
        assert "its texts are not those that were exported" in read(tmp_path, form, record).bad.told()

    @pytest.mark.parametrize(
        ("text", "breaks"), [("a\0", True), ("\ud83d", True), ("\U0001f469\u200d\n\x1b", False), ("", False)]
    )
    def test_what_no_database_keeps_is_known(self, text: str, breaks: bool) -> None:
        assert Comparison("i", "p", "a", text).breaks_databases is breaks
        chat = (Message("user", text),)
        assert Comparison("i", chat, chat, chat).breaks_databases is breaks
