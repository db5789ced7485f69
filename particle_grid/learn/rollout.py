"""The buffers of a rollout: T steps of N agents."""

import torch
from torch import Tensor

from particle_grid.learn.heads import Head
from particle_grid.learn.policy import State


class Rollout:
    """T steps of N agents on the device, allocated once and written in place.

    obs u8[T, N, row], what the policy saw before step t; starts bool[T + 1, N], whether that was the first of an
    episode; actions [T, N, A] in the head's dtype; logp f32[T, N]; values f32[T + 1, N], the last row of the
    observation behind the last step; rewards f32[T, N], terminals and truncations bool[T, N], what step t gave;
    state: the recurrent state before step 0.
    """

    def __init__(self, steps: int, n: int, row: int, head: Head, device: torch.device) -> None:
        def zeros(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.zeros(shape, dtype=dtype, device=device)

        self.obs = zeros(steps, n, row, dtype=torch.uint8)
        self.starts = zeros(steps + 1, n, dtype=torch.bool)
        self.actions = zeros(steps, n, head.components, dtype=head.dtype)
        self.logp, self.rewards = zeros(steps, n), zeros(steps, n)
        self.values = zeros(steps + 1, n)
        self.terminals, self.truncations = zeros(steps, n, dtype=torch.bool), zeros(steps, n, dtype=torch.bool)
        self.state: State = ()
