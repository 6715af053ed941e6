"""What a checkpoint holds besides its weights, and the digest of all that a phase starts from."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from policies.errors import ModelFolderError
from policies.kl import KLController

TENSORS_FILE, RECORD_FILE = "trainer_state.safetensors", "trainer_state.json"
_MOMENTS = ("exp_avg", "exp_avg_sq", "step")


@dataclass(frozen=True)
class TrainerState:
    """Optimizer, controller, reward normalisation and generators at the end of a phase."""

    moments: dict[str, Tensor]
    """`exp_avg.<weight>`, `exp_avg_sq.<weight>` and `step.<weight>`, as AdamW keeps them."""
    controller: KLController
    reward_mean: float
    """The normalisation that the phase's rewards had; never restored, since the next reward model has its own."""
    reward_sd: float
    generators: dict[str, Tensor]
    """State of each random stream; kept as evidence, since each attempt derives streams of its own."""

    @classmethod
    def of(
        cls,
        model: Any,
        optimizer: torch.optim.Optimizer,
        controller: KLController,
        *,
        reward_mean: float,
        reward_sd: float,
        generators: dict[str, torch.Generator],
    ) -> Self:
        """Take down the state as it is."""
        states = {name: source.get_state() for name, source in generators.items()}
        return cls(dict(_moments(model, optimizer)), controller, reward_mean, reward_sd, states)

    @staticmethod
    def present(folder: Path) -> bool:
        """Say whether a checkpoint has trainer state; a base model has none."""
        return (folder / RECORD_FILE).is_file()

    def save(self, folder: Path) -> None:
        """Write beside the weights; same state, same bytes."""
        tensors = {f"moments.{name}": tensor.contiguous() for name, tensor in self.moments.items()}
        tensors |= {f"generators.{name}": tensor for name, tensor in self.generators.items()}
        save_file(tensors, folder / TENSORS_FILE)
        record = {
            "kl_controller": self.controller.state(),
            "reward": {"mean": self.reward_mean, "sd": self.reward_sd},
        }
        (folder / RECORD_FILE).write_text(json.dumps(record, indent=2, sort_keys=True) + "\n")

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote.

        Raises:
            ModelFolderError: if it is incomplete.
        """
        try:
            record = json.loads((folder / RECORD_FILE).read_text())
            tensors = load_file(folder / TENSORS_FILE)
            controller = KLController(**record["kl_controller"])
            return cls(
                _under("moments.", tensors),
                controller,
                record["reward"]["mean"],
                record["reward"]["sd"],
                _under("generators.", tensors),
            )
        except (OSError, KeyError, TypeError, ValueError, SafetensorError) as error:
            raise ModelFolderError(f"{folder} has incomplete trainer state: {error}") from error

    def restore_moments(self, model: Any, optimizer: torch.optim.Optimizer) -> None:
        """Give the optimizer these moments.

        Raises:
            ModelFolderError: if they are not those of this model's weights.
        """
        for name, parameter in model.named_parameters():
            try:
                found = {moment: self.moments[f"{moment}.{name}"] for moment in _MOMENTS}
            except KeyError as error:
                raise ModelFolderError(f"trainer state lacks {error}; use phase.optimizer: reset") from None
            optimizer.state[parameter] = {
                moment: tensor.clone() if moment == "step" else tensor.to(parameter.device, copy=True)
                for moment, tensor in found.items()
            }


def digest(model: Any, optimizer: torch.optim.Optimizer, controller: KLController) -> str:
    """Hash all that a phase starts from, as it is in memory: weights, moments, controller; sha256, hex."""
    running = hashlib.sha256()
    named = [*model.state_dict().items(), *_moments(model, optimizer)]
    for name, tensor in sorted(named, key=lambda pair: pair[0]):
        _feed(running, name, str(tensor.dtype), str(tuple(tensor.shape)))
        running.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    _feed(running, json.dumps(controller.state(), sort_keys=True))
    return running.hexdigest()


def _feed(running: Any, *parts: str) -> None:
    for part in parts:
        encoded = part.encode()
        running.update(len(encoded).to_bytes(8, "big") + encoded)


def _moments(model: Any, optimizer: torch.optim.Optimizer) -> Iterable[tuple[str, Tensor]]:
    for name, parameter in model.named_parameters():
        for moment, value in optimizer.state.get(parameter, {}).items():
            yield f"{moment}.{name}", value


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
