"""`ratchet labels`: its documents, its refusals, and what of a campaign's labels may leave."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from small_campaigns import Campaign, CommandLine, Ended, Small, with_people

from orchestrator.cli.labels import FORMAT_NAMES, PROJECT_NAMES
from orchestrator.core.records import Choice
from orchestrator.labels.formats import FORMATS

Run = Callable[..., Ended]


@pytest.fixture
def run(command_line: CommandLine, tmp_path: Path) -> Run:
    return lambda *arguments, **options: command_line(tmp_path, *map(str, arguments), **options)


def lines(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


VOTES = [
    {"item": 1, "rater": "ana", "label": "a1"},
    {"item": 1, "rater": "bob", "label": "a1"},
    {"item": 2, "rater": "ana", "label": "a2"},
    {"item": 2, "rater": "bob", "label": "equal"},
]


def test_the_formats_offered_are_what_there_is() -> None:
    assert list(FORMATS) == list(FORMAT_NAMES)
    assert [name for name, form in FORMATS.items() if form.project is not None] == list(PROJECT_NAMES)


class TestAgreement:
    def test_the_document_has_all_that_was_promised(self, run: Run, tmp_path: Path) -> None:
        ended = run("labels", "agreement", lines(tmp_path / "votes.jsonl", *VOTES), "--json")
        assert (ended.code, ended.stderr) == (0, "")
        found = ended.json
        assert {key: found[key] for key in ("items", "raters", "labels", "agreement")} == {
            "items": 2, "raters": 2, "labels": 4, "agreement": 0.5
        }  # fmt: skip
        # p_o 1/2, p_e = 1/2 · 1/2 for a1, nothing for the others
        assert found["pairs"] == [
            {"a": "ana", "b": "bob", "items": 2, "agreement": 0.5, "kappa": pytest.approx(1 / 3)}
        ]  # fmt: skip
        assert found["fleiss_kappa"] == pytest.approx((1 / 2 - 3 / 8) / (5 / 8))
        # nominal: D_o 2/4, D_e (2·2 + 2·2 + 2·1)/12; ordinal: n = 2, 1, 1; a1-equal 1.5², equal-a2 1², a1-a2 2.5²
        assert found["krippendorff_alpha"]["nominal"] == pytest.approx(1 - (2 / 4) / (10 / 12))
        expected = 2 * (2 * 1.5**2 + 1 + 2 * 2.5**2) / 12
        assert found["krippendorff_alpha"]["ordinal"] == pytest.approx(1 - (2 / 4) / expected)

    def test_people_get_a_table_that_obeys_nobody(self, run: Run, tmp_path: Path) -> None:
        hostile = "\x1b[2J\u202e[bold]\u0301"
        votes = [{**row, "rater": hostile + row["rater"], "label": hostile + row["label"]} for row in VOTES]
        ended = run("labels", "agreement", lines(tmp_path / "votes.jsonl", *votes))
        assert ended.code == 0
        assert "4 labels of 2 items by 2 raters" in ended.stdout
        assert "Krippendorff" in ended.stdout
        assert "\\x1b[2J\\u202e[bold]" in ended.stdout
        assert "\x1b" not in ended.stdout

    def test_a_bad_file_makes_no_figures(self, run: Run, tmp_path: Path) -> None:
        ended = run("labels", "agreement", lines(tmp_path / "votes.jsonl", *VOTES, {"item": 3}, VOTES[0]), "--json")
        assert (ended.code, ended.stdout) == (2, "")
        assert "2 bad lines; no figures were made" in ended.stderr
        assert "line 5: rater is missing" in ended.stderr
        assert "line 6: rater 'ana' labelled item 1 before, in line 1" in ended.stderr

    def test_neither_file_nor_campaign(self, run: Run) -> None:
        ended = run("labels", "agreement", "nowhere")
        assert ended.code == 2
        assert "there is no file 'nowhere', and as a campaign" in ended.stderr

    def test_order_and_consensus(self, run: Run, tmp_path: Path) -> None:
        path = lines(tmp_path / "votes.jsonl", *VOTES)
        assert run("labels", "agreement", path, "--order", "a1,a2").code == 2
        ended = run("labels", "agreement", path, "--order", "a1,a2,equal", "--consensus", "best.jsonl", "--json")
        assert ended.json["classes"] == ["a1", "a2", "equal"]
        best = [json.loads(line) for line in (tmp_path / "best.jsonl").read_text().splitlines()]
        assert (best[0]["item"], best[0]["label"]) == (1, "a1")
        assert run("labels", "agreement", path, "--consensus", "best.jsonl").code == 2

    def test_pandalm_s_annotators(self, run: Run, tmp_path: Path) -> None:
        from label_data import pandalm

        votes = [
            {"item": row["idx"], "rater": who, "label": row[f"annotator{who}"]}
            for row in pandalm()
            for who in (1, 2, 3)
        ]
        found = run("labels", "agreement", lines(tmp_path / "votes.jsonl", *votes), "--json").json
        assert [(pair["a"], pair["b"], round(pair["kappa"], 3)) for pair in found["pairs"]] == [
            (1, 2, 0.840), (1, 3, 0.860), (2, 3, 0.844)
        ]  # fmt: skip


class TestImport:
    def test_bad_rows_are_told_and_nothing_is_imported(self, run: Run, tmp_path: Path) -> None:
        good = {"prompt": "p", "chosen": "a", "rejected": "b"}
        path = lines(tmp_path / "given.jsonl", good, {**good, "chosen": True}, {**good, "rejected": ""})
        ended = run("labels", "import", path, "--format", "trl", "--out", "got.jsonl")
        assert ended.code == 2
        assert "1 bad line; nothing was imported" in ended.stderr
        assert "line 2: chosen is a boolean, not text" in ended.stderr
        assert not (tmp_path / "got.jsonl").exists()
        ended = run("labels", "import", path, "--format", "trl", "--out", "got.jsonl", "--skip-bad", "--json")
        assert ended.json == {"labels": 2, "items": 2, "bad_rows": 1, "passed_over": {}, "out": "got.jsonl"}
        assert "line 2: chosen is a boolean" in ended.stderr
        assert len((tmp_path / "got.jsonl").read_text().splitlines()) == 2

    def test_what_was_imported_has_figures_and_can_leave_again(self, run: Run, tmp_path: Path) -> None:
        record = {
            "id": "1",
            "fields": {"ask": "p", "x": "a", "y": "bb"},
            "responses": {"score": [{"value": 1, "user_id": "u"}, {"value": 2, "user_id": "v"}]},
        }
        (tmp_path / "given.json").write_text(json.dumps([record]))
        ended = run(
            "labels", "import", "given.json", "--format", "argilla", "--out", "got.jsonl", "--fields", "ask,x,y",
            "--question", "score", "--map", "1=first", "--map", "2=second",
        )  # fmt: skip
        assert ended.code == 0, ended.stderr
        found = run("labels", "agreement", "got.jsonl", "--json").json
        assert [(rater["rater"], rater["longer"]["share"]) for rater in found["per_rater"]] == [("u", 0.0), ("v", 1.0)]
        assert run("labels", "export", "got.jsonl", "--format", "trl", "--out", "trl.jsonl").code == 0
        assert [json.loads(line)["chosen"] for line in (tmp_path / "trl.jsonl").read_text().splitlines()] == ["a", "bb"]

    @pytest.mark.parametrize(
        ("arguments", "why"),
        [
            (["--out", "given.jsonl"], "not overwritten"),
            (["--out", "nowhere/got"], "no folder"),
            (["--out", "got", "--map", "a=best"], "VALUE=CHOICE"),
            (["--out", "got", "--fields", "a,b"], "three names"),
        ],
    )
    def test_mistakes_are_told(self, arguments: list[str], why: str, run: Run, tmp_path: Path) -> None:
        lines(tmp_path / "given.jsonl", {"prompt": "p", "chosen": "a", "rejected": "b"})
        ended = run("labels", "import", "given.jsonl", "--format", "trl", *arguments)
        assert ended.code == 2
        assert why in ended.stderr
        assert [path.name for path in tmp_path.iterdir() if not path.name.startswith(".")] == ["given.jsonl"]

    def test_what_is_no_label_is_told_in_a_line(self, run: Run, tmp_path: Path) -> None:
        answers = [{"value": "first", "user_id": "u"}, {"value": "tie", "user_id": "v", "status": "draft"}]
        record = {
            "id": "1",
            "fields": {"prompt": "p", "response_1": "a", "response_2": "b"},
            "responses": {"preference": answers, "\x1b[2J": [{"value": "x", "user_id": "u"}]},
        }
        (tmp_path / "given.json").write_text(json.dumps([record]))
        ended = run("labels", "import", "given.json", "--format", "argilla", "--out", "got.jsonl", "--json")
        assert (ended.code, ended.json["labels"]) == (0, 1)
        assert ended.json["passed_over"] == {"answer to \x1b[2J": 1, "draft": 1}
        assert ended.stderr == "passed over: 1 × answer to \\x1b[2J, 1 × draft\n"

    @pytest.mark.parametrize("form", PROJECT_NAMES)
    @pytest.mark.parametrize("content", ["", "{}", "<View/>", '{"id": 1}\n{"id": 2}\n', '[{"id": 1}]', "[1]"])
    def test_files_of_another_kind_are_one_line(self, form: str, content: str, run: Run, tmp_path: Path) -> None:
        (tmp_path / "given").write_text(content)
        ended = run("labels", "import", "given", "--format", form, "--out", "got")
        assert ended.code == 2
        assert ended.stderr.startswith("error: given: ")
        assert len(ended.stderr.splitlines()) <= 2, "what, and which record"
        assert not (tmp_path / "got").exists()

    def test_a_file_without_labels_is_told(self, run: Run, tmp_path: Path) -> None:
        (tmp_path / "given.json").write_text("[]")
        ended = run("labels", "import", "given.json", "--format", "argilla", "--out", "got")
        assert (ended.code, "no label in it" in ended.stderr) == (2, True)


class TestCampaign:
    @pytest.fixture
    def at_the_gate(self, small: Small) -> Campaign:
        """Two people labelled all of the first batch and some of the gate's, which has no verdict yet."""
        campaign = small.campaign(**with_people(feedback={"raters_per_item": 2}))
        campaign.run()
        says = {"ann": Choice.FIRST, "bob": Choice.TIE}
        for person, choice in says.items():
            campaign.label(lambda _batch, _item, choice=choice: choice, person=person)
        campaign.run()
        campaign.label(lambda _batch, _item: Choice.SECOND, items=range(6))
        return campaign

    def test_figures_come_from_the_ledger(self, at_the_gate: Campaign, run: Run) -> None:
        found = run("labels", "agreement", at_the_gate.name, "--json").json
        initial, gate, audit = at_the_gate.state.batches
        assert found["labels"] == len(initial.labels) + len(gate.labels) == 86
        assert not audit.labels
        assert found["items"] == 46
        assert found["pairs"] == [{"a": "ann", "b": "bob", "items": 40, "agreement": 0.0, "kappa": 0.0}]
        ann, bob = found["per_rater"]
        assert ann["first"]["share"] == pytest.approx(40 / 46)
        assert bob["first"]["labels"] == 0
        assert found["ceiling"]["reward_human"]["items"] == 0, "the gate has not given its verdict"

    def test_sealed_labels_stay(self, at_the_gate: Campaign, run: Run, tmp_path: Path) -> None:
        ended = run("labels", "export", at_the_gate.name, "--format", "ratchet", "--out", "ours.jsonl", "--json")
        assert ended.json == {"labels": 80, "left_out": {"sealed": 6, "without_winner": 0}, "out": "ours.jsonl"}
        rows = [json.loads(line) for line in (tmp_path / "ours.jsonl").read_text().splitlines()]
        assert {row["item"].split(".")[0] for row in rows} == {"initial"}
        shown = {
            row["item"]: row
            for row in at_the_gate.home.artifacts().read_lines(at_the_gate.state.batches[0].comparisons)
        }
        for row in rows:
            seen = shown[int(row["item"].split(".")[1])]
            assert all(row[key] == seen[key] for key in ("prompt", "response_1", "response_2"))
        ended = run("labels", "export", at_the_gate.name, "--format", "trl", "--out", "trl.jsonl", "--json")
        assert ended.json["left_out"] == {"sealed": 6, "without_winner": 40}

    def test_after_the_verdict_they_leave_and_the_reward_model_is_held_against_people(
        self, small: Small, run: Run
    ) -> None:
        campaign = small.campaign(**with_people())
        for _ in range(2):
            campaign.run()
            campaign.label(lambda _batch, item: (Choice.FIRST, Choice.SECOND, Choice.TIE)[item % 3])
        campaign.run()
        assert campaign.state.attempts[0].verdict is not None
        every = sum(len(batch.labels) for batch in campaign.state.batches)
        audit, gate = (campaign.state.batch(f"s0.a0.{queue}") for queue in ("audit", "gate"))
        assert audit is not None
        assert gate is not None
        assert (audit.id, len(audit.labels), every) == ("s0.a0.audit", 40, 120)
        ended = run("labels", "export", campaign.name, "--format", "ratchet", "--out", "ours.jsonl", "--json")
        assert (ended.json["labels"], ended.json["left_out"]["sealed"]) == (80, 0), "the auditor's never leave"
        found = run("labels", "agreement", campaign.name, "--json").json
        by_gold = {label.item: label.choice for label in audit.labels}
        (ann,) = found["per_rater"]
        assert ann["gold"]["labels"] == 40
        assert ann["gold"]["share"] == pytest.approx(
            sum(label.choice is by_gold[label.item] for label in gate.labels) / 40
        )
        agreed = total = 0
        for batch in campaign.state.batches:
            for label in batch.labels:
                if batch.p_hat and label.choice in (Choice.FIRST, Choice.SECOND) and batch.p_hat[label.item] != 0.5:
                    candidate_won = (label.choice is Choice.FIRST) == batch.candidate_first[label.item]
                    agreed += candidate_won == (batch.p_hat[label.item] > 0.5)
                    total += 1
        assert total > 0
        assert found["ceiling"]["reward_human"]["items"] == total, "one rater an item"
        assert found["ceiling"]["reward_human"]["value"] == pytest.approx(agreed / total)

    @pytest.mark.parametrize("form", PROJECT_NAMES)
    def test_tasks_are_what_the_queue_still_wants_and_blind(
        self, form: str, at_the_gate: Campaign, run: Run, tmp_path: Path
    ) -> None:
        written = ("--out", "tasks.json", "--set-up", "set-up")
        ended = run("labels", "tasks", at_the_gate.name, "--format", form, *written, "--json")
        assert ended.code == 0, ended.stderr
        assert ended.json == {"tasks": 40, "batch": "s0.a0.gate", "raters": 2, "out": "tasks.json"}
        gate = at_the_gate.state.batch("s0.a0.gate")
        assert gate is not None
        shown = {row["item"]: row for row in at_the_gate.home.artifacts().read_lines(gate.comparisons)}
        records = json.loads((tmp_path / "tasks.json").read_text())
        texts = {name: [shown[item][name] for item in range(40)] for name in ("prompt", "response_1", "response_2")}
        items = [f"s0.a0.gate.{item}" for item in range(40)]
        (sealed,) = (
            event.hash for event in at_the_gate.ledger.events("small")
            if event.type == "comparisons_drawn" and event.body["comparisons"] == gate.comparisons
            and event.body["purpose"] == "gate"
        )  # fmt: skip
        if form == "label-studio":
            assert all(len(record["data"].pop("ratchet_texts")) == 64 for record in records)
            assert {record["data"].pop("ratchet_sealed") for record in records} == {sealed}
            assert [record["data"] for record in records] == [
                {"item": items[i], **{name: texts[name][i] for name in texts}} for i in range(40)
            ]
            assert {json.dumps(sorted(record)) for record in records} == {'["annotations", "data", "id"]'}
        else:
            assert [record["id"] for record in records] == items
            assert [record["fields"] for record in records] == [
                {name: texts[name][i] for name in texts} for i in range(40)
            ]
            assert all(list(record["metadata"]) == ["ratchet_texts", "ratchet_sealed"] for record in records)
            assert {record["metadata"]["ratchet_sealed"] for record in records} == {sealed}
            assert all(not record[key] for record in records for key in ("suggestions", "responses", "vectors"))
        assert "preference" in (tmp_path / "set-up").read_text()
        assert run("labels", "tasks", at_the_gate.name, "--format", form, *written).code == 2, "never over another"

    def test_labelled_items_are_left_out_and_a_batch_can_be_named(self, small: Small, run: Run, tmp_path: Path) -> None:
        campaign = small.campaign(**with_people())
        campaign.run()
        campaign.label(items=[0, 1, 7])
        tasks = ("labels", "tasks", campaign.name, "--format", "label-studio", "--json")
        assert run(*tasks, "--out", "open").json["tasks"] == 37
        assert [task["data"]["item"] for task in json.loads((tmp_path / "open").read_text())[:5]] == [
            f"initial.{item}" for item in (2, 3, 4, 5, 6)
        ]
        assert run(*tasks, "--out", "all", "--batch", "initial").json["tasks"] == 40
        ended = run(*tasks, "--out", "none", "--batch", "s9.a9.gate")
        assert (ended.code, "has no batch 's9.a9.gate' to label; known: initial" in ended.stderr) == (2, True)
        small.campaign("other", name="idle", **with_people())
        ended = run("--home", "other", *tasks[:2], "idle", *tasks[3:], "--out", "none")
        assert (ended.code, "waits for no labels" in ended.stderr) == (2, True)

    def test_a_campaign_without_labels_is_told(self, small: Small, run: Run) -> None:
        small.campaign()
        ended = run("labels", "agreement", "small")
        assert (ended.code, "no labels yet" in ended.stderr) == (2, True)
