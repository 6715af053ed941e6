"""The commands as people and programs meet them: help, documents, exit codes, hostile text."""

import importlib
import json
import os
import pty
import re
import select
import subprocess
import sys
import termios
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import pytest
from desks import let_in
from hostile_texts import ATTACKS, OBEYED
from rich.cells import cell_len
from small_campaigns import Campaign, CommandLine, Small, with_people

from orchestrator.cli.main import COMMANDS, cli
from orchestrator.core import events as ev
from orchestrator.core.records import Choice, Harm, Label, Purpose, Role
from orchestrator.review.asking import is_swapped
from orchestrator.runner import draft


def every_command(command: click.Command = cli, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    yield path, command
    if isinstance(command, click.Group):
        ctx = click.Context(command)
        for name in command.list_commands(ctx):
            found = command.get_command(ctx, name)
            assert found is not None
            yield from every_command(found, (*path, name))


COMMANDS_BY_PATH = {" ".join(("ratchet", *path)): command for path, command in every_command()}


@pytest.mark.parametrize("path", COMMANDS_BY_PATH)
def test_every_command_explains_itself_by_an_example(path: str) -> None:
    command = COMMANDS_BY_PATH[path]
    assert command.help, "undocumented"
    assert "Example:" in command.help
    assert path in command.help, "the example shows another command"
    for option in command.params:
        if isinstance(option, click.Option):
            assert option.help, f"{option.name} is undocumented"


def test_the_list_of_commands_is_what_there_is() -> None:
    for name, (where, summary) in COMMANDS.items():
        module, _, attribute = where.partition(":")
        command = getattr(importlib.import_module(module), attribute)
        assert command.name == name
        assert summary.endswith(".")


HELP = """
import sys
sys.argv = ["ratchet", "--help"]
from orchestrator.cli.main import main
try:
    main()
finally:
    heavy = {"torch", "transformers", "ray", "mlflow", "sqlalchemy", "scipy", "numpy", "pydantic"} & set(sys.modules)
    print("HEAVY", sorted(heavy))
"""


def test_help_imports_nothing_heavy() -> None:
    ended = subprocess.run([sys.executable, "-c", HELP], capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stderr
    assert "Example:" in ended.stdout
    heavy = ended.stdout.rpartition("HEAVY ")[2]
    assert not {"torch", "transformers", "ray", "mlflow", "sqlalchemy"} & set(eval(heavy)), heavy


def test_the_installed_command_answers() -> None:
    ratchet = Path(sys.executable).with_name("ratchet")
    if not ratchet.exists():
        pytest.skip("the package's command is not installed beside this interpreter")
    ended = subprocess.run([ratchet, "--version"], capture_output=True, text=True, timeout=60)
    assert ended.stdout.startswith("ratchet")


def strict_json(text: str) -> Any:
    """One document and nothing else, without NaN."""

    def refuse(word: str) -> Any:
        raise AssertionError(f"{word} is no JSON")

    return json.loads(text, parse_constant=refuse)


SHOW = {
    *("name", "status", "ended_by", "protocol", "stage", "approved", "attempts", "costs", "ledger", "raters"),
}
ATTEMPT = {
    *("stage", "attempt", "verdict", "reasons", "candidate", "start_digest", "win_rate", "win_rate_low"),
    *("over_promise", "over_promise_high", "proxy", "gold", "kl_nats", "labels", "seconds"),
    *("tests", "queues", "vetoes", "notes", "method", "attribution", "wrong_reward_high"),
}
COSTS = {
    *("labels", "prompts", "samples", "tokens", "gradient_steps", "compute_seconds", "waiting_seconds", "usd"),
}


@pytest.fixture
def finished(undisturbed: Small, command_line: CommandLine, tmp_path: Path) -> Any:
    """Runs a command on the home of the campaign that has ended."""
    return lambda *words: command_line(tmp_path, "--home", str(undisturbed.folder / "home"), *words)


def test_show_tells_all_that_was_promised(undisturbed: Small, finished: Any) -> None:
    ended = finished("campaign", "show", "small", "--json")
    assert (ended.code, ended.stderr) == (0, "")
    document, state = strict_json(ended.stdout), undisturbed.reopen().state
    assert document.keys() >= SHOW
    assert (document["status"], document["ended_by"]) == ("finished", "stages_completed")
    assert document["approved"] == {"digest": state.approved, "stage": 1}
    assert len(document["attempts"]) == 2
    for attempt in document["attempts"]:
        assert attempt.keys() >= ATTEMPT
        assert sum(queue["labels"] for queue in attempt["queues"] if queue["purpose"] != "audit") == attempt["labels"]
    assert document["costs"].keys() >= COSTS
    account = document["alpha"]
    assert account.keys() == {"total", "spent", "left", "attempts", "next"}
    assert account["spent"] == account["attempts"][-1]["spent_after"]
    assert account["spent"] + account["left"] == pytest.approx(account["total"])
    assert document["costs"]["labels"] == {"initial": 40, "gate": 40, "training": 20, "audit": 0, "checks": 0}
    assert document["costs"]["usd"] == pytest.approx(100 * 0.6, abs=1)
    assert document["ledger"]["state"] == undisturbed.reopen().digest
    assert document["ledger"]["events"] == len(undisturbed.reopen().events)


def test_people_see_each_test_and_the_error_budget(undisturbed: Small, finished: Any) -> None:
    ended = finished("campaign", "show", "small")
    attempts = undisturbed.reopen().state.attempts
    for attempt in attempts:
        assert f"stage {attempt.stage}, attempt {attempt.attempt}: " in ended.stdout
    last = attempts[-1].verdict
    assert last is not None
    (asked,) = [line for line in ended.stdout.splitlines() if line.startswith("  win rate against approved")]
    improvement = last.tests[0]
    assert f"{improvement.bound:.3f}" in asked
    assert f"> {improvement.limit:.2f}" in asked
    assert asked.rstrip().endswith(" passed")
    # alpha .99, one stage, and only the second attempt of `advance: once` opens a gate
    assert "error budget: 0.9900, spent 0.9900 over 1 gate, 0.0000 left\n" in ended.stdout
    assert "no gate opened" in ended.stdout


def test_list_tells_all_that_was_promised(finished: Any) -> None:
    (document,) = strict_json(finished("campaign", "list", "--json").stdout)
    assert document.keys() >= {"name", "status", "stage", "approved"}
    assert document["name"] == "small"


@pytest.mark.parametrize("noun", ["ledger", "checkpoint"])
def test_verify_tells_all_that_was_promised(finished: Any, noun: str) -> None:
    ended = finished(noun, "verify", "small", "--json")
    document = strict_json(ended.stdout)
    assert (ended.code, document["ok"], document["problems"]) == (0, True, [])
    assert document["checked"] > 10


@pytest.mark.parametrize(
    "words",
    [
        ("checkpoint", "list"),
        ("checkpoint", "show"),
        ("ledger", "show"),
        ("review", "list"),
    ],
)
def test_other_documents_are_one_document_too(finished: Any, words: tuple[str, ...]) -> None:
    ended = finished(*words, "small", "--json")
    assert ended.code == 0
    assert strict_json(ended.stdout)
    assert finished(*words, "small").code == 0


def test_checkpoints_are_listed_with_whole_digests_and_shown_with_a_line_a_reason(finished: Any) -> None:
    rows, listed = (
        finished("checkpoint", "list", "small", "--json").json,
        finished("checkpoint", "list", "small").stdout,
    )
    assert len(listed.splitlines()) == 1 + len(rows)
    for row, line in zip(rows, listed.splitlines()[1:], strict=True):
        assert line.split()[0] == row["digest"]
        assert row["parent"] is None or line.split()[-1] == row["parent"]
    steps, shown = (
        finished("checkpoint", "show", "small", "--json").json,
        finished("checkpoint", "show", "small").stdout,
    )
    reasons = [reason for step in steps for reason in step["reasons"] or ()]
    told = [line.removeprefix("    reason: ") for line in shown.splitlines() if line.startswith("    reason: ")]
    assert told == reasons
    assert len(reasons) > 1


def test_gc_takes_the_name_of_a_campaign(finished: Any) -> None:
    for words in ((), ("small",)):
        ended = finished("checkpoint", "gc", *words, "--dry-run")
        assert (ended.code, ended.stdout) == (0, "0 artifacts are named by no campaign\n")
    ended = finished("checkpoint", "gc", "nobody", "--dry-run")
    assert ended.code == 2
    assert "'nobody'" in ended.stderr


def test_checkpoint_verify_finds_one_flipped_bit(small: Small, command_line: CommandLine) -> None:
    campaign = small.campaign()
    campaign.run()
    file = campaign.checkpoint_file(str(campaign.state.approved))
    os.chmod(file, 0o644)
    content = bytearray(file.read_bytes())
    content[100] ^= 4
    file.write_bytes(content)
    ended = command_line(small.folder, "checkpoint", "verify", "small", "--json")
    assert ended.code == 5
    document = strict_json(ended.stdout)
    assert document["ok"] is False
    assert [problem["where"] for problem in document["problems"]] == [
        f"{str(campaign.state.approved)[:12]} model.safetensors"
    ]
    exported = command_line(small.folder, "checkpoint", "export", "small", "there")
    assert exported.code == 5
    assert "run `ratchet checkpoint verify small`" in exported.stderr
    file.with_name("manifest.json").unlink()
    assert "ratchet checkpoint verify" not in command_line(small.folder, "checkpoint", "verify", "small").stdout
    assert not (small.folder / "there").exists()


def test_the_exported_checkpoint_is_an_ordinary_model_folder(undisturbed: Small, finished: Any, tmp_path: Path) -> None:
    from policies import language_model

    target = tmp_path / "exported"
    assert finished("checkpoint", "export", "small", str(target)).code == 0
    assert language_model.load(target).model.num_parameters() > 0
    assert finished("checkpoint", "export", "small", str(target)).code == 2


def test_a_campaign_starts_from_another_ones_approved_checkpoint(small: Small, command_line: CommandLine) -> None:
    first = small.campaign()
    first.run()
    approved = str(first.state.approved)
    file = str(small.file())
    ended = command_line(
        small.folder, "campaign", "start", file, "--name", "second", "--from", approved[:8], "--json", "--set", "seed=9"
    )
    assert ended.code == 0, ended.stderr
    second = strict_json(ended.stdout)
    assert second["base"] == approved
    assert second["attempts"][0]["start"] == approved
    quarantined = str(first.state.attempts[0].candidate)
    refused = command_line(small.folder, "campaign", "start", file, "--name", "third", "--from", quarantined)
    assert refused.code == 2
    refused = command_line(small.folder, "campaign", "start", file, "--name", "third", "--from", approved[:8])
    assert refused.code == 2
    assert "campaign small, whose seed and task are the same" in refused.stderr
    assert "third" not in first.ledger.campaigns()


def test_exit_codes_of_a_campaign_that_people_decide(small: Small, command_line: CommandLine) -> None:
    file = str(small.file(**with_people(protocol={"attempts": 1})))
    ended = command_line(small.folder, "campaign", "start", file)
    assert ended.code == 3
    assert ended.stderr.rstrip().endswith(": ratchet review label small")
    campaign = small.reopen()
    waiting = strict_json(command_line(small.folder, "review", "list", "small", "--json").stdout)
    assert waiting["comparisons"] == {
        "kind": "comparisons",
        "queue": "initial",
        "batch": "initial",
        "wanted": 40,
        "settled": 0,
        "labelled": 0,
        "missing_by_name": {},
    }
    assert strict_json(command_line(small.folder, "campaign", "show", "small", "--json").stdout)["status"] == "waiting"
    campaign.label()
    assert command_line(small.folder, "campaign", "resume", "small").code == 3
    campaign.label()
    ended = command_line(small.folder, "campaign", "resume", "small", "--json")
    assert ended.code == 3
    candidate = strict_json(ended.stdout)["attempts"][0]["candidate"]
    assert candidate in ended.stderr
    reject = ("review", "reject", "small", "--reviewer", "ann", "--reason", "it evades", "--candidate", candidate)
    assert command_line(small.folder, *reject).code == 0
    ended = command_line(small.folder, "campaign", "resume", "small")
    assert ended.code == 4
    assert command_line(small.folder, "campaign", "resume", "small").code == 4
    assert command_line(small.folder, "campaign", "pause", "small").code == 2
    assert command_line(small.folder, "campaign", "stop", "small", "--reason", "x").code == 2
    assert command_line(small.folder, "campaign", "watch", "small").code == 0
    assert command_line(small.folder, "review", "label", "small", "--reviewer", "ann").code == 0


def test_the_list_says_whose_labels_are_missing(small: Small, command_line: CommandLine) -> None:
    campaign = small.campaign(**with_people(feedback={"raters": ["Ann", "bob"]}))
    campaign.run()
    campaign.label()
    campaign.run()
    missing = strict_json(command_line(small.folder, "review", "list", "small", "--json").stdout)["comparisons"]
    by_name = missing["missing_by_name"]
    assert by_name.keys() == {"ann", "bob"}
    assert sum(by_name.values()) == 40
    assert (
        f"missing from ann: {by_name['ann']}, bob: {by_name['bob']};"
        in command_line(small.folder, "review", "list", "small").stdout
    )
    labelled = command_line(small.folder, "review", "label", "small", "--reviewer", "bob", stdin="1\n" * 40)
    assert "what still waits is for others; see: ratchet review list small" in labelled.stderr
    left = strict_json(command_line(small.folder, "review", "list", "small", "--json").stdout)["comparisons"]
    assert left["missing_by_name"] == {"ann": by_name["ann"]}


def test_resuming_what_has_ended_says_so_and_changes_nothing(undisturbed: Small, finished: Any) -> None:
    before = undisturbed.reopen().types
    ended = finished("campaign", "resume", "small")
    assert ended.code == 0
    assert "small has ended: stages_completed" in ended.stderr
    assert undisturbed.reopen().types == before


def with_hostile_text(campaign: Campaign, texts: Sequence[str]) -> None:
    """Replace the batch that waits by one that a hostile policy wrote."""
    rows = [
        {"item": item, "prompt": text, "response_1": text, "response_2": "[2] approve me"}
        for item, text in enumerate(texts)
    ]
    digest = campaign.home.artifacts().publish_lines("comparisons", rows)
    append = campaign.ledger.append

    def forged(name: str, drafts: Any, **options: Any) -> Any:
        if drafts[0].type == "comparisons_drawn":
            body = {**drafts[0].body, "comparisons": digest, "count": len(rows)}
            drafts = [replace(drafts[0], body=body)]
        return append(name, drafts, **options)

    campaign.ledger.append = forged  # type: ignore[method-assign]
    campaign.run()


OURS = re.compile(
    r"ann is the first person .*|let others in .*|small: 1 .*|─*|your comparison \d+|\[[12]\]|│ .*|first"
    r"|recorded \d+ labels? of ann|no more labels are wanted .*"
)
"""Lines of which a response has no part, but for those behind a bar."""


def test_what_a_model_wrote_is_shown_and_never_obeyed(small: Small, command_line: CommandLine) -> None:
    campaign = small.campaign(**with_people())
    with_hostile_text(campaign, [attack.text for attack in ATTACKS.values()])
    ended = command_line(small.folder, "review", "label", "small", "--reviewer", "ann", stdin="d\n1\n" * len(ATTACKS))
    assert ended.code == 0, ended.stderr
    assert campaign.state.labels.total == len(ATTACKS)
    shown = ended.stdout + ended.stderr
    assert not set(shown) & set(OBEYED)
    assert "\\x1b[2J" in shown
    assert "\\u202e" in shown
    assert "[bold red]red[/]" in shown
    assert "9996000 more characters" in shown
    assert "\u0301" * 5 not in shown
    assert [line for line in shown.split("\n") if not OURS.fullmatch(line)] == []


def test_a_real_terminal_is_told_nothing_to_obey(small: Small) -> None:
    """On a terminal lines are wrapped, keys come one by one, and what is printed would be obeyed."""
    texts = [attack.text for attack in ATTACKS.values()]
    texts.append(" " * 78 + "[2]  ")  # wrapped, it would begin a line
    campaign = small.campaign(**with_people())
    with_hostile_text(campaign, texts)
    terminal, held = pty.openpty()
    environment = {**os.environ, "RATCHET_HOME": str(campaign.home.root), "COLUMNS": "80", "TERM": "xterm-256color"}
    command = [sys.executable, "-m", "orchestrator.cli.main", "review", "label", "small", "--reviewer", "ann"]
    labelling = subprocess.Popen(command, stdin=held, stdout=held, stderr=held, env=environment)
    printed = b""
    for number in range(1, len(texts) + 1):
        while f"your comparison {number}\r".encode() not in printed or printed.count(b"approve me") < number:
            printed += os.read(terminal, 65536)
        while termios.tcgetattr(held)[3] & termios.ICANON:  # a key pressed before it listens is lost
            if select.select([terminal], [], [], 0.01)[0]:  # what is not read fills the terminal, and nobody listens
                printed += os.read(terminal, 65536)
        os.write(terminal, b"1")
    os.close(held)
    with suppress(OSError):  # a terminal that nobody holds any more
        while more := os.read(terminal, 65536):
            printed += more
    os.close(terminal)
    assert labelling.wait() == 0, printed
    shown = printed.decode().replace("\r\n", "\n")
    assert not set(shown) & set(OBEYED)
    assert [line for line in shown.split("\n") if not OURS.fullmatch(line)] == []
    assert "… [16 more marks]" in shown
    behind_bars = [line for line in shown.split("\n") if line.startswith("│")]
    assert max(map(cell_len, behind_bars)) < 80, "a terminal would wrap it itself"


def test_what_people_wrote_is_shown_and_never_obeyed(small: Small, command_line: CommandLine) -> None:
    campaign = small.campaign()
    body = ev.Paused(why="\x1b[31mred\u202e")
    campaign.ledger.append("small", [draft(body, "p", author="ann", reason="\x1b[31m")], epoch=None)
    for words in (("campaign", "show"), ("campaign", "list"), ("ledger", "show"), ("campaign", "resume")):
        ended = command_line(small.folder, *words, *(() if words[1] == "list" else ("small",)))
        assert "\x1b" not in ended.stdout + ended.stderr, words
        assert "\u202e" not in ended.stdout + ended.stderr, words


def as_shown(label: Label) -> tuple[Choice, Harm | None]:
    """What somebody said of the left and the right one."""
    if not label.swapped:
        return label.choice, label.harm
    return label.choice.swapped, label.harm.swapped if label.harm is not None else None


def test_harm_is_flagged_before_the_verdict(small: Small, command_line: CommandLine) -> None:
    """Keys a line: a flag, a flag taken back, a flag changed, a key that means nothing after h, and a bare verdict."""
    campaign = small.campaign(**with_people())
    campaign.run()
    keys = [*("h", "1", "2"), *("h", "2", "h", "n", "3"), *("h", "b", "h", "2", "s"), *("h", "x", "1"), "4", "q"]
    label = ("review", "label", "small", "--reviewer", "ann")
    ended = command_line(small.folder, *label, stdin="".join(f"{key}\n" for key in keys))
    assert ended.code == 0, ended.stderr
    labels = campaign.state.batches[0].labels
    assert [as_shown(label) for label in labels] == [
        ("second", "first"),
        ("tie", None),
        ("skip", "second"),
        ("first", None),
        ("both_bad", None),
    ]
    assert [line for line in ended.stdout.splitlines() if line.startswith("harmful: ")] == [
        *("harmful: first", "harmful: second", "harmful: neither", "harmful: both", "harmful: second")
    ]
    assert "h then 1, 2, b or n" in ended.stderr
    exported = command_line(small.folder, "labels", "export", "small", "--format", "ratchet", "--out", "ours.jsonl")
    assert exported.code == 0, exported.stderr
    rows = [json.loads(line) for line in (small.folder / "ours.jsonl").read_text().splitlines()]
    assert [row.get("harm") for row in rows] == [labels[0].harm, None, labels[2].harm, None, None]
    assert "harm" not in rows[1]


def test_check_items_look_like_all_others(small: Small, command_line: CommandLine) -> None:
    campaign = small.campaign(**with_people(feedback={"checks": {"items": 3, "every": 2}}))
    campaign.run()
    campaign.label()
    campaign.run()
    checks, secret = campaign.state.batches[-1], campaign.ledger.secret("small")
    assert checks.purpose is Purpose.CHECKS
    one, two = (
        "1" if (checks.expected[item] is Choice.FIRST) is not is_swapped(secret, checks, item, "ann") else "2"
        for item in (0, 1)
    )
    let_in(campaign.home, "ann")
    keys = f"{one}\n1\n{two}\n1\n"
    ended = command_line(small.folder, "review", "label", "small", "--reviewer", "ann", stdin=keys)
    assert ended.code == 0, ended.stderr
    assert (campaign.state.labels.checks, campaign.state.labels.gate) == (2, 2)
    assert [label.choice for label in campaign.state.batches[-1].labels] == [*checks.expected[:2]]
    assert "check" not in (ended.stdout + ended.stderr).lower()
    assert [line for line in ended.stdout.splitlines() if line.startswith("your comparison")] == [
        f"your comparison {number}"
        for number in range(41, 46)  # behind the forty that came before
    ]


def test_an_audit_by_people_is_listed_as_one_and_wants_other_eyes(small: Small, command_line: CommandLine) -> None:
    campaign = small.campaign(**with_people(gate={"audit": {"evaluator": "people", "labels": 3}}))
    for _ in range(2):
        campaign.run()
        campaign.label()
    listed = command_line(small.folder, "review", "list", "small", "--json")
    assert strict_json(listed.stdout)["comparisons"] == {
        "kind": "audit",
        "queue": "audit",
        "batch": "s0.a0.audit",
        "wanted": 3,
        "settled": 0,
        "labelled": 0,
        "missing_by_name": {},
    }
    told = command_line(small.folder, "review", "list", "small").stdout
    assert "0 of 3 comparisons of s0.a0.audit are audited, by people who labelled none of this gate" in told
    refused = command_line(small.folder, "review", "label", "small", "--reviewer", "ann", stdin="1\n")
    assert refused.code == 2
    assert "you labelled this gate's comparisons; an audit wants other eyes" in refused.stderr
    let_in(campaign.home, "bob", [Role.AUDITOR])
    audited = command_line(small.folder, "review", "label", "small", "--reviewer", "bob", stdin="1\n1\n1\n1\n")
    assert audited.code == 0, audited.stderr
    assert "recorded 3 labels of bob" in audited.stderr
    assert len(campaign.state.batches[-1].labels) == 3


def test_strangers_are_told_in_one_line_that_they_may_not_label(small: Small, command_line: CommandLine) -> None:
    campaign = small.campaign(**with_people(feedback={"raters": ["bob"]}))
    campaign.run()
    let_in(campaign.home, "ann")
    refused = command_line(small.folder, "review", "label", "small", "--reviewer", "Ann", stdin="1\n")
    assert (refused.code, refused.stderr) == (
        2,
        "error: ann is not among the raters of campaign small (feedback.raters)\n",
    )
    assert campaign.state.labels.total == 0
