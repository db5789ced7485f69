"""The head with Beta distributions."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from particle_grid.learn.heads.numbers import solve


class BetaHead(nn.Module):
    """Independent Beta distributions over [-1, 1] with one peak (Chou, Maturana and Scherer 2017). Outputs: K = 2 A.

    Samples lie within (0, 1). No part of the distribution lies outside the box, so nothing is clipped.
    """

    dtype = torch.float32

    def __init__(self, components: int) -> None:
        super().__init__()
        self.components = components
        self.outputs = 2 * components

    def _shape(self, out: Tensor) -> tuple[Tensor, Tensor]:
        """Return alpha and beta, f32[..., A], both above 1."""
        alpha, beta = (1 + F.softplus(out)).chunk(2, -1)
        return alpha, beta

    def sample(self, out: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return samples f32[..., A] and their log-probability f32[...]."""
        a, b = (torch._standard_gamma(x, generator=generator) for x in self._shape(out))
        sample = (a / (a + b)).clamp(1e-6, 1 - 1e-6)
        return sample, self.log_prob_and_entropy(out, sample)[0]

    def log_prob_and_entropy(self, out: Tensor, sample: Tensor) -> tuple[Tensor, Tensor]:
        """Return log-probability and entropy, in nats, of the action 2 * sample - 1, both f32[...]."""
        a, b = self._shape(out)
        log_beta = a.lgamma() + b.lgamma() - (a + b).lgamma() + math.log(2)
        logp = (a - 1) * sample.log() + (b - 1) * (-sample).log1p() - log_beta
        entropy = (a + b - 2) * (a + b).digamma() - (a - 1) * a.digamma() - (b - 1) * b.digamma() + log_beta
        return logp.sum(-1), entropy.sum(-1)

    def mode(self, out: Tensor) -> Tensor:
        """Return the mean, f32[..., A]."""
        a, b = self._shape(out)
        return a / (a + b)

    def to_action(self, sample: Tensor) -> Tensor:
        """Return the sample f32[..., A] in (0, 1), stretched to (-1, 1)."""
        return 2 * sample - 1

    def init_bias(self, rms: float, moves: bool = False) -> Tensor:
        """Return the outputs f32[K] with which actions have this root mean square along each axis.

        Args:
            rms: root mean square. With one peak it is smaller than that of a uniform distribution.
            moves: whether it is that of the nearest discrete moves.

        Raises:
            UserError: if no outputs do.
        """
        x = (torch.arange(4096, dtype=torch.float64) + 0.5) / 4096
        actions = self.to_action(x)
        squares = (actions.round() if moves else actions).square()

        def spread(out: float) -> float:
            a, b = self._shape(torch.tensor([out, out], dtype=torch.float64))
            return float((((a - 1) * x.log() + (b - 1) * (-x).log1p()).softmax(0) @ squares).sqrt())

        return torch.full((self.outputs,), -solve(lambda out: spread(-out), rms, -20, 20))
