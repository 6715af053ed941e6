"""The quickstart: one campaign and its two baselines from the same base, seeds, initial labels and rater, then the tax.

    ratchet   roll back to the approved checkpoint until fresh labels and reward agree
    online    ordinary RLHF with fresh labels: continue from the last policy, refit each round, no gate
    offline   ordinary RLHF on the initial labels alone: one reward model, no gate

The arms are the same machine under other protocol settings, so the comparison is fair; nothing that happens in them
is arranged. Killed or interrupted, the same command goes on where it stopped.
"""

from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from orchestrator import views
from orchestrator.campaigns import create, require_free
from orchestrator.core.events import BaseReady, CampaignCreated, parse
from orchestrator.core.settings import CampaignSettings
from orchestrator.core.state import CampaignState
from orchestrator.core.tax import RESOURCES, curve, tax
from orchestrator.core.work import PrepareBase
from orchestrator.errors import LockedError, RatchetError, UsageError
from orchestrator.home import Home
from orchestrator.ports import Claim, Workers
from orchestrator.review.office import Office, pause
from orchestrator.runner import Runner, Watcher, read_settings, read_state_at
from orchestrator.signals import signal_heard
from orchestrator.store.ledger import Ledger

RATCHET, ONLINE, OFFLINE = "ratchet", "online", "offline"
BASELINES: Final[Mapping[str, Mapping[str, Any]]] = {
    ONLINE: {
        "protocol": {
            "restart_from": "last",
            "advance": "always",
            "reward_model": "refit",
            "stages": 6,
            "attempts": 1,
        },
        "feedback": {"labels_per_round": 50},
    },
    OFFLINE: {
        "protocol": {
            "restart_from": "last",
            "advance": "always",
            "reward_model": "frozen",
            "stages": 4,
            "attempts": 1,
        },
        "phase": {"steps": 40, "kl": {"budget_nats": None}},
    },
}
"""What each baseline changes of the quickstart; labels a round and phase lengths are their best on tuning seeds."""
TARGET_GOLD: Final = 5.0
"""Fixed beforehand. The base answers at about 3.5; a reply without a fault is worth 6.5."""


def arm_settings(quickstart: CampaignSettings, seed: int) -> dict[str, CampaignSettings]:
    """The three arms of one seed."""
    arms: dict[str, Mapping[str, Any]] = {RATCHET: {}, **BASELINES}
    return {
        arm: CampaignSettings.model_validate(
            _merged(quickstart.model_dump(), {**changes, "name": f"demo-{seed}-{arm}", "seed": seed})
        )
        for arm, changes in arms.items()
    }


def _merged(data: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(data)
    for key, value in changes.items():
        inner = merged.get(key)
        if isinstance(value, Mapping) and isinstance(inner, Mapping):
            value = _merged(inner, value)
        merged[key] = value
    return merged


@dataclass(frozen=True, slots=True)
class Demo:
    """The demo of one seed in one home."""

    home: Home
    arms: Mapping[str, CampaignSettings]
    author: str

    def run(
        self,
        workers: Workers,
        watchers: Mapping[str, Watcher],
        follow: Callable[[Ledger], AbstractContextManager[Any]],
    ) -> None:
        """Run all arms to their ends, side by side on the workers that there are.

        Args:
            workers: closed if the run is broken off, since an arm may be waiting for them.
            watchers: who sees each campaign, by its name.
            follow: what mirrors the ledger while the arms run.
        """
        with self.home.ledger() as ledger:
            self._create_arms(ledger, workers, watchers)
            for settings in self.arms.values():
                require_free(ledger, settings.name)
            with follow(ledger):
                self._run_arms(ledger, workers, watchers)
            self._require_ended(ledger)

    def _require_ended(self, ledger: Ledger) -> None:
        """No tax is told of arms that stopped half way."""
        for arm, (state, _) in self.states(ledger).items():
            if state.ended_by is None:
                seed = self.arms[RATCHET].seed
                raise UsageError(
                    f"the {arm} arm is {state.status.value}, so there is nothing to compare yet; "
                    f"go on with: ratchet demo --seed {seed}"
                )

    def _create_arms(self, ledger: Ledger, workers: Workers, watchers: Mapping[str, Watcher]) -> None:
        """Grow the base once, and begin every arm from it."""
        begun = self._begun(ledger)
        missing = {arm: settings for arm, settings in self.arms.items() if settings.name not in begun}
        if not missing:
            return
        base = self._base(ledger, workers, watchers)
        for settings in missing.values():
            create(settings, self.home, author=self.author, base=base)

    def _base(self, ledger: Ledger, workers: Workers, watchers: Mapping[str, Watcher]) -> str:
        begun = self._begun(ledger)
        for settings in self.arms.values():
            if settings.name in begun:
                created = parse(ledger.events(settings.name)[0]).body
                if isinstance(created, CampaignCreated) and created.start_from is not None:
                    return created.start_from
        settings = self.arms[RATCHET]
        work = PrepareBase(seed=settings.seed, task=settings.task, base=settings.base)
        shown = watchers[settings.name]
        shown.on_work(work)
        done = workers.run(work, Claim(settings.name, work.command_id, epoch=0), shown.on_progress)
        if not isinstance(done.body, BaseReady):
            raise UsageError(f"preparing the base gave {done.body.TYPE}; this is a bug in Ratchet")
        return done.body.checkpoint

    def _begun(self, ledger: Ledger) -> set[str]:
        """Campaigns with a first event; a name without one was left by a crash, and creating it again mends that."""
        return {name for name in ledger.campaigns() if ledger.head(name).seq >= 0}

    def _run_arms(self, ledger: Ledger, workers: Workers, watchers: Mapping[str, Watcher]) -> None:
        artifacts = self.home.artifacts()
        with ThreadPoolExecutor(len(self.arms)) as pool:
            runs = [
                pool.submit(
                    Runner(
                        settings.name,
                        ledger=ledger,
                        artifacts=artifacts,
                        workers=workers,
                        watcher=watchers[settings.name],
                    ).run
                )
                for settings in self.arms.values()
            ]
            try:
                wait(runs, return_when=FIRST_EXCEPTION)
                for run in runs:
                    run.result()
            except LockedError:
                # Somebody else runs these arms: leave them alone.
                workers.close()
                raise
            except BaseException:
                # One arm failed, or Ctrl-C: the others stop too, and the same command goes on later.
                self._pause_all(ledger)
                workers.close()
                raise

    def _pause_all(self, ledger: Ledger) -> None:
        heard = signal_heard()
        why = "the demo was interrupted" + (f": {heard}" if heard else "")
        for settings in self.arms.values():
            try:
                office = Office(ledger, self.home.artifacts(), settings.name)
                pause(office, why, author=self.author)
            except RatchetError:
                continue

    def result(self, ledger: Ledger) -> dict[str, Any]:
        """The document of `ratchet demo --json`, from the ledger alone; `report` is still None."""
        states = self.states(ledger)
        points = {arm: curve(state) for arm, (state, _) in states.items()}
        base = states[RATCHET][0].deployments[0]
        first = states[RATCHET][0].attempts[0].evaluation
        return {
            "seed": self.arms[RATCHET].seed,
            "base_gold": base.gold_mean,
            "base_gold_se": base.gold_se,
            "reward_model_accuracy_gold": first.reward_model_accuracy if first else None,
            "arms": {arm: _arm(state, settings) for arm, (state, settings) in states.items()},
            "tax": {
                resource: tax(
                    points, target_gold=TARGET_GOLD, arm=RATCHET, baseline=ONLINE, resource=resource
                ).model_dump(mode="json")
                for resource in RESOURCES
            },
            "report": None,
        }

    def states(self, ledger: Ledger) -> dict[str, tuple[CampaignState, CampaignSettings]]:
        return {
            arm: (read_state_at(ledger, settings.name)[0], read_settings(ledger, settings.name))
            for arm, settings in self.arms.items()
        }

    @property
    def report_path(self) -> Path:
        return self.home.reports / f"demo-{self.arms[RATCHET].seed}.html"


def _arm(state: CampaignState, settings: CampaignSettings) -> dict[str, Any]:
    return {
        "campaign": settings.name,
        "status": views.status(state, settings),
        "ended_by": state.ended_by.value if state.ended_by else None,
        "advances": state.advances,
        "rollbacks": state.rollbacks,
        "deployed_gold": [deployed.gold_mean for deployed in state.deployments],
        "deployed_gold_se": [deployed.gold_se for deployed in state.deployments],
        "gold_by_step": [
            gold for attempt in state.attempts if attempt.evaluation for gold in attempt.evaluation.gold_by_step
        ],
        "kept_wrong_reward": _mean_share(state, advanced=True),
        "discarded_wrong_reward": _mean_share(state, advanced=False),
        "costs": views.costs(state, settings.prices),
    }


def _mean_share(state: CampaignState, *, advanced: bool) -> float | None:
    """Share of reward paid to wrong behaviour over the attempts that advanced, or over those that did not."""
    wrong = total = 0.0
    for attempt in state.attempts:
        seen = attempt.evaluation
        if attempt.advanced is advanced and seen and seen.wrong_reward_share and seen.wrong_reward is not None:
            wrong += seen.wrong_reward
            total += seen.wrong_reward / seen.wrong_reward_share
    return wrong / total if total else None
