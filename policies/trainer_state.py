"""What a checkpoint holds besides its weights, and the digest of all that a phase starts from."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

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
    value_head: dict[str, Tensor] = field(default_factory=dict)
    """PPO's; empty after other algorithms. Its moments are among the others, as `<moment>.value_head.<weight>`."""

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
        value_head: nn.Module | None = None,
    ) -> Self:
        """Take down the state as it is."""
        states = {name: source.get_state() for name, source in generators.items()}
        moments = dict(_moments(model, optimizer, value_head))
        head = {} if value_head is None else {name: tensor.clone() for name, tensor in value_head.state_dict().items()}
        return cls(moments, controller, reward_mean, reward_sd, states, head)

    @staticmethod
    def present(folder: Path) -> bool:
        """Say whether a checkpoint has trainer state; a base model has none."""
        return (folder / RECORD_FILE).is_file()

    def save(self, folder: Path) -> None:
        """Write beside the weights; same state, same bytes."""
        tensors = {f"moments.{name}": tensor.contiguous() for name, tensor in self.moments.items()}
        tensors |= {f"generators.{name}": tensor for name, tensor in self.generators.items()}
        tensors |= {f"value_head.{name}": tensor for name, tensor in self.value_head.items()}
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
                _under("value_head.", tensors),
            )
        except (OSError, KeyError, TypeError, ValueError, SafetensorError) as error:
            raise ModelFolderError(f"{folder} has incomplete trainer state: {error}") from error

    def restore_moments(self, model: Any, optimizer: torch.optim.Optimizer) -> None:
        """Give the optimizer these moments of the policy's weights.

        Raises:
            ModelFolderError: if they are not those of this model's weights.
        """
        self._restore(_named(model, None), optimizer)

    def restore_value_head(self, value_head: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Give the value head its weights and the optimizer their moments; after another algorithm, do nothing.

        Raises:
            ModelFolderError: if they are those of a head of another shape.
        """
        if not self.value_head:
            return
        try:
            value_head.load_state_dict(self.value_head)
        except RuntimeError as error:
            raise ModelFolderError(f"trainer state has another value head: {error}") from error
        self._restore(_named(None, value_head), optimizer)

    def _restore(self, named: Iterable[tuple[str, nn.Parameter]], optimizer: torch.optim.Optimizer) -> None:
        for name, parameter in named:
            try:
                found = {moment: self.moments[f"{moment}.{name}"] for moment in _MOMENTS}
            except KeyError as error:
                raise ModelFolderError(f"trainer state lacks {error}; use phase.optimizer: reset") from None
            optimizer.state[parameter] = {
                moment: tensor.to(parameter.device, copy=True) for moment, tensor in found.items()
            }


def digest(
    model: Any, optimizer: torch.optim.Optimizer, controller: KLController, value_head: nn.Module | None = None
) -> str:
    """Hash all that a phase starts from, as it is in memory: weights, moments, controller; sha256, hex."""
    running = hashlib.sha256()
    head = {} if value_head is None else value_head.state_dict()
    named = [
        *model.state_dict().items(),
        *((f"value_head.{name}", tensor) for name, tensor in head.items()),
        *_moments(model, optimizer, value_head),
    ]
    for name, tensor in sorted(named, key=lambda pair: pair[0]):
        _feed(running, name, str(tensor.dtype), str(tuple(tensor.shape)))
        running.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    _feed(running, json.dumps(controller.state(), sort_keys=True))
    return running.hexdigest()


def _feed(running: Any, *parts: str) -> None:
    for part in parts:
        encoded = part.encode()
        running.update(len(encoded).to_bytes(8, "big") + encoded)


def _named(model: Any, value_head: nn.Module | None) -> Iterable[tuple[str, nn.Parameter]]:
    if model is not None:
        yield from model.named_parameters()
    if value_head is not None:
        yield from ((f"value_head.{name}", parameter) for name, parameter in value_head.named_parameters())


def _moments(
    model: Any, optimizer: torch.optim.Optimizer, value_head: nn.Module | None
) -> Iterable[tuple[str, Tensor]]:
    for name, parameter in _named(model, value_head):
        for moment, value in optimizer.state.get(parameter, {}).items():
            yield f"{moment}.{name}", value


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
