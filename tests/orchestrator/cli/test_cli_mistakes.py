"""Every mistake is told in one or two lines with the next action, has its exit code, and leaves the home untouched."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from desks import let_in
from small_campaigns import Campaign, CommandLine, Ended, Small, document, with_people

from orchestrator.disk import copy_folder

Run = Callable[..., Ended]


def listing(folder: Path) -> dict[str, str]:
    """Every file below a folder with the digest of its contents; SQLite's own companions come and go."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.name.endswith(("-wal", "-shm")):
            continue
        name = str(path.relative_to(folder))
        found[name] = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
    return found


@pytest.fixture
def run(command_line: CommandLine, tmp_path: Path) -> Run:
    """Run a command whose home is `tmp_path`/home."""
    return lambda *arguments, **options: command_line(tmp_path, *arguments, **options)


def assert_told(ended: Ended, code: int, *words: str) -> None:
    """Refused in one or two lines."""
    assert ended.code == code, ended
    assert "Traceback" not in ended.stderr
    assert "error: unexpected" not in ended.stderr
    said = ended.stderr.splitlines()
    assert 1 <= len(said) <= 2, ended.stderr
    for word in words:
        assert word in ended.stderr, f"{word!r} not in {ended.stderr!r}"


def campaign_file(small: Small, text: str | None = None, **changes: Any) -> str:
    if text is None:
        return str(small.file(**changes))
    path = small.folder / "bad.yaml"
    path.write_text(text)
    return str(path)


BAD_FILES: list[tuple[dict[str, Any], tuple[str, ...]]] = [
    ({"phase": {"stpes": 3}}, ("phase.stpes", "did you mean 'steps'")),
    ({"gaet": {}}, ("gaet", "did you mean 'gate'")),
    ({"phase": {"kl": {"budget": 1.0}}}, ("phase.kl.budget", "budget_nats")),
    ({"seed": "many"}, ("seed", "whole number", "'many'")),
    ({"gate": {"alpha": 2}}, ("gate.alpha", "less than 1")),
    ({"gate": {"alpha": float("nan")}}, ("small.yaml:28", "finite")),
    ({"gate": {"min_labels": 100}}, ("min_labels 100 exceeds max_labels 80",)),
    ({"base": {"seedling": {}}}, ("exactly one of `seedling` and `model`",)),
    ({"task": {"kind": "nonsense"}}, ("task.kind", "memo")),
    ({"task": {"kind": "memo", "options": {"colour": "red"}}}, ("task.kind", "colour")),
    ({"task": {"kind": "nowhere.py:Task"}}, ("task.kind", "no such file")),
    ({"task": {"kind": "json:Nothing"}}, ("Nothing",)),
    ({"task": {"kind": "memo", "files": {"corpus": "nowhere.txt"}}}, ("task.files.corpus", "no such file")),
    ({"feedback": {"rater": "simulated", "options": {"colour": "red"}}}, ("colour",)),
    ({"feedback": {"rater": "nowhere.py:Rater"}}, ("feedback.rater", "no such file")),
    ({"feedback": {"rater": "json:Rater"}}, ("feedback.rater", "Rater")),
    ({"feedback": {"rater": "poeple"}}, ("feedback.rater", "poeple")),
    ({"gate": {"max_labels": 5000}}, ("gate prompts", "lower", "gate.max_labels")),
    ({"protocol": {"stages": 3}, "gate": {"creep": {"max_labels": 200}}}, ("gate prompts", "gate.creep.max_labels")),
    ({"feedback": {"labels_per_round": 0}}, ("advance: once", "feedback.labels_per_round")),
    ({"feedback": {"rater": "gold"}}, ("feedback.rater", "gold never rates")),
    ({"feedback": {"checks": {"file": "nowhere.jsonl"}}}, ("feedback.checks.file", "no such file")),
    ({"feedback": {"initial_labels": 5000}}, ("label prompts",)),
    ({"feedback": {"initial_labels": 9}}, ("initial_labels", "10 or more")),
    ({"task": {"options": {"keys": 1, "asked": 1}}}, ("prompts", "lower")),
    ({"feedback": {"raters_per_item": 2}}, ("feedback.rater", "1 for 2 verdicts an item")),
    ({"base": {"model": "/nowhere/at/all"}}, ("base.model", "no such file or folder")),
    ({"tracking": {"mlflow": "nonsense"}}, ("tracking.mlflow",)),
    ({"feedback": {"rater": "people"}}, ("approval.by",)),
]


@pytest.mark.parametrize(("changes", "words"), BAD_FILES, ids=[str(changes) for changes, _ in BAD_FILES])
def test_a_bad_campaign_file_is_refused(
    small: Small, run: Run, changes: dict[str, Any], words: tuple[str, ...]
) -> None:
    assert_told(run("campaign", "start", campaign_file(small, **changes)), 2, *words)
    assert not (small.folder / "home").exists()


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"task": {"kind": "{}:Plugin"}}, "task.kind"),
        ({"feedback": {"rater": "{}:Plugin"}}, "feedback.rater"),
        ({"gate": {"audit": {"evaluator": "{}:Plugin"}}}, "gate.audit.evaluator"),
        (
            {"task": {"kind": "text", "files": {"corpus": "corpus.txt"}, "options": {"gold": "{}:Plugin"}}},
            "task.options.gold",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_broken_plug_in_is_refused_by_its_key_file_and_line(
    small: Small, run: Run, changes: dict[str, Any], key: str
) -> None:
    file = small.folder / "plugin.py"
    file.write_text("import nowhere_at_all\n")
    (small.folder / "corpus.txt").write_text("a text of more than eight words stands in this line\n")
    named = yaml.safe_load(yaml.safe_dump(changes).replace("{}", str(file)))
    words = (key, str(file), "plugin.py, line 1", "nowhere_at_all is not installed")
    assert_told(run("campaign", "start", campaign_file(small, **named)), 2, *words)
    assert not (small.folder / "home").exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name: [\n", (":2:1:",)),
        ("name: a\nname: b\n", ("name", ":2:1:")),
        ("!!python/object/apply:os.system ['true']\n", (":1:1:", "not allowed")),
        ("- a\n- b\n", ()),
        ("", ()),
        ("name: small\n", ("task", "missing")),
        ("\0", ()),
    ],
)
def test_a_file_that_is_no_campaign_is_refused(small: Small, run: Run, text: str, words: tuple[str, ...]) -> None:
    assert_told(run("campaign", "start", campaign_file(small, text)), 2, "bad.yaml", *words)
    assert not (small.folder / "home").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--set", "phase.stpes=3"], ("phase.stpes", "steps")),
        (["--set", "phase.steps=many"], ("phase.steps", "whole number")),
        (["--set", "phase"], ("--set",)),
        (["--set", "=3"], ()),
        (["--set", "phase.steps.deep=3"], ("phase.steps",)),
        (["--name", "../evil"], ("name",)),
        (["--name", "Upper"], ("name", "it has capitals; use lower-case letters", "'Upper'")),
        (["--name", ""], ("name", "1 to 64")),
        (["--name", "a/b"], ("name", "1 to 64", "'a/b'")),
        (["--name", "dot."], ("name", "ends with a dot")),
        *((["--name", name], ("name", "reserved", f"'{name}'")) for name in ("con", "aux", "nul", "com1", "lpt9.x")),
        (["--from", "abcdef12"], ("abcdef12", "checkpoint")),
        (["--nonsense"], ("--nonsense",)),
    ],
)
def test_a_bad_option_is_refused(small: Small, run: Run, arguments: list[str], words: tuple[str, ...]) -> None:
    assert_told(run("campaign", "start", campaign_file(small), *arguments), 2, *words)
    assert not (small.folder / "home").exists()


def model_folder(small: Small, kind: str) -> Path:
    folder = small.folder / "model"
    if kind == "empty":
        folder.mkdir()
        return folder
    shutil.copytree(small.base, folder)
    weights, config = folder / "model.safetensors", folder / "config.json"
    whole, settings = weights.read_bytes(), json.loads(config.read_bytes())
    for file in (weights, config):
        file.unlink()
    written: dict[str, dict[Path, bytes]] = {
        "no weights": {},
        "pickle": {folder / "pytorch_model.bin": b"\x80\x04cos\nsystem\n."},
        "garbage": {weights: os.urandom(4096)},
        "no bytes": {weights: b""},
        "cut short": {weights: whole[:-1]},
        "too long": {weights: whole + b"\0"},
        "no JSON": {weights: whole, config: b"{"},
        "a list": {weights: whole, config: b"[]"},
        "another kind": {weights: whole, config: json.dumps(settings | {"model_type": "nonsense"}).encode()},
        "a part gone": {
            weights: whole,
            folder / "model.safetensors.index.json": b'{"weight_map": {"a": "model-00002-of-00002.safetensors"}}',
        },
    }
    for file, data in ({config: json.dumps(settings).encode()} | written[kind]).items():
        file.write_bytes(data)
    return folder


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("no weights", ("no weights", "safetensors")),
        ("pickle", ("pickled", "safetensors")),
        ("empty", ("config.json",)),
        ("garbage", ("model.safetensors is damaged",)),
        ("no bytes", ("model.safetensors is damaged",)),
        ("cut short", ("model.safetensors is damaged",)),
        ("too long", ("model.safetensors is damaged",)),
        ("no JSON", ("config.json is damaged",)),
        ("a list", ("config.json is damaged",)),
        ("another kind", ("config.json", "nonsense")),
        ("a part gone", ("model-00002-of-00002.safetensors", "not there")),
    ],
)
def test_a_model_folder_that_would_not_open_is_refused(
    small: Small, run: Run, kind: str, words: tuple[str, ...]
) -> None:
    folder = model_folder(small, kind)
    assert_told(run("campaign", "start", campaign_file(small, base={"model": str(folder)})), 2, "base.model", *words)
    assert not (small.folder / "home").exists()


def test_a_missing_file_and_a_wrong_home_are_refused(small: Small, run: Run) -> None:
    assert_told(run("campaign", "start"), 2, "Missing argument 'CONFIG'", "see `ratchet campaign start --help`")
    assert_told(run("campaign", "start", "nowhere.yaml"), 2, "nowhere.yaml")
    file = campaign_file(small)
    assert_told(run("--home", file, "campaign", "list"), 2, "is a file")
    assert_told(run("--home", f"{file}/below", "campaign", "start", file), 1, "choose another place with --home")


NEEDS_A_CAMPAIGN = [
    *(["campaign", verb, "nobody"] for verb in ("resume", "pause", "show", "watch", "track")),
    ["campaign", "stop", "nobody", "--reason", "x"],
    *(["checkpoint", verb, "nobody"] for verb in ("list", "show", "verify")),
    ["checkpoint", "export", "nobody", "there"],
    *(["ledger", verb, "nobody"] for verb in ("show", "verify", "export")),
    ["review", "list", "nobody"],
    ["review", "label", "nobody", "--reviewer", "ann"],
    ["review", "approve", "nobody", "--reviewer", "ann", "--reason", "x", "--candidate", "abcdef12"],
    ["report", "nobody"],
]


@pytest.mark.parametrize("command", NEEDS_A_CAMPAIGN, ids=" ".join)
def test_an_unknown_campaign_is_refused(undisturbed: Small, tmp_path: Path, run: Run, command: list[str]) -> None:
    assert_told(run(*command), 2, "holds no campaigns")
    assert not (tmp_path / "home").exists()
    assert_told(run("--home", str(undisturbed.folder / "home"), *command), 2, "'nobody'", "ratchet campaign list")


def test_an_empty_home_is_left_alone(tmp_path: Path, run: Run) -> None:
    listed = run("campaign", "list", "--json")
    assert (listed.code, listed.json) == (0, [])
    assert_told(run("checkpoint", "gc"), 2, "holds no campaigns")
    assert_told(run("checkpoint", "gc", "small"), 2, "holds no campaigns")
    assert run("--home", str(tmp_path / "a" / "b" / "c"), "doctor").code == 0
    assert not (tmp_path / "home").exists()
    assert not (tmp_path / "a").exists()


def test_two_campaigns_of_one_name_are_refused(small: Small, run: Run) -> None:
    campaign = small.campaign()
    before = listing(campaign.home.root)
    assert_told(run("campaign", "start", campaign_file(small)), 2, "exists already", "campaign resume small")
    assert listing(campaign.home.root) == before


@pytest.mark.parametrize("name", ["../evil", "a/b", "", ".hidden", "con", "Upper", "x" * 65, "line\nbreak", "end\n"])
def test_init_refuses_names_that_start_would_refuse(tmp_path: Path, run: Run, name: str) -> None:
    assert_told(run("campaign", "init", name), 2)
    assert not list(tmp_path.rglob("*.yaml"))


@pytest.mark.parametrize("name", ["mine", "007", "1e5", "true", "null", "2026-01-01", "a.b-c_d"])
def test_what_init_writes_is_a_campaign_file(tmp_path: Path, run: Run, name: str) -> None:
    from orchestrator.config import load_settings

    assert run("campaign", "init", name).code == 0
    assert load_settings(tmp_path / f"{name}.yaml").name == name
    assert_told(run("campaign", "init", name), 2, "exists already")
    assert_told(run("campaign", "init", "other", "--template", "nonsense"), 2, "quickstart")


def waiting_for_approval(small: Small) -> tuple[Campaign, str]:
    campaign = small.campaign(**with_people())
    return campaign, campaign.run_until_candidate()


def test_what_reviewers_may_not_say(small: Small, run: Run) -> None:
    campaign, candidate = waiting_for_approval(small)
    let_in(campaign.home, "ann")
    events = len(campaign.events)

    def approve(reviewer: str = "ann", digest: str = candidate, reason: str = "good") -> Ended:
        words = ("--reviewer", reviewer, "--reason", reason, "--candidate", digest)
        return run("review", "approve", "small", *words)

    assert_told(approve(digest="deadbeef"), 2, "not 'deadbeef'", candidate[:12])
    assert_told(approve(digest=candidate[:7]), 2, "8 or more digits")
    assert_told(approve(digest=""), 2)
    assert_told(approve(digest=candidate + "0"), 2)
    assert_told(approve(reviewer=""), 2, "no name")
    assert_told(approve(reviewer="x" * 201), 2, "no name")
    assert_told(approve(reviewer="gate"), 1, "nothing shows who you are")
    assert_told(approve(reviewer="a\x1b[31m"), 2, "\\x1b")
    assert_told(run("review", "approve", "small", "--reviewer", "ann", "--reason", "x"), 2, f"--candidate {candidate}")
    assert_told(run("review", "approve", "small", "--reviewer", "ann", "--candidate", candidate), 2, "--reason")
    assert len(campaign.events) == events
    assert approve().code == 0
    assert approve().code == 0
    reject = ("review", "reject", "small", "--reviewer", "ann", "--reason", "no", "--candidate", candidate)
    assert_told(run(*reject), 2)
    assert campaign.types.count("decision_made") == 1


def test_a_second_controller_ends_with_11(small: Small, run: Run) -> None:
    campaign = small.campaign()
    with campaign.ledger.acquire_controller("small", owner="host:1"):
        assert_told(run("campaign", "resume", "small"), 11, "host:1")
    assert campaign.types == ["campaign_created"]


def test_a_small_disk_is_refused_before_anything_is_written(small: Small, tmp_path: Path) -> None:
    mounted = on_small_disk(tmp_path, campaign_file(small), kib=1024)
    assert mounted.returncode == 1, mounted.stderr
    assert "a campaign needs 256 MiB" in mounted.stderr
    assert mounted.stdout.split() == []


def test_a_disk_that_fills_up_pauses_the_campaign_and_room_lets_it_go_on(small: Small, tmp_path: Path) -> None:
    """The disk is full after a few artifacts; what is on the ledger stays whole."""
    full = on_small_disk(tmp_path, campaign_file(small), kib=700, least=0)
    assert full.returncode == 1, full.stderr
    assert "no room" in full.stderr or "full" in full.stderr, full.stderr
    assert "Traceback" not in full.stderr
    kept = small.reopen("kept", small.settings())
    assert kept.ledger.verify("small").ok
    assert "base_ready" in kept.types
    assert kept.run().state.approved is not None


ON_SMALL_DISK = """
import os, sys
import orchestrator.assembly
orchestrator.assembly.MIN_FREE_BYTES = int(os.environ["LEAST"]) or 0 if os.environ["LEAST"] != "-1" else 256 * 1024**2
from orchestrator.cli.main import main
sys.argv = ["ratchet", "campaign", "start", sys.argv[1]]
main()
"""


def on_small_disk(tmp_path: Path, file: str, *, kib: int, least: int = -1) -> "subprocess.CompletedProcess[str]":
    """Start a campaign on a disk of its own; gives what lay on it as stdout, and keeps a copy in `tmp_path`/kept."""
    if shutil.which("unshare") is None or subprocess.run(["unshare", "-rm", "true"], capture_output=True).returncode:
        pytest.skip("needs user namespaces, to mount a small disk")
    disk = tmp_path / "disk"
    disk.mkdir()
    script = (
        'mount -t tmpfs -o size="$5"k none "$1" && "$2" -c "$3" "$4" 1>&2; code=$?;'
        ' (cd "$1" && find . -mindepth 1); [ -e "$1/home" ] && cp -a "$1/home" "$6"; exit $code'
    )
    arguments = [str(disk), sys.executable, ON_SMALL_DISK, file, str(kib), str(tmp_path / "kept")]
    environment = {**os.environ, "RATCHET_HOME": str(disk / "home"), "LEAST": str(least)}
    return subprocess.run(
        ["unshare", "-rm", "sh", "-c", script, "sh", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_a_read_only_home_is_refused(small: Small, tmp_path: Path) -> None:
    if shutil.which("unshare") is None or subprocess.run(["unshare", "-rm", "true"], capture_output=True).returncode:
        pytest.skip("needs user namespaces, to mount a disk read-only")
    disk = tmp_path / "disk"
    disk.mkdir()
    script = 'mount -t tmpfs -o ro none "$1" && exec "$2" -m orchestrator.cli.main campaign start "$3"'
    ended = subprocess.run(
        ["unshare", "-rm", "sh", "-c", script, "sh", str(disk), sys.executable, campaign_file(small)],
        env={**os.environ, "RATCHET_HOME": str(disk / "home")},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.returncode == 1, ended.stderr
    assert len(ended.stderr.splitlines()) <= 2
    assert "--home" in ended.stderr


EXPORT = """
mount -t tmpfs -o size="$2"k none "$1" && "$3" -m orchestrator.cli.main checkpoint export small "$1/deep/model" 1>&2
code=$?; (cd "$1" && find . -type f); exit $code
"""


@pytest.mark.parametrize("kib", [16, 64 * 1024])
def test_an_exported_checkpoint_is_whole_or_absent(undisturbed: Small, tmp_path: Path, kib: int) -> None:
    """On a disk that has no room for it nothing is left behind."""
    if shutil.which("unshare") is None or subprocess.run(["unshare", "-rm", "true"], capture_output=True).returncode:
        pytest.skip("needs user namespaces, to mount a small disk")
    disk = tmp_path / "disk"
    disk.mkdir()
    ended = subprocess.run(
        ["unshare", "-rm", "sh", "-c", EXPORT, "sh", str(disk), str(kib), sys.executable],
        env={**os.environ, "RATCHET_HOME": str(undisturbed.folder / "home")},
        capture_output=True,
        text=True,
        timeout=120,
    )
    found = sorted(ended.stdout.split())
    if kib == 16:
        assert (ended.returncode, found) == (1, []), ended.stderr
        assert "no room is left" in ended.stderr
        assert len(ended.stderr.splitlines()) <= 2
    else:
        artifact = undisturbed.reopen().checkpoint_file(str(undisturbed.reopen().state.approved)).parent
        assert ended.returncode == 0, ended.stderr
        assert found == sorted(f"./deep/model/{path.name}" for path in artifact.iterdir())


def test_what_came_to_stand_there_meanwhile_is_left_alone(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    for folder in (source, target):
        folder.mkdir()
        (folder / "file").write_text(folder.name)
    with pytest.raises(FileExistsError):
        copy_folder(source, target)
    assert listing(tmp_path).keys() == {"source", "source/file", "target", "target/file"}
    assert (target / "file").read_text() == "target"


def test_the_document_of_the_helpers_is_a_campaign_file(tiny_base: Path) -> None:
    assert yaml.safe_load(yaml.safe_dump(document(tiny_base)))["name"] == "small"
