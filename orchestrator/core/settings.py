"""What a campaign is asked to do: the frozen, validated form of a campaign file.

Every default lives here, once. `orchestrator.config` reads YAML into these models; nothing in this module
touches a file. Ranges that a value must keep are part of its type, so a `CampaignSettings` in hand is usable.
"""

import re
from collections.abc import Callable
from enum import StrEnum
from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, GetCoreSchemaHandler, model_validator
from pydantic_core import CoreSchema

from orchestrator.core.canonical import digest_of
from orchestrator.core.records import recorded_name

PositiveInt = Annotated[int, Field(ge=1)]
PositiveFloat = Annotated[float, Field(gt=0)]
Probability = Annotated[float, Field(gt=0, lt=1)]
_SPELLING: Final = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")
_WINDOWS_DEVICE: Final = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?")
_WEB_ADDRESS: Final = re.compile(r"https?://[^/?#@\s]+(?:[/?#][!-~]*)?")


def misspelling(name: str) -> str | None:
    """What keeps a name from being a URL segment and a tag; None: nothing does."""
    if _SPELLING.fullmatch(name):
        return None
    letters = "lower-case letters, digits, '-', '_' and '.'"
    if _SPELLING.fullmatch(name.lower()):
        return f"it has capitals; use {letters}"
    return f"use 1 to 64 {letters}, beginning with a letter or digit"


def problem_of_campaign_name(name: str) -> str | None:
    """What keeps a name from being that of a file on every system, too; None: nothing does."""
    if _WINDOWS_DEVICE.fullmatch(name.lower()):
        return "it is reserved: Windows has a device of that name; choose another"
    return "it ends with a dot; drop that" if name.endswith(".") else misspelling(name)


def _without(problem: Callable[[str], str | None]) -> AfterValidator:
    def checked(name: str) -> str:
        if (what := problem(name)) is not None:
            raise ValueError(what)
        return name

    return AfterValidator(checked)


Name = Annotated[str, _without(misspelling)]
"""Safe as a URL segment and a tag; no dot first, so never `..`."""
CampaignName = Annotated[str, _without(problem_of_campaign_name)]
"""Likewise, and safe as a file name on every system."""


def _refuse_other_types(schema: Any) -> None:
    """Make every scalar inside a schema strict. Not `ConfigDict(strict=True)`: that also refuses the lists and texts
    which JSON and YAML have for tuples and enums."""
    if isinstance(schema, dict) and "type" in schema:
        if schema["type"] in ("bool", "int", "float", "str"):
            schema["strict"] = True
        for key in ("schema", "keys_schema", "values_schema"):
            _refuse_other_types(schema.get(key))
        for key in ("fields", "items_schema"):
            inner = schema.get(key, ())
            for part in inner.values() if isinstance(inner, dict) else inner:
                _refuse_other_types(part)


class Settings(BaseModel):
    """Base of every section: unknown keys are errors, values are frozen, NaN and infinity are refused.

    No value is read as one of another type: `true` is no 1, `"5"` no 5 and 1.0 no 1. A whole number is a float too.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, protected_namespaces=())

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        schema = handler(source)
        _refuse_other_types(schema)
        return schema


class TaskSettings(Settings):
    kind: str
    """`memo`, `sums`, `cue`, `text`, or a plug-in as `package.module:Class` or `path/to/file.py:Class`."""
    files: dict[str, str] = {}
    """Files that the task reads, by role; each task documents its roles."""
    options: dict[str, Any] = {}
    """Keyword arguments of the task's class."""


class SeedlingSettings(Settings):
    """A small Llama-architecture model grown on the task's own corpus."""

    width: Annotated[int, Field(ge=16, multiple_of=8)] = 64
    layers: PositiveInt = 2
    heads: PositiveInt = 4
    steps: PositiveInt = 2000
    """Pre-training gradient steps."""
    batch_size: PositiveInt = 64
    """Examples a gradient step."""
    learning_rate: PositiveFloat = 1.0e-3

    @model_validator(mode="after")
    def _heads_divide_width(self) -> Self:
        if self.width % (2 * self.heads):
            raise ValueError(f"width {self.width} must be a multiple of twice the heads ({self.heads}); change one")
        return self


class BaseSettings(Settings):
    """Where the base model comes from: grown on the spot, or given."""

    seedling: SeedlingSettings | None = None
    model: str | None = None
    """A Hugging Face folder or hub id, or the digest of an approved checkpoint of this home."""
    revision: str | None = None

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.seedling is None) == (self.model is None):
            raise ValueError("give exactly one of `seedling` and `model`")
        if self.revision is not None and self.model is None:
            raise ValueError("`revision` belongs to `model`")
        return self


class CandidateSettings(Settings):
    """An existing model to be judged against the base, instead of training one: the gate alone."""

    model: str
    """A Hugging Face folder or hub id, or the digest of a checkpoint of this home."""
    revision: str | None = None
    reward_model: str | None = None
    """What promised something of the model: a Hugging Face sequence classifier with one output, as folder or hub id, or
    the digest of a reward model of this home. None: nothing was promised."""


class RestartFrom(StrEnum):
    APPROVED = "approved"
    """The last approved checkpoint: the ratchet."""
    BASE = "base"
    """The base model, at every attempt."""
    LAST = "last"
    """The last candidate, approved or not: ordinary RLHF."""


class Advance(StrEnum):
    UNTIL_AGREEMENT = "until_agreement"
    """Attempts repeat until the gate passes and a decision approves."""
    ONCE = "once"
    """One rollback and retraining a checkpoint, then the gate with the hold test."""
    ALWAYS = "always"
    """No gate: every candidate is deployed. The baselines."""


class RewardModelPolicy(StrEnum):
    REFIT = "refit"
    """Fitted anew at each attempt, from the base, on all labels so far."""
    FROZEN = "frozen"
    """Fitted once, on the initial labels."""
    NONE = "none"
    """None at all: the policy learns from the labels themselves (`dpo`, `ipo`, `labels`)."""


class ProtocolSettings(Settings):
    restart_from: RestartFrom = RestartFrom.APPROVED
    advance: Advance = Advance.UNTIL_AGREEMENT
    reward_model: RewardModelPolicy = RewardModelPolicy.REFIT
    stages: PositiveInt = 3
    attempts: PositiveInt = 4
    """Attempts that one stage may use."""

    @model_validator(mode="after")
    def _once_needs_two(self) -> Self:
        if self.advance is Advance.ONCE and self.attempts < 2:
            raise ValueError("`advance: once` retrains once, so it needs `attempts` of 2 or more")
        return self

    @property
    def gates(self) -> int:
        """Attempts of a stage that open a gate: with `once`, the first is there to be learned from."""
        return {Advance.ALWAYS: 0, Advance.ONCE: self.attempts - 1}.get(self.advance, self.attempts)


class Algorithm(StrEnum):
    """How a phase learns; `docs/algorithms.md` compares them, `policies` documents each with its source."""

    RLOO = "rloo"
    GRPO = "grpo"
    DR_GRPO = "dr_grpo"
    REINFORCE = "reinforce"
    PPO = "ppo"
    BEST_OF_N = "best_of_n"
    EXPERT_ITERATION = "expert_iteration"
    DPO = "dpo"
    IPO = "ipo"
    LABELS = "labels"
    """People's verdicts are the reward."""

    @property
    def needs_reward_model(self) -> bool:
        return self not in (Algorithm.DPO, Algorithm.IPO, Algorithm.LABELS)

    @property
    def compares_samples(self) -> bool:
        """Whether it compares the samples of one prompt with one another, so that there must be two."""
        return self in (
            Algorithm.RLOO,
            Algorithm.GRPO,
            Algorithm.DR_GRPO,
            Algorithm.BEST_OF_N,
            Algorithm.EXPERT_ITERATION,
        )

    @property
    def prices_kl(self) -> bool:
        """Whether `phase.kl.coefficient` enters what it maximises."""
        return self.needs_reward_model and self not in (Algorithm.BEST_OF_N, Algorithm.EXPERT_ITERATION)

    @property
    def promises(self) -> bool:
        """Whether a reward promises something of the candidate: a reward model's, or the candidate's own (DPO, IPO)."""
        return self is not Algorithm.LABELS


class KLSettings(Settings):
    reference: Literal["approved", "base"] = "approved"
    coefficient: Annotated[float, Field(ge=0)] = 0.02
    """Price of a nat away from the reference, in rewards; where it enters is the algorithm's matter."""
    target_nats: PositiveFloat | None = None
    """Sequence KL that the coefficient is steered for; None: the coefficient is fixed."""
    budget_nats: PositiveFloat | None = 4.0
    """Sequence KL(policy || reference) at which the phase stops; None: it never stops for that."""
    explosion_nats: PositiveFloat | None = None
    """Sequence KL at which the phase has failed: there is no candidate. None: three times the budget, or 100."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.budget_nats is not None and self.explosion <= self.budget_nats:
            raise ValueError(f"explosion_nats {self.explosion_nats} must exceed budget_nats {self.budget_nats}")
        if self.target_nats is not None and self.coefficient == 0:
            raise ValueError(
                "target_nats steers the coefficient, and 0 cannot be steered; begin with coefficient: 0.01"
            )
        return self

    @property
    def explosion(self) -> float:
        """Nats."""
        if self.explosion_nats is not None:
            return self.explosion_nats
        # One step may overshoot the budget; three times as far, it was thrown there.
        return 100.0 if self.budget_nats is None else 3 * self.budget_nats


class ClipSettings(Settings):
    """How far a token's probability may move from the one it was drawn with, as a ratio, before its gradient ends."""

    low: Annotated[float, Field(gt=0, lt=1)] = 0.2
    high: PositiveFloat = 0.28


class PPOSettings(Settings):
    discount: Annotated[float, Field(gt=0, le=1)] = 1.0
    gae_lambda: Annotated[float, Field(ge=0, le=1)] = 0.95
    value_coefficient: PositiveFloat = 0.1
    """Weight of the value head's loss."""


class PreferenceSettings(Settings):
    """Learning from the labels themselves: `dpo`, `ipo`, `labels`."""

    beta: PositiveFloat = 0.1
    """Logits of preference a nat of log-ratio: the strength of DPO's and IPO's own KL penalty."""
    epochs: PositiveInt = 4
    batch_size: PositiveInt = 32
    """Comparisons a gradient step."""


class StopSettings(Settings):
    """Further reasons to end a phase before its steps are used up."""

    predicted_win_rate: Annotated[float, Field(gt=0.5, lt=1)] | None = None
    """Share of comparisons with the phase's start that the reward model expects the policy to win."""
    spread_growth: Annotated[float, Field(gt=1)] | None = None
    """Disagreement between the reward model's members, relative to that at the phase's start."""


class ShortenSettings(Settings):
    """Shorter phases where longer ones were refused."""

    after_failures: PositiveInt = 2
    """Refused attempts of a stage after which each further one is shortened."""
    factor: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Of steps and KL budget, once more for each further failure."""


class PhaseSettings(Settings):
    """One learning phase: the body of an attempt."""

    algorithm: Algorithm = Algorithm.RLOO
    steps: PositiveInt = 40
    prompts_per_step: PositiveInt = 16
    samples_per_prompt: PositiveInt = 8
    learning_rate: PositiveFloat = 3.0e-4
    optimizer: Literal["reset", "restore"] = "reset"
    max_response_tokens: PositiveInt = 24
    missing_eos_penalty: Annotated[float, Field(ge=0)] = 1.0
    """Taken from the reward, in its standard deviations, where a response never ended."""
    max_gradient_norm: PositiveFloat = 1.0
    updates_per_batch: PositiveInt = 1
    """Passes over each batch of samples; beyond the first, ratios are clipped."""
    minibatches: PositiveInt = 1
    """Gradient steps a pass."""
    prompts_per_pass: PositiveInt | None = None
    """Prompts, with all their samples, that go through the model at once; None: all. Saves memory and, on a CPU, time:
    four at a time are faster than sixteen. The gradient is the same up to rounding."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of the products in the passes of the policy and its reference, while a phase lasts; `bfloat16` needs hardware
    that has it. Evaluation and gate always compute in float32."""
    kl: KLSettings = KLSettings()
    clip: ClipSettings = ClipSettings()
    ppo: PPOSettings = PPOSettings()
    preference: PreferenceSettings = PreferenceSettings()
    stop: StopSettings = StopSettings()
    shorten: ShortenSettings | None = None

    @model_validator(mode="after")
    def _passes_fit(self) -> Self:
        if self.prompts_per_step % self.minibatches:
            raise ValueError(f"minibatches {self.minibatches} must divide prompts_per_step {self.prompts_per_step}")
        if self.algorithm.compares_samples and self.samples_per_prompt < 2:
            raise ValueError(f"{self.algorithm} compares the samples of a prompt; set samples_per_prompt to 2 or more")
        if self.kl.target_nats is not None and not self.algorithm.prices_kl:
            raise ValueError(f"{self.algorithm} has no KL coefficient that kl.target_nats could steer; leave it out")
        return self

    def after(self, failures: int) -> Self:
        """The phase of an attempt whose stage has seen so many failures."""
        if self.shorten is None or failures < self.shorten.after_failures:
            return self
        factor = self.shorten.factor ** (failures - self.shorten.after_failures + 1)
        budget = None if self.kl.budget_nats is None else self.kl.budget_nats * factor
        kl = self.kl.model_copy(update={"budget_nats": budget})
        return self.model_copy(update={"steps": max(round(self.steps * factor), 1), "kl": kl})


class RewardModelSettings(Settings):
    members: PositiveInt = 3
    aggregate: Literal["mean", "min", "mean_minus_variance", "weights"] = "mean"
    variance_weight: Annotated[float, Field(ge=0)] = 0.5
    """Of `mean_minus_variance`."""
    epochs: PositiveInt = 4
    learning_rate: PositiveFloat = 3.0e-4
    batch_size: PositiveInt = 32
    """Comparisons a gradient step."""
    recency: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Weight of each older round of labels, relative to the next one, when probabilities are calibrated."""
    importance_cap: Annotated[float, Field(ge=1)] | None = None
    """Labels weigh by how likely the attempt's start is to give their responses, up to so many times the mean;
    None: all weigh alike."""


class ChecksSettings(Settings):
    """Items with a known answer, mixed unseen into what each rater of a gate labels."""

    items: PositiveInt = 10
    """Check items a rater and gate, at most."""
    file: str | None = None
    """JSON lines {"prompt", "response_1", "response_2", "choice"}; None: made from the task's corpus and gold."""
    every: Annotated[int, Field(ge=2)] = 10
    """One label in so many is a check."""
    failures: Annotated[float, Field(ge=0, lt=1)] = 0.10
    """Share of wrong answers above which the rater's labels cannot carry a verdict: the attempt is rolled back."""


class FeedbackSettings(Settings):
    rater: str = "simulated"
    """`simulated` (the task's own), `people`, or a plug-in `package.module:Class`."""
    options: dict[str, Any] = {}
    """Keyword arguments of the simulated rater or the plug-in."""
    initial_labels: PositiveInt = 400
    labels_per_round: Annotated[int, Field(ge=0)] = 0
    """Training comparisons bought before each refit but the first, on the last candidate's own samples."""
    raters_per_item: PositiveInt = 1
    """An item's outcome is the mean of its raters' verdicts, fixed beforehand."""
    label_deadline_hours: Annotated[float, Field(gt=0, le=87_600)] = 72.0
    """Of each of a gate's queues, from when it is first asked; what is missing then counts against the candidate."""
    raters: tuple[Annotated[str, Field(min_length=1, max_length=200)], ...] = ()
    """Who may label; empty: whoever does. Words of anybody else are refused."""
    checks: ChecksSettings | None = None
    """Items with a known answer; None: there are none."""
    repeat_every: Annotated[int, Field(ge=5)] | None = None
    """One label in so many is asked again of the same person, sides swapped and unmarked, to see how steady they are;
    None: never."""
    guidelines: Annotated[str, Field(max_length=20_000)] | None = None
    """What raters are to look for, shown beside the comparisons as plain text."""
    lease_minutes: Annotated[float, Field(gt=0, le=1440)] = 10.0
    """How long a comparison on somebody's screen is kept from others."""

    @model_validator(mode="after")
    def _named_raters_suffice(self) -> Self:
        named = len(set(map(recorded_name, self.raters)))
        if self.raters and named < self.raters_per_item:
            raise ValueError(
                f"`raters` names {named} and each item wants {self.raters_per_item}; "
                "name more, or lower raters_per_item"
            )
        return self


class Method(StrEnum):
    """How the gate's tests weigh their evidence."""

    BETTING = "betting"
    """Anytime-valid e-processes: the gate may look after every label, and stops as soon as the labels say enough."""
    WILSON = "wilson"
    """Wilson's bound on exactly `max_labels` labels; nothing is told before they are all in."""
    CLOPPER_PEARSON = "clopper_pearson"
    """Likewise, exact: a tie counts as a loss in it."""


class DirectionSettings(Settings):
    """Test of the direction in which the next gradient points: the best against the worst of a candidate's samples."""

    max_labels: PositiveInt = 200
    best_of: Annotated[int, Field(ge=2)] = 8
    """Samples a prompt, from which the reward model takes the best and the worst."""
    over_promise_limit: Probability = 0.15


class PathSettings(Settings):
    """Test of the reward paid on the way: rollouts of the phase, drawn by advantage, against the start's samples."""

    max_labels: PositiveInt = 200
    wrong_reward_limit: Probability = 0.5
    """The most of the reward paid that may have gone to responses which people like less than a start's sample."""


class CreepSettings(Settings):
    """Test against older checkpoints: small losses, each too small to see, must not add up."""

    max_labels: PositiveInt = 200
    every: PositiveInt = 1
    """Stages from one such test to the next; the first stage, which begins at the base, needs none."""
    older: PositiveInt = 4
    """Approvals by which the second anchor lies back; the first is the base."""


GOLD: Final = "gold"
"""As an evaluator, the task's own scorer. It audits and never rates."""


class AuditSettings(Settings):
    """An evaluator better than the raters looks at part of what they labelled. It can refuse, never approve."""

    evaluator: str = GOLD
    """`gold` (the task's own scorer, where it has one), `people` (other people than the raters), a plug-in
    `package.module:Class`, or `none`."""
    labels: PositiveInt = 100
    """Audited items of a gate's queue, from its front: its order is random and was sealed before the first label."""
    limit: Probability | None = None
    """The most by which raters may favour the candidate beyond what the evaluator does; None: the audit is reported
    and refuses nothing."""

    @model_validator(mode="after")
    def _somebody_holds_the_limit(self) -> Self:
        if self.limit is not None and self.evaluator == "none":
            raise ValueError("`audit.limit` needs somebody who audits; set audit.evaluator, or leave the limit out")
        return self


class TripwireSettings(Settings):
    """A pattern that must not become more frequent in what the policy writes."""

    name: Name
    pattern: Annotated[str, Field(min_length=1)]
    """Python regular expression, searched for in each response."""
    increase: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """The most by which the share of responses with it may exceed the approved policy's."""

    @model_validator(mode="after")
    def _pattern_compiles(self) -> Self:
        try:
            re.compile(self.pattern)
        except re.error as error:
            raise ValueError(f"tripwire {self.name}: the pattern is no regular expression: {error}") from error
        return self


class VetoSettings(Settings):
    """What refuses a candidate without any statistics; None switches a veto off."""

    kl_overrun: Annotated[float, Field(ge=1)] | None = 1.5
    """Sequence KL from the reference over the phase's budget."""
    length_ratio: Annotated[float, Field(gt=1)] | None = None
    """Mean response length of the candidate over the approved policy's, on the gate's prompts. Like a tripwire, it
    refuses before any label is bought, so the next attempt learns nothing new from it; hence off unless asked for."""
    both_bad_increase: Probability | None = 0.10
    """Of the share of comparisons in which neither response would do, over the last ones of the approved policy."""
    harm_increase: Probability | None = 0.05
    """Of the share of responses flagged as harmful, over the approved policy's in the same comparisons."""
    tripwires: tuple[TripwireSettings, ...] = ()


class GateSettings(Settings):
    alpha: Probability = 0.10
    """Bound on the probability of any wrong approval in the whole campaign."""
    over_promise_limit: Probability = 0.15
    """The most by which the reward model may promise more than people give, in probability."""
    method: Method = Method.BETTING
    min_labels: PositiveInt = 40
    max_labels: PositiveInt = 400
    """Labels on candidate against approved; the further tests have their own."""
    labels_per_look: PositiveInt = 20
    """Labels bought between two looks at the evidence; the tests stay valid at any number."""
    direction: DirectionSettings | None = DirectionSettings()
    """Asked wherever a campaign has more than one stage, like `path` and `creep`; None: never."""
    path: PathSettings | None = PathSettings()
    creep: CreepSettings | None = CreepSettings()
    audit: AuditSettings = AuditSettings()
    vetoes: VetoSettings = VetoSettings()

    @model_validator(mode="after")
    def _labels_in_order(self) -> Self:
        if self.min_labels > self.max_labels:
            raise ValueError(f"min_labels {self.min_labels} exceeds max_labels {self.max_labels}")
        if self.audit.labels > self.max_labels:
            raise ValueError(f"audit.labels {self.audit.labels} exceeds max_labels {self.max_labels}")
        return self

    @model_validator(mode="before")
    @classmethod
    def _audit_fits_small_gates(cls, given: Any) -> Any:
        """A gate smaller than the default audit is audited whole, unless the audit's size is given."""
        if isinstance(given, dict) and type(given.get("max_labels")) is int:
            audit = given.get("audit", {})
            if isinstance(audit, dict) and "labels" not in audit:
                labels = min(AuditSettings().labels, given["max_labels"])
                return {**given, "audit": {**audit, "labels": labels}}
        return given


class ApprovalSettings(Settings):
    by: Literal["person", "gate"] = "person"
    approvers: PositiveInt = 1
    """Different people whose approval a candidate needs."""
    owner: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    """Whose campaign it is."""
    self_approval: bool = True
    """Whether the owner may approve."""
    override: bool = False
    """Whether one approver may, in an emergency, stand for all of them; the ledger and every page then say so."""

    @model_validator(mode="after")
    def _self_approval_names_whose(self) -> Self:
        if not self.self_approval and self.owner is None:
            raise ValueError("`approval.self_approval: false` wants approval.owner: whose campaign it is")
        return self


class EvaluationSettings(Settings):
    """The instrument that watches from outside: it trains nothing and gates nothing."""

    prompts: Annotated[int, Field(ge=0)] = 256
    """Evaluation prompts a checkpoint, two samples each; 0 switches gold off."""


class ResourceSettings(Settings):
    address: str = "local"
    """`in_process`, `local` (a Ray cluster on this machine) or a Ray address."""
    workers: PositiveInt = 1
    threads_per_worker: PositiveInt = 1
    """For tensor arithmetic on the CPU; small models are fastest with one."""
    gpus_per_worker: Annotated[float, Field(ge=0)] = 0.0


class TrackingSettings(Settings):
    mlflow: str = "default"
    """`default` (SQLite under the home folder), a tracking server's address, or `none`."""


class NotifySettings(Settings):
    """Whom to tell when a campaign has to wait for people; `orchestrator.notify` says what is told."""

    url: str | None = None
    """Where a JSON document is posted. It stands on the ledger: one that is itself a secret is given to a run alone, as
    `--set notify.url=…`."""
    command: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    """A program and its arguments, run without a shell; it reads the document from its standard input."""

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if self.url is not None and self.command is not None:
            raise ValueError("give one of `notify.url` and `notify.command`; a command can tell several")
        if self.url is not None and not _WEB_ADDRESS.fullmatch(self.url):
            raise ValueError("`notify.url` is no http or https address; one without user and password is wanted")
        return self


class PriceSettings(Settings):
    label_usd: Annotated[float, Field(ge=0)] = 0.60
    gpu_hour_usd: Annotated[float, Field(ge=0)] = 2.50


class CampaignSettings(Settings):
    name: CampaignName
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    task: TaskSettings
    base: BaseSettings
    candidate: CandidateSettings | None = None
    """None: candidates are trained."""
    protocol: ProtocolSettings = ProtocolSettings()
    phase: PhaseSettings = PhaseSettings()
    reward_model: RewardModelSettings = RewardModelSettings()
    feedback: FeedbackSettings = FeedbackSettings()
    gate: GateSettings = GateSettings()
    approval: ApprovalSettings = ApprovalSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    resources: ResourceSettings = ResourceSettings()
    tracking: TrackingSettings = TrackingSettings()
    notify: NotifySettings = NotifySettings()
    priority: int = 0
    """Of campaigns that wait for the same person, the one with more is shown first."""
    prices: PriceSettings = PriceSettings()

    @model_validator(mode="after")
    def _people_approve_what_people_label(self) -> Self:
        if self.feedback.rater == "people" and self.approval.by == "gate":
            raise ValueError("`approval.by: gate` is for unattended studies; people who label also approve")
        return self

    @model_validator(mode="after")
    def _a_given_candidate_is_judged_once(self) -> Self:
        protocol = self.protocol
        once = protocol.stages == protocol.attempts == 1 and protocol.restart_from is RestartFrom.APPROVED
        if self.candidate is not None and not (once and protocol.advance is Advance.UNTIL_AGREEMENT):
            raise ValueError(
                "`candidate` is judged by one gate and nothing is trained; set protocol: {stages: 1, attempts: 1}"
            )
        return self

    @model_validator(mode="after")
    def _exact_bound_needs_single_verdicts(self) -> Self:
        if self.gate.method is Method.CLOPPER_PEARSON and self.feedback.raters_per_item > 1:
            raise ValueError(
                "`gate.method: clopper_pearson` counts wins, and several raters an item give shares; "
                "set feedback.raters_per_item: 1, or take wilson or betting"
            )
        return self

    @model_validator(mode="after")
    def _once_learns_from_something(self) -> Self:
        if self.protocol.advance is Advance.ONCE and not self.feedback.labels_per_round:
            raise ValueError(
                "`advance: once` learns from labels on each first policy; set feedback.labels_per_round, to 100 say"
            )
        return self

    @model_validator(mode="after")
    def _algorithm_fits_reward_model(self) -> Self:
        algorithm, policy = self.phase.algorithm, self.protocol.reward_model
        if algorithm.needs_reward_model and policy is RewardModelPolicy.NONE:
            raise ValueError(
                f"`phase.algorithm: {algorithm}` learns from a reward model; "
                "set protocol.reward_model to refit or frozen"
            )
        if not algorithm.needs_reward_model and policy is not RewardModelPolicy.NONE:
            raise ValueError(
                f"`phase.algorithm: {algorithm}` learns from the labels themselves; set protocol.reward_model: none"
            )
        stop = self.phase.stop
        if not algorithm.needs_reward_model and (stop.predicted_win_rate or stop.spread_growth):
            raise ValueError(f"`phase.stop` asks a reward model, and `{algorithm}` has none; leave it out")
        if stop.spread_growth and self.reward_model.members < 2:
            raise ValueError("`phase.stop.spread_growth` needs reward_model.members of 2 or more")
        return self

    @property
    def promises(self) -> bool:
        """Whether a reward promises something of a candidate, so that the gate has an over-promise to question."""
        if self.candidate is not None:
            return self.candidate.reward_model is not None
        return self.phase.algorithm.promises

    @property
    def gate_prompts(self) -> int:
        """Gate prompts that the whole campaign may use; each serves one comparison, once."""
        if self.protocol.advance is Advance.ALWAYS:
            return 0
        return self.protocol.stages * self.protocol.attempts * self.gate_block

    @property
    def gate_block(self) -> int:
        """Gate prompts set aside for one attempt: its comparisons with the approved policy and with two anchors, and
        its direction. The path is questioned on the phase's own prompts."""
        further = (self.gate.direction, self.gate.creep, self.gate.creep) if self.protocol.stages > 1 else ()
        return self.gate.max_labels + sum(part.max_labels for part in further if part is not None)

    def digest(self) -> str:
        """Digest of what decides results: names, tracking, notices, prices and placement do not."""
        return digest_of(
            self.model_dump(mode="json", exclude={"name", "resources", "tracking", "notify", "priority", "prices"})
        )
