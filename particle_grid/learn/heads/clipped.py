"""Heads with the likelihood of clipped actions: of one normal distribution, or of a mixture of three."""

import math

import numpy as np
import torch
from torch import Tensor, nn

from particle_grid.learn.heads.numbers import MOVES, Bounds, action_rms, normal_quantiles, solve
from particle_grid.learn.heads.probit import NormalMovesHead, discrete_entropy, log_masses

ENDS = (-1.0, 1.0)
LOG_ROOT_2PI = 0.5 * math.log(2 * math.pi)
NODES = 32  # of the quadrature of a mixture's entropy
MIXTURE_BOUNDS = Bounds(-1.75, 1.25, 0.0)  # deviations from 0.05 to 0.6, which begin at 0.17


def clipped_log_prob(location: Tensor, log_std: Tensor, x: Tensor) -> Tensor:
    """Return the log-probability of x for normal samples that are clipped to [-1, 1]: a mass at each end.

    All arguments are f32[...] and broadcast.
    """
    masses = log_masses(location, log_std, ENDS)
    density = -0.5 * ((x - location) * (-log_std).exp()).square() - log_std - LOG_ROOT_2PI
    density = density.masked_fill(x.abs() > 1, -torch.inf)
    return torch.where(x == -1, masses[..., 0], torch.where(x == 1, masses[..., 2], density))


class ClippedHead(NormalMovesHead):
    """A clipped normal sample with the likelihood of the clipped action (CAPG: Fujita and Maeda 2018).

    An action is at an end of the box with a probability, or between the ends with a density (arXiv:1802.07564).

    Attributes:
        atoms: values that have a probability of their own.
    """

    atoms = ENDS

    def sample(self, out: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return samples f32[..., A] in [-1, 1] and their log-probability f32[...]."""
        sample = self._normal_sample(out, generator).clamp(*ENDS)
        return sample, self.log_prob_and_entropy(out, sample)[0]

    def log_prob_and_entropy(self, out: Tensor, sample: Tensor) -> tuple[Tensor, Tensor]:
        """Return the log-probability of a sample f32[..., A], and the entropy in nats, both f32[...]."""
        location, log_std = self._parts(out)
        masses = log_masses(location, log_std, ENDS)
        # The integral of the density times its logarithm, from the moments of a truncated normal distribution.
        left, right = ((end - location) * (-log_std).exp() for end in ENDS)
        edge = _normal_density(left) * left - _normal_density(right) * right
        between = masses[..., 1].exp() * (log_std + LOG_ROOT_2PI + 0.5) + 0.5 * edge
        entropy = between + discrete_entropy(masses[..., ::2])
        return clipped_log_prob(location, log_std, sample).sum(-1), entropy.sum(-1)

    def mode(self, out: Tensor) -> Tensor:
        """Return the clipped mean, f32[..., A]."""
        return self._parts(out)[0].clamp(*ENDS)

    def to_action(self, sample: Tensor) -> Tensor:
        """Return the sample itself."""
        return sample


def _normal_density(z: Tensor) -> Tensor:
    return (-0.5 * z * z - LOG_ROOT_2PI).exp()


class MixtureHead(nn.Module):
    """A mixture of three clipped normal distributions for each component. Outputs: K = 9 A. Actions: f32[..., A].

    Each has a weight, a mean and a standard deviation that depend on the observation. The means begin at -1, 0 and 1,
    so a policy can choose between moves as a categorical one does, but with a density.

    Attributes:
        atoms: values that have a probability of their own.
    """

    dtype = torch.float32
    atoms = ENDS

    def __init__(self, components: int) -> None:
        super().__init__()
        self.components = components
        self.outputs = 3 * len(MOVES) * components
        self.register_buffer("centres", torch.tensor(MOVES), persistent=False)
        nodes, weights = np.polynomial.legendre.leggauss(NODES)
        points = torch.tensor([ENDS[0], *nodes, ENDS[1]], dtype=torch.float32)
        self.register_buffer("points", points, persistent=False)
        self.register_buffer("weights", torch.tensor([1.0, *weights, 1.0], dtype=torch.float32), persistent=False)

    def _parts(self, out: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return log-weights, means and log standard deviations, f32[..., A, 3]."""
        logits, location, raw = out.unflatten(-1, (self.components, 3, len(MOVES))).unbind(-2)
        return logits.log_softmax(-1), location + self.get_buffer("centres"), MIXTURE_BOUNDS.log_std(raw)

    def sample(self, out: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return samples f32[..., A] in [-1, 1] and their log-probability f32[...]."""
        logw, location, log_std = self._parts(out)
        uniform = torch.rand(logw.shape[:-1], generator=generator, device=out.device)
        noise = torch.randn(logw.shape[:-1], generator=generator, device=out.device)
        choice = (uniform.unsqueeze(-1) >= logw.exp().cumsum(-1)[..., :-1]).sum(-1, keepdim=True)
        mean, spread = (x.gather(-1, choice).squeeze(-1) for x in (location, log_std))
        sample = (mean + spread.exp() * noise).clamp(*ENDS)
        return sample, self._log_prob((logw, location, log_std), sample).sum(-1)

    @staticmethod
    def _log_prob(parts: tuple[Tensor, Tensor, Tensor], x: Tensor) -> Tensor:
        """Return the log-probability f32[...] of x for parts f32[..., 3]."""
        logw, location, log_std = parts
        return (logw + clipped_log_prob(location, log_std, x.unsqueeze(-1))).logsumexp(-1)

    def log_prob_and_entropy(self, out: Tensor, sample: Tensor) -> tuple[Tensor, Tensor]:
        """Return the log-probability of a sample f32[..., A], and the entropy in nats, both f32[...].

        The entropy is a Gauss-Legendre quadrature.
        """
        parts = self._parts(out)
        logw, location, log_std = (x.unsqueeze(-2) for x in parts)
        logp = self._log_prob((logw, location, log_std), self.get_buffer("points"))  # [..., A, points]
        entropy = -(logp.exp() * logp * self.get_buffer("weights")).sum(-1)
        return self._log_prob(parts, sample).sum(-1), entropy.sum(-1)

    def mode(self, out: Tensor) -> Tensor:
        """Return the clipped mean of the distribution with the largest weight, f32[..., A]."""
        logw, location, _ = self._parts(out)
        return location.gather(-1, logw.argmax(-1, keepdim=True)).squeeze(-1).clamp(*ENDS)

    def to_action(self, sample: Tensor) -> Tensor:
        """Return the sample itself."""
        return sample

    def init_bias(self, rms: float, moves: bool = False) -> Tensor:
        """Return the outputs f32[K] with which actions have this root mean square along each axis.

        Args:
            rms: root mean square.
            moves: whether it is that of the nearest discrete moves.

        Raises:
            UserError: if no weights lead to it.
        """
        _, location, log_std = self._parts(torch.zeros(1, self.outputs))
        samples = location[0, 0] + log_std[0, 0].exp() * normal_quantiles()[:, None]
        squares = action_rms(samples, moves).square()
        outer = torch.tensor(MOVES).square()
        weight = solve(lambda w: float(((w * outer).softmax(0) @ squares).sqrt()), rms, -50, 50)
        return torch.cat([weight * outer, torch.zeros(6)]).repeat(self.components)
