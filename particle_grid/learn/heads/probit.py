"""Heads with normal distributions whose likelihood is that of the executed move, and what they share."""

import torch
from torch import Tensor, nn

from particle_grid.learn.heads.numbers import Bounds, action_rms, normal_quantiles, solve

ROOT_HALF = 0.5**0.5
MOVE_EDGES = (-0.5, 0.5)  # where the nearest discrete move changes


def _log_cumulative(z: Tensor) -> Tensor:
    """Return the logarithm of the standard normal cumulative distribution function, with exact gradients in its tail.

    Those of `torch.special.log_ndtr` are wrong by a factor there.
    """
    low = z.clamp(max=0)
    high = z.clamp(min=0)
    tail = (0.5 * torch.special.erfcx(-low * ROOT_HALF)).log() - 0.5 * low * low
    return torch.where(z < 0, tail, torch.log1p(-0.5 * torch.erfc(high * ROOT_HALF)))


def log_masses(location: Tensor, log_std: Tensor, edges: tuple[float, float]) -> Tensor:
    """Return the log-probabilities f32[..., 3] of normal samples below, between and above two edges.

    Args:
        location, log_std: f32[...], of the normal distributions.
        edges: in ascending order.
    """
    inverse = (-log_std).exp()
    left = (edges[0] - location) * inverse
    right = (edges[1] - location) * inverse
    # The mass between the edges is that of the mirror image, too: the lower tail loses no digits.
    near = torch.minimum(right, -left)
    far = torch.minimum(left, -right)
    log_near = _log_cumulative(near)
    between = log_near + (-torch.expm1(_log_cumulative(far) - log_near)).log()
    return torch.stack([_log_cumulative(left), between, _log_cumulative(-right)], -1)


def discrete_entropy(logp: Tensor) -> Tensor:
    """Return the entropy f32[...] of choices with log-probabilities f32[..., n]."""
    return -(logp.exp() * logp).sum(-1)


class NormalMovesHead(nn.Module):
    """The base of heads with a mean and a standard deviation that may depend on the observation.

    Outputs: the A means, followed by A raw standard deviations unless these are shared by all observations. Logarithms
    of standard deviations are bounded smoothly. The lower bound is a floor that keeps gradients finite.

    Args:
        components: A.
        bounds: of the log standard deviations.
        shared_std: whether one standard deviation per axis serves all observations.
    """

    dtype = torch.float32

    def __init__(self, components: int, bounds: Bounds, shared_std: bool) -> None:
        super().__init__()
        self.components = components
        self.bounds = bounds
        self.outputs = components if shared_std else 2 * components
        self.raw_log_std = nn.Parameter(torch.full((components,), bounds.start)) if shared_std else None

    def _parts(self, out: Tensor) -> tuple[Tensor, Tensor]:
        """Return means and log standard deviations, f32[..., A]."""
        if self.raw_log_std is not None:
            return out, self.bounds.log_std(self.raw_log_std).expand_as(out)
        location, raw = out.chunk(2, -1)
        return location, self.bounds.log_std(raw + self.bounds.start)

    def _normal_sample(self, out: Tensor, generator: torch.Generator) -> Tensor:
        """Return normal samples, f32[..., A]."""
        location, log_std = self._parts(out)
        noise = torch.randn(location.shape, generator=generator, device=out.device)
        return location + log_std.exp() * noise

    def init_bias(self, rms: float, moves: bool = False) -> Tensor:
        """Return the outputs f32[K] with which actions have this root mean square. Set a shared standard deviation.

        Args:
            rms: root mean square along each axis.
            moves: whether it is that of the nearest discrete moves.

        Raises:
            UserError: if no standard deviation leads to it.
        """
        normal = normal_quantiles()

        def spread(raw: float) -> float:
            return float(action_rms(normal * self.bounds.log_std(torch.tensor(raw)).exp(), moves))

        raw = solve(spread, rms, -3, 3)
        if self.raw_log_std is not None:
            nn.init.constant_(self.raw_log_std, raw)
            return torch.zeros(self.outputs)
        return torch.cat([torch.zeros(self.components), torch.full((self.components,), raw - self.bounds.start)])


class ProbitHead(NormalMovesHead):
    """A normal sample rounded to -1, 0 or 1 along each axis, with the likelihood of the move (ordered probit).

    It makes the same moves as the snapped head, but learning does not see where in its interval a sample was. Samples:
    int32[..., A], 0 to 2.
    """

    dtype = torch.int32

    def sample(self, out: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return samples int32[..., A] and their log-probability f32[...]."""
        sample = self._nearest(self._normal_sample(out, generator))
        return sample, self.log_prob_and_entropy(out, sample)[0]

    def _nearest(self, x: Tensor) -> Tensor:
        """Return the numbers of the moves nearest to x."""
        return (x.clamp(-1, 1).round() + 1).to(self.dtype)

    def log_prob_and_entropy(self, out: Tensor, sample: Tensor) -> tuple[Tensor, Tensor]:
        """Return the log-probability of moves int[..., A], and the entropy in nats, both f32[...]."""
        logp = log_masses(*self._parts(out), MOVE_EDGES)
        return logp.gather(-1, sample.long().unsqueeze(-1)).squeeze(-1).sum(-1), discrete_entropy(logp).sum(-1)

    def mode(self, out: Tensor) -> Tensor:
        """Return the moves nearest to the means, int32[..., A]."""
        return self._nearest(self._parts(out)[0])

    def to_action(self, sample: Tensor) -> Tensor:
        """Return the moves as values -1, 0 and 1, f32[..., A]."""
        return sample.float() - 1

    def init_bias(self, rms: float, moves: bool = False) -> Tensor:
        """Return the outputs f32[K] with which moves have this root mean square: see `NormalMovesHead`."""
        return super().init_bias(rms, moves=True)
