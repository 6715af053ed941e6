"""PPO's critic: one linear map from the policy's final states to what the rest of a response is expected to bring."""

import torch
from torch import Tensor, nn


class ValueHead(nn.Linear):
    """Values of states, float32; shares its trunk with the policy. Starts at zero, so that it first expects nothing."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__(hidden_size, 1)
        nn.init.zeros_(self.weight)
        nn.init.zeros_(self.bias)

    def forward(self, states_ND: Tensor) -> Tensor:
        """Give the value before each token; [N]."""
        return torch.addmv(self.bias, states_ND, self.weight[0])
