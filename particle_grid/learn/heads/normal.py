"""Heads with normal distributions: as they are, squashed or snapped."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from particle_grid.learn.heads.numbers import action_rms, log_std_bounds, normal_quantiles, solve
from particle_grid.learn.heads.probit import MOVE_EDGES, discrete_entropy, log_masses

LOG_2PI = math.log(2 * math.pi)
# Gauss-Hermite quadrature of a mean over a standard normal distribution: each entropy below is within 0.05 nats.
NODES = (0.0, 1.3556261799742659, -1.3556261799742659, 2.8569700138728056, -2.8569700138728056)
WEIGHTS = (0.5333333333333333, 0.2220759220056126, 0.2220759220056126, 0.0112574113277207, 0.0112574113277207)


class GaussianHead(nn.Module):
    """Independent normal distributions. Outputs: the K = A means. Actions: f32[..., A], not clipped.

    The environment clips actions, and learning sees the sample itself: clipping before storing would change the
    probability of the sample and bias the gradient. The standard deviation does not depend on the observation. Its
    logarithm is bounded smoothly, in (log_std_min, log_std_max), so that a gradient always leads back from a bound.

    Raises:
        UserError: if log_std_init is not between its bounds.
    """

    dtype = torch.float32

    def __init__(self, components: int, log_std_min: float, log_std_max: float, log_std_init: float) -> None:
        super().__init__()
        self.bounds = log_std_bounds(log_std_min, log_std_max, log_std_init)
        self.components = components
        self.outputs = components
        self.raw_log_std = nn.Parameter(torch.full((self.outputs,), self.bounds.start))

    @property
    def log_std(self) -> Tensor:
        """Return the logarithm of the standard deviations, f32[A], within its bounds."""
        return self.bounds.log_std(self.raw_log_std)

    def sample(self, out: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return samples f32[..., A] and their log-probability f32[...]."""
        noise = torch.randn(out.shape, generator=generator, device=out.device)
        sample = out + self.log_std.exp() * noise
        return sample, self._log_prob(out, sample)  # that of the rounded sample, so that a replay gives the same

    def _log_prob(self, out: Tensor, sample: Tensor) -> Tensor:
        log_std = self.log_std
        z = (sample - out) * (-log_std).exp()
        return -0.5 * (z * z).sum(-1) - (log_std + 0.5 * LOG_2PI).sum()

    def log_prob_and_entropy(self, out: Tensor, sample: Tensor) -> tuple[Tensor, Tensor]:
        """Return the log-probability of a sample f32[..., A], and the entropy in nats, both f32[...].

        The entropy is the same for every observation.
        """
        entropy = (self.log_std + 0.5 * (LOG_2PI + 1)).sum().expand(out.shape[:-1])
        return self._log_prob(out, sample), entropy

    def mode(self, out: Tensor) -> Tensor:
        """Return the mean, f32[..., A], not clipped."""
        return out

    def to_action(self, sample: Tensor) -> Tensor:
        """Return the sample itself. The environment clips it."""
        return sample

    def init_bias(self, rms: float, moves: bool = False) -> Tensor:
        """Set the standard deviation with which clipped actions have this root mean square, and return outputs of 0.

        Args:
            rms: root mean square along each axis.
            moves: whether it is that of the nearest discrete moves.

        Raises:
            UserError: if no standard deviation does.
        """
        normal = normal_quantiles()

        def spread(raw: float) -> float:
            return float(action_rms(self.to_action(normal * self.bounds.log_std(torch.tensor(raw)).exp()), moves))

        nn.init.constant_(self.raw_log_std, solve(spread, rms, -3, 3))
        return torch.zeros(self.outputs)


class SquashedHead(GaussianHead):
    """The hyperbolic tangent of a normal sample (as in Haarnoja et al. 2018, arXiv:1801.01290).

    Learning sees the sample before the tangent, so nothing is lost where the tangent is flat. The derivative of the
    tangent cancels in ratios of probabilities, so the log-probability leaves it out. The entropy includes it, and is
    bounded by it.
    """

    def log_prob_and_entropy(self, out: Tensor, sample: Tensor) -> tuple[Tensor, Tensor]:
        """Return the log-probability of the normal sample and the entropy of the squashed one, both f32[...]."""
        logp, entropy = super().log_prob_and_entropy(out, sample)
        std = self.log_std.exp()
        slope = torch.zeros_like(out)
        for node, weight in zip(NODES, WEIGHTS, strict=True):
            x = out + node * std
            slope = slope + weight * 2 * (math.log(2) - x - F.softplus(-2 * x))  # log(1 - tanh(x)^2), without overflow
        return logp, entropy + slope.sum(-1)

    def to_action(self, sample: Tensor) -> Tensor:
        """Return the tangent of the sample, f32[..., A] in [-1, 1]."""
        return sample.tanh()


class SnappedHead(GaussianHead):
    """A normal sample snapped to the nearest of -1, 0 and 1 along each axis.

    It can do what discrete actions can, but chooses as continuous heads do. Learning sees the sample before snapping.
    """

    def to_action(self, sample: Tensor) -> Tensor:
        """Return the sample rounded and clipped, f32[..., A] in {-1, 0, 1}."""
        return sample.clamp(-1, 1).round()


class SnappedMovesHead(SnappedHead):
    """The same with the entropy of the snapped moves instead of that of the sample."""

    def log_prob_and_entropy(self, out: Tensor, sample: Tensor) -> tuple[Tensor, Tensor]:
        """Return the log-probability of the normal sample and the entropy of the moves, both f32[...]."""
        logp = self._log_prob(out, sample)
        return logp, discrete_entropy(log_masses(out, self.log_std.expand_as(out), MOVE_EDGES)).sum(-1)
