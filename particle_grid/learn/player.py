"""A trained policy at play: it remembers, acts, and learns nothing."""

import numpy as np
import torch

from particle_grid.learn.fast import accelerate
from particle_grid.learn.policy import Policy, check_array
from particle_grid.support.uncopied import Uncopied


class Player(Uncopied):
    """Acts for n agents with a policy, from fresh memory on. greedy: the most probable action, not a sampled one."""

    instead = "make another Player of the policy, or of a copy of that"

    def __init__(self, policy: Policy, n: int, seed: int, greedy: bool = False) -> None:
        self.policy, self.greedy, self.n, self.state = policy, greedy, n, policy.initial_state(n)
        self.device = next(policy.parameters()).device
        # not worth compiling for on a GPU
        self.network, _ = accelerate(policy, "fp32" if self.device.type == "cpu" else "off", self.device, 0)
        self.generator = torch.Generator(self.device).manual_seed(seed)

    @torch.no_grad()
    def __call__(self, observations: np.ndarray, starts: np.ndarray) -> np.ndarray:
        """observations u8[N, row], starts bool[N]: which are the first of an episode -> actions [N, A]. Raises
        ValueError for arrays of another kind or shape."""
        check_array("observations", observations, np.uint8, (self.n, self.policy.row))
        check_array("starts", starts, np.bool_, (self.n,))
        plain = (np.require(x, requirements=["C", "W"]) for x in (observations, starts))  # torch wants no others
        obs, new = (torch.from_numpy(x).to(self.device)[None] for x in plain)  # [1, N, ...]
        out, _, self.state = self.network(obs, new, self.state)
        head = self.policy.head
        actions = head.mode(out[0]) if self.greedy else head.sample(out[0], self.generator)[0]
        return head.to_action(actions).cpu().numpy()
