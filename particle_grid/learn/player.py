"""A trained policy at play."""

import numpy as np
import torch

from particle_grid.learn.fast import accelerate
from particle_grid.learn.policy import Policy, check_array
from particle_grid.support.uncopied import Uncopied


class Player(Uncopied):
    """Acts with a policy for a number of agents, and keeps their recurrent state.

    Args:
        policy: the policy. Its weights may change between calls.
        n: the number of agents.
        seed: of the samples.
        greedy: choose the most probable action instead of sampling.
    """

    instead = "make another Player of the policy, or of a copy of the policy"

    def __init__(self, policy: Policy, n: int, seed: int, greedy: bool = False) -> None:
        self.policy = policy
        self.n = n
        self.greedy = greedy
        self.state = policy.initial_state(n)
        self.device = next(policy.parameters()).device
        mode = "fp32" if self.device.type == "cpu" else "off"  # compiling for a GPU would take longer than playing
        self.network, _ = accelerate(policy, mode, self.device, 0)
        self.generator = torch.Generator(self.device).manual_seed(seed)

    @torch.no_grad()
    def __call__(self, observations: np.ndarray, starts: np.ndarray) -> np.ndarray:
        """Return the next action of each agent.

        Args:
            observations: u8[N, observation size].
            starts: bool[N], whether the observation is the first of an episode.

        Returns:
            i32[N, A] or f32[N, A].

        Raises:
            UserError: for arrays of another dtype or shape.
        """
        check_array("observations", observations, np.uint8, (self.n, self.policy.observation_size))
        check_array("starts", starts, np.bool_, (self.n,))
        obs = self._tensor(observations)
        out, _, self.state = self.network(obs, self._tensor(starts), self.state)
        head = self.policy.head
        sample = head.mode(out[0]) if self.greedy else head.sample(out[0], self.generator)[0]
        return head.to_action(sample).cpu().numpy()

    def _tensor(self, array: np.ndarray) -> torch.Tensor:
        """Return an array [N, ...] as a tensor [1, N, ...] on the device."""
        plain = np.require(array, requirements=["C", "W"])  # torch accepts no others
        return torch.from_numpy(plain).to(self.device)[None]
