"""Pages are complete, agree with the state to the digit, and nothing that a model or a person wrote comes alive."""

from __future__ import annotations

import re
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from orchestrator import views
from orchestrator.artifacts import ArtifactStore
from orchestrator.core.attribution import Attribution, Cause, Estimate
from orchestrator.core.envelope import Head
from orchestrator.core.gate import NOBODY_BETTER
from orchestrator.core.records import Purpose, Status
from orchestrator.core.settings import CampaignSettings
from orchestrator.core.state import CampaignState
from orchestrator.errors import StorageError
from orchestrator.home import Home
from orchestrator.report import story
from orchestrator.report.drawing import SHADES
from orchestrator.report.page import campaign_page, demo_page, write_page
from orchestrator.runner import read_settings, read_state_at

HEAD = Head(seq=41, hash="ab" * 32)
HTML_TAGS = frozenset(
    [
        "html",
        "head",
        "meta",
        "link",
        "title",
        "style",
        "body",
        "header",
        "main",
        "section",
        "footer",
        "h1",
        "h2",
        "h3",
        "h4",
        "p",
        "span",
        "strong",
        "code",
        "bdi",
        "ul",
        "ol",
        "li",
        "dl",
        "dt",
        "dd",
        "div",
        "figure",
        "figcaption",
        "table",
        "thead",
        "tbody",
        "tr",
        "th",
        "td",
        "details",
        "summary",
    ]
)
SVG_TAGS = frozenset({"svg", "g", "path", "text", "tspan", "defs", "pattern", "clippath", "rect", "use"})
VOID = frozenset({"meta", "link"})
CSP = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"

Campaign = tuple[CampaignState, CampaignSettings]


@dataclass
class Page(HTMLParser):
    """A parsed page; refuses tags that do not nest."""

    tags: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    open: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    inert: list[str] = field(default_factory=list)
    """Texts inside the frames for untrusted text."""
    odd: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(convert_charrefs=True)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.texts.append(data)
            if self.open[-1] == "bdi" and self.open[-2] == "div":
                self.inert.append(data)

    def handle_comment(self, data: str) -> None:
        self.odd.append(data)

    def handle_pi(self, data: str) -> None:
        self.odd.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.texts))


def parsed(html: str) -> Page:
    """The page, after checking what every page must keep to."""
    page = Page()
    page.feed(html)
    page.close()
    assert page.open == []
    assert page.odd == []
    assert {tag for tag, _ in page.tags} <= HTML_TAGS | SVG_TAGS
    metas = [attributes for tag, attributes in page.tags if tag == "meta"]
    assert metas[1] == {"http-equiv": "Content-Security-Policy", "content": CSP}
    for tag, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on")], tag
        for name in ("src", "href", "xlink:href", "action", "srcdoc", "data", "poster"):
            value = attributes.get(name)
            assert value is None or value.startswith("#") or (tag, value) == ("link", "data:,"), (tag, value)
        assert "url(" not in (attributes.get("style") or "").replace("url(#", "")
    assert "url(" not in "".join(re.findall(r"<style>.*?</style>", html, re.DOTALL))
    return page


def page_of(campaign: Campaign, artifacts: ArtifactStore) -> Page:
    return parsed(campaign_page(*campaign, HEAD, artifacts))


def test_a_real_campaign_is_told_to_the_digit(real_home: Home) -> None:
    with real_home.ledger() as ledger:
        (state, seq), settings, head = read_state_at(ledger, "mini"), read_settings(ledger, "mini"), ledger.head("mini")
    assert head.seq == seq
    page = parsed(campaign_page(state, settings, head, real_home.artifacts()))
    shown = views.campaign(state, settings, head)

    assert len(shown["attempts"]) == 2
    for row in shown["attempts"]:
        assert f"Stage {row['stage']}, attempt {row['attempt']}" in page.text
        assert row["candidate"][:12] in page.text
        assert f"{row['gold']:.2f} ± {row['gold_se']:.2f}" in page.text
        assert f"{row['win_rate']:.3f} ({row['win_rate_low']:.3f})" in page.text
        assert f"{row['over_promise']:.3f} ({row['over_promise_high']:.3f})" in page.text
    for attempt in state.attempts:
        assert attempt.verdict is not None
        for test in attempt.verdict.tests:
            assert f"{test.log_e_value:.2f} {test.log_threshold:.2f} {test.labels} of {test.cap}" in page.text
    costs = shown["costs"]
    assert f"Tokens sampled {costs['tokens']:,} " in re.sub(" +", " ", page.text)
    assert f"{costs['labels']['initial']:,}" in page.text
    assert f"{costs['usd']:,.2f}" in page.text
    for whole in (state.approved, head.hash, shown["ledger"]["state"], state.settings_digest):
        assert whole is not None
        assert whole in page.text
    assert f"{head.seq + 1} events" in page.text
    pictures = 2 + 1 + len(shown["attempts"])  # the course and the gate at a glance, the budget, each attempt's gate
    assert [tag for tag, _ in page.tags].count("svg") == 2 * pictures  # each for a column and for a phone
    assert len(page.inert) > 2 * 3 * 6


@pytest.mark.usefixtures("unillustrated")
def test_the_gate_is_told_with_vetoes_notes_and_causes(make: Callable[..., Campaign], artifacts: ArtifactStore) -> None:
    state, settings = make({"advance": False, "win_rate": 0.3}, {"advance": True, "win_rate": 0.75})
    first, second = state.attempts
    assert first.verdict is not None
    refused = first.verdict.model_copy(
        update={"vetoes": ("tripwire <b>please</b> in 50.0%",), "notes": (NOBODY_BETTER,), "reasons": ("veto: x",)}
    )
    blamed = Attribution(
        over_credit=Estimate(mean=0.14, low=0.08, high=0.2, items=90),
        reward_model=Estimate(mean=0.12, low=0.05, high=0.19, items=90),
        raters=Estimate(mean=0.02, low=-0.03, high=0.07, items=90),
        off_distribution=None,
        without_verdict=0,
        unknown=("The part off distribution is unknown: no probes, or too few, were compared.",),
        causes=(Cause.REWARD_MODEL,),
    )
    first = first.model_copy(update={"verdict": refused, "attribution": blamed})
    page = page_of((state.model_copy(update={"attempts": (first, second)}), settings), artifacts)
    assert "Veto: tripwire <b>please</b> in 50.0%" in page.text
    assert "A veto stands against it: tripwire <b>please</b> in 50.0%." in page.text
    assert "nobody better than the raters was asked" in page.text
    assert "Over-credit +.14 [+.08, +.20]: reward model (b)." in page.text
    assert "The part off distribution is unknown" in page.text
    sealed, came = state.batches[1].count, len(state.batches[1].labels)
    assert f"Labels, of the items sealed: gate {came} of {sealed}." in page.text
    # alpha .5; each of the two hand-made gates spent .05; stage 1 of 3 is next: .4 over 2 stages of 4 attempts
    assert "Of the error budget α = 0.5000, 2 gates spent 0.1000; 0.4000 is left." in page.text
    running = state.model_copy(update={"ended_by": None, "status": Status.RUNNING})
    assert "The next gate may spend 0.0500." in page_of((running, settings), artifacts).text


@pytest.mark.usefixtures("unillustrated")
def test_a_veto_before_the_first_label_is_told_as_one(make: Callable[..., Campaign], artifacts: ArtifactStore) -> None:
    state, settings = make({"advance": False, "win_rate": 0.3})
    (attempt,) = state.attempts
    assert attempt.verdict is not None
    unasked = tuple(test.model_copy(update={"labels": 0, "estimate": None}) for test in attempt.verdict.tests)
    vetoed = attempt.verdict.model_copy(update={"tests": unasked, "vetoes": ("too long",), "labels": 0})
    state = state.model_copy(update={"attempts": (attempt.model_copy(update={"verdict": vetoed}),)})
    page = page_of((state, settings), artifacts)
    assert "It was refused before any label on it counted: too long." in page.text
    assert "Not met." not in page.text
    assert "Veto: too long" in page.text


def test_shares_are_never_minus_zero() -> None:
    assert (story.percent(-0.0), story.percent(-0.0004), story.points(-0.0006)) == ("0.0%", "0.0%", "-0.1 points")


@pytest.mark.usefixtures("unillustrated")
def test_what_a_candidate_has_to_show_depends_on_the_campaign(
    make: Callable[..., Campaign], artifacts: ArtifactStore
) -> None:
    long = page_of(make(), artifacts).text
    assert "best of its samples" in long
    assert "less than 50.0% of the reward paid" in long
    assert "better evaluator" not in long
    short = page_of(make(protocol={"stages": 1, "attempts": 2}), artifacts).text
    assert "best of its samples" not in short
    audited = page_of(make(gate={"alpha": 0.5, "max_labels": 200, "audit": {"limit": 0.1}}), artifacts).text
    assert "favour it by less than 10.0 points more than a better evaluator does" in audited


def test_pages_of_equal_ledgers_are_equal(real_home: Home) -> None:
    with real_home.ledger() as ledger:
        state, settings = read_state_at(ledger, "mini")[0], read_settings(ledger, "mini")
    first, second = (campaign_page(state, settings, HEAD, real_home.artifacts()) for _ in range(2))
    assert first == second


HOSTILE = {
    "<script>alert(1)</script>": "<script>alert(1)</script>",
    "</bdi></div><img src=//x.example/a onerror=alert(1)>": "</bdi></div><img src=//x.example/a onerror=alert(1)>",
    "</style></title><iframe src='//x.example'></iframe>": "</style></title><iframe src='//x.example'></iframe>",
    "{{ 7 * 7 }} {% raw %} ${7*7}": "{{ 7 * 7 }} {% raw %} ${7*7}",
    "\u202egnirts \u2066x\u2069": "\\u202egnirts \\u2066x\\u2069",
    "\x1b[31mred\x1b]0;title\x07": "\\x1b[31mred\\x1b]0;title\\x07",
    "nul \x00 surrogate \ud800 tag \U000e0041": "nul \\x00 surrogate \\ud800 tag \\U000e0041",
    "<!-- -->]]><![CDATA[ <?php": "<!-- -->]]><![CDATA[ <?php",
    "&lt;b&gt; &#x202e;": "&lt;b&gt; &#x202e;",
}
"""What a model may write, and how the page shows it; as many as a page has room for, so all are drawn."""


def test_hostile_responses_are_inert(make: Callable[..., Campaign], artifacts: ArtifactStore) -> None:
    html = campaign_page(*make({"advance": True, "win_rate": 0.75, "responses": list(HOSTILE)}), HEAD, artifacts)
    page = parsed(html)
    for shown in HOSTILE.values():
        assert any(text.startswith(shown) for text in page.inert), shown
    assert all(character not in html for character in "\x00\x1b\x07\u202e\u2066\u2069")
    html.encode()


@pytest.mark.usefixtures("unillustrated")
def test_a_line_of_a_megabyte_is_cut(make: Callable[..., Campaign], artifacts: ArtifactStore) -> None:
    plain = campaign_page(*make({"advance": True, "win_rate": 0.75}), HEAD, artifacts)
    long = campaign_page(*make({"advance": True, "win_rate": 0.75, "responses": ["x" * 2**20] * 24}), HEAD, artifacts)
    assert "more characters]" in parsed(long).text
    assert len(long) < len(plain) + 50_000


@pytest.mark.usefixtures("unillustrated")
def test_what_people_wrote_is_inert_too(make: Callable[..., Campaign], artifacts: ArtifactStore) -> None:
    hostile = "<script src=//x.example></script>\u202e"
    state, settings = make({"advance": True, "win_rate": 0.75, "reviewer": hostile, "reason": hostile})
    paused = state.model_copy(update={"status": Status.PAUSED, "ended_by": None, "why_paused": hostile})
    page = page_of((paused, settings), artifacts)
    assert page.text.count("<script src=//x.example></script>\\u202e") >= 4


def test_a_fresh_campaign_has_a_page(make: Callable[..., Campaign], artifacts: ArtifactStore) -> None:
    state, settings = make()
    page = page_of((state, settings), artifacts)
    assert "No attempt has begun" in page.text
    nothing = CampaignState(name="hand-made", settings_digest=settings.digest())
    assert "Nothing has happened yet" in page_of((nothing, settings), artifacts).text


def test_every_kind_of_attempt_appears(make: Callable[..., Campaign], artifacts: ArtifactStore) -> None:
    state, settings = make(
        {"advance": False, "win_rate": 0.3},
        {"advance": False, "failed": "the loss is <nan>"},
        {"advance": True, "win_rate": 0.75},
        {"advance": False, "win_rate": 0.4},
    )
    begun = state.attempts[-1].model_copy(
        update=dict.fromkeys(("candidate", "evaluation", "verdict", "rollouts", "rolled_back_to", "stopped_by"))
        | {"attempt": 1, "steps": 0}
    )
    state = state.model_copy(update={"attempts": (*state.attempts, begun), "ended_by": None, "status": Status.RUNNING})
    page = page_of((state, settings), artifacts)
    for place in ("0, attempt 0", "0, attempt 1", "0, attempt 2", "1, attempt 0", "1, attempt 1"):
        assert f"Stage {place}" in page.text
    assert "failed: the loss is <nan>." in page.text
    assert "has no candidate yet" in page.text
    assert "5 attempts, of which 1 advanced and 3 rolled back (1 of 3 stages completed)." in page.text


def test_without_gold_the_page_says_nothing_of_it(make: Callable[..., Campaign], artifacts: ArtifactStore) -> None:
    state, settings = make({"advance": True, "win_rate": 0.75, "with_gold": False})
    base = state.deployments[0].model_copy(update={"gold_mean": None, "gold_se": None})
    state = state.model_copy(update={"deployments": (base, *state.deployments[1:])})
    page = page_of((state, settings), artifacts)
    assert "Gold, which the gate never sees" not in page.text
    assert "drawn at random" in page.text
    assert "nan" not in page.text.lower()


@pytest.mark.usefixtures("unillustrated")
def test_gate_samples_stand_in_once_the_verdict_does(make: Callable[..., Campaign], artifacts: ArtifactStore) -> None:
    """Before the verdict, the page would tell raters which side is the candidate's."""
    state, settings = make({"advance": False, "win_rate": 0.3})
    rows = [{"item": i, "prompt": "p", "response_1": f"first {i}", "response_2": f"second {i}"} for i in range(200)]
    comparisons = artifacts.publish_lines("comparisons", rows)
    batches = tuple(
        batch.model_copy(update={"comparisons": comparisons}) if batch.purpose is Purpose.GATE else batch
        for batch in state.batches
    )
    attempt = state.attempts[0].model_copy(update={"evaluation": None})
    judged = state.model_copy(update={"batches": batches, "attempts": (attempt,), "base_evaluation": None})
    judging = attempt.model_copy(update={"verdict": None, "rolled_back_to": None})
    waiting = judged.model_copy(update={"attempts": (judging,), "status": Status.RUNNING, "ended_by": None})

    shown = page_of((judged, settings), artifacts).inert
    assert shown[1].startswith("second")  # the approved one's; `candidate_first` is true throughout
    assert shown[2].startswith("first")
    assert page_of((waiting, settings), artifacts).inert == []


@pytest.mark.usefixtures("unillustrated")
def test_an_artifact_that_is_gone_is_told_of(make: Callable[..., Campaign], artifacts: ArtifactStore) -> None:
    state, settings = make({"advance": True, "win_rate": 0.75})
    attempt = state.attempts[0].model_copy(update={"rollouts": "0" * 64})
    page = page_of((state.model_copy(update={"attempts": (attempt,)}), settings), artifacts)
    assert "Left out, because it could not be read: there is no artifact" in page.text


@pytest.mark.usefixtures("unillustrated")
def test_who_approved_is_said_loudly_where_nobody_did(make: Callable[..., Campaign], artifacts: ArtifactStore) -> None:
    loud = "No person approved anything here"
    plan = {"advance": True, "win_rate": 0.75}
    by_person = page_of(make(plan), artifacts)
    assert loud not in by_person.text
    assert "Approved by ada: “reads well”." in by_person.text
    by_gate = page_of(make(plan, approval={"by": "gate"}), artifacts)
    assert loud in by_gate.text
    assert by_gate.text.index(loud) < by_gate.text.index("What happened")
    baseline = {"restart_from": "last", "advance": "always", "attempts": 1}
    assert "No gate and no person approved" in page_of(make(plan, protocol=baseline), artifacts).text


@pytest.mark.usefixtures("unillustrated")
def test_lineage_goes_back_to_the_base(make: Callable[..., Campaign], artifacts: ArtifactStore) -> None:
    plan = {"advance": True, "win_rate": 0.75}
    state, settings = make(plan, {"advance": False, "win_rate": 0.3}, plan)
    page = page_of((state, settings), artifacts)
    lineage = page.text[page.text.index("Where the approved checkpoint comes from") :]
    for deployed in state.deployments:
        assert deployed.checkpoint in lineage
    quarantined = state.attempts[1].candidate
    assert quarantined is not None
    assert quarantined not in lineage


def test_the_demo_page_tells_the_document(demo: tuple[dict[str, Any], dict[str, Campaign]]) -> None:
    result, arms = demo
    page = parsed(demo_page(result, arms))
    assert "No person approved anything here" in page.text
    for arm, told in result["arms"].items():
        assert arm in page.text
        assert told["campaign"] in page.text
        assert f"{told['deployed_gold'][-1]:.2f}" in page.text
        assert f"{min(told['deployed_gold']):.2f}" in page.text
        assert f"{max(told['gold_by_step']):.2f}" in page.text
    labels = result["tax"]["labels"]
    assert f"{labels['ratio']:.2f}" in page.text
    assert f"{labels['spent']['online']:,.0f}" in page.text
    assert [tag for tag, _ in page.tags].count("svg") == 2 * 6


@pytest.mark.usefixtures("unillustrated")
def test_the_demo_page_says_unreached(
    demo: tuple[dict[str, Any], dict[str, Campaign]], demo_artifacts: ArtifactStore
) -> None:
    arms, result = demo[1], deepcopy(demo[0])
    for told in result["tax"].values():
        told |= {"ratio": None, "reached": False, "reached_by": {"ratchet": False, "online": True, "offline": False}}
        told["spent"] = {"ratchet": None, "online": 500.0, "offline": None}
    page = parsed(demo_page(result | {"base_gold": None, "base_gold_se": None}, arms, artifacts=demo_artifacts))
    assert page.text.count("unreached by ratchet") == 5
    assert page.text.count("unreached") == 5 * 3
    assert page.inert


def test_text_is_readable_on_both_papers() -> None:
    """Contrast by WCAG 2.1: 4.5 to 1 for text."""
    for paper in (0, 1):
        for role, shade in SHADES.items():
            if role not in ("paper", "grid"):
                assert _contrast(shade[paper], SHADES["paper"][paper]) >= 4.5, (role, paper)


def test_a_page_is_written_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "reports" / "mini.html"
    write_page(path, "old é")
    assert path.read_text(encoding="utf-8") == "old é"

    def refuse(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("os.replace", refuse)
        with pytest.raises(KeyboardInterrupt):
            write_page(path, "new")
    assert path.read_text(encoding="utf-8") == "old é"
    assert [entry.name for entry in path.parent.iterdir()] == ["mini.html"]
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError):
        write_page(tmp_path / "file" / "x.html", "new")
    with pytest.raises(StorageError):
        write_page(tmp_path, "new")


def _contrast(one: str, other: str) -> float:
    def luminance(colour: str) -> float:
        parts = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)
