"""The hurdle head: the nine moves of discrete actions, and everything between them."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from particle_grid.learn.heads.numbers import MOVES, SHARE, move_logits

ATOMS = MOVES
BETWEEN = len(ATOMS)  # the choice of a value between the atoms
CHOICES = BETWEEN + 1
OUTPUTS = CHOICES + 2  # for each component: logits of the choices, and the outputs for location and scale
LOG_ODDS = math.log(BETWEEN * SHARE / (1 - SHARE))  # added to the logit of that choice
LOG_UNIT = LOG_ODDS - math.log(2)  # logarithm of what a unit of length counts, if an atom counts 1
LEAST_LOG_SCALE = -3.0  # a twentieth of a move
SHIFT = 1.0  # added to the output for the scale, which begins at 0.7: wide, so that no value is preferred at first
LARGEST = 1 - 2.0**-24  # float32: the largest value that is not an atom
SMALLEST = 2.0**-24  # replaces a value that is rounded to the atom 0


class HurdleHead(nn.Module):
    """Atoms at -1, 0 and 1, and a density between them: a mixed distribution. Outputs: K = 6 A. Actions: f32[..., A].

    It contains the discrete policies: a component is one of the atoms, each with a probability of its own, or else a
    value between -1 and 1 from a truncated logistic distribution. At first, values between the atoms are rare, and
    atoms equally likely. Hurdle models choose between zero and a density in the same way (Cragg 1971).

    Log-probabilities and entropies are relative to a measure in which an atom counts 1 and all values between them
    count 1 / 3. With it, the entropy is largest at first, so that a bonus for entropy does not favour such values.

    Attributes:
        atoms: values that have a probability of their own.
        unit: what a unit of length counts.
    """

    dtype = torch.float32
    atoms = ATOMS
    unit = math.exp(LOG_UNIT)

    def __init__(self, components: int) -> None:
        super().__init__()
        self.components = components
        self.outputs = OUTPUTS * components

    def _parts(self, out: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return log-probabilities of the choices f32[..., A, 4], and location and log scale f32[..., A]."""
        each = out.unflatten(-1, (self.components, OUTPUTS))
        odds = F.pad(torch.full((1,), LOG_ODDS, device=out.device), (BETWEEN, 0))
        log_scale = LEAST_LOG_SCALE / 2 * (1 - torch.tanh(each[..., CHOICES + 1] + SHIFT))
        return (each[..., :CHOICES] + odds).log_softmax(-1), torch.tanh(each[..., CHOICES]), log_scale

    def sample(self, out: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return samples f32[..., A] and their log-probability f32[...], by inverting cumulative distributions."""
        logp, location, log_scale = self._parts(out)
        noise = torch.rand(2, self.components, out[..., 0].numel(), generator=generator, device=out.device)
        first, second = noise.transpose(1, 2).reshape(2, *location.shape)
        choice = (first.unsqueeze(-1) >= logp.exp().cumsum(-1)[..., :BETWEEN]).sum(-1)
        # The cumulative distribution between the atoms and its complement, both without cancellation.
        scale = log_scale.exp()
        below = torch.sigmoid((-1 - location) / scale)
        above = torch.sigmoid((location - 1) / scale)
        width = 1 - below - above
        odds = (below + width * second).log() - (above + width * (1 - second)).log()
        between = (location + scale * odds).clamp(-LARGEST, LARGEST)
        between = torch.where(between == 0, SMALLEST, between)
        sample = torch.where(choice == BETWEEN, between, choice - 1.0)
        return sample, self.log_prob_and_entropy(out, sample)[0]

    def log_prob_and_entropy(self, out: Tensor, sample: Tensor) -> tuple[Tensor, Tensor]:
        """Return the log-probability of a sample f32[..., A], and the entropy in nats, both f32[...]."""
        logp, location, log_scale = self._parts(out)
        density, spread = _truncated_logistic(location, log_scale, sample)
        density = density.masked_fill(sample.abs() > 1, -torch.inf)
        is_atom = (sample == 0) | (sample.abs() == 1)
        choice = torch.where(is_atom, sample + 1, BETWEEN).long()
        chosen = logp.gather(-1, choice.unsqueeze(-1)).squeeze(-1) + torch.where(is_atom, 0, density)
        p = logp.exp()
        entropy = p[..., BETWEEN] * spread - (p * logp).sum(-1)
        return chosen.sum(-1), entropy.sum(-1)

    def mode(self, out: Tensor) -> Tensor:
        """Return the most probable choice of each component, f32[..., A]. Between the atoms, it is the peak."""
        logp, location, _ = self._parts(out)
        choice = logp.argmax(-1)
        return torch.where(choice == BETWEEN, location, choice - 1.0)

    def to_action(self, sample: Tensor) -> Tensor:
        """Return the sample itself."""
        return sample

    def init_bias(self, rms: float, moves: bool = False) -> Tensor:
        """Return the outputs f32[K] with which actions have this root mean square along each axis.

        The probability of values between the atoms remains SHARE. `moves` changes nothing.

        Raises:
            UserError: if no outputs do.
        """
        _, location, log_scale = self._parts(torch.zeros(1, self.outputs))
        x = torch.linspace(-LARGEST, LARGEST, 4097)
        density, _ = _truncated_logistic(location[..., :1], log_scale[..., :1], x)
        square = self.unit * float(torch.trapezoid(density.exp() * x.square(), x))
        logits = move_logits(rms, SHARE, square) - math.log((1 - SHARE) / BETWEEN)
        return F.pad(logits.float(), (0, OUTPUTS - BETWEEN)).repeat(self.components)


def _truncated_logistic(location: Tensor, log_scale: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the log-density at x, and the entropy, of a logistic distribution cut off at -1 and 1."""
    inverse = (-log_scale).exp()
    z = (x - location) * inverse
    left = (-1 - location) * inverse
    right = (1 - location) * inverse
    log_width = (torch.sigmoid(right) - torch.sigmoid(left)).log()
    density = -log_scale - log_width - F.softplus(z) - F.softplus(-z) - LOG_UNIT
    # With s = sigmoid(z), which is uniform between the ends, log(s) + log(1 - s) has an integral in closed form.
    between = (_integral(right) - _integral(left)) * (-log_width).exp()
    return density, log_scale + log_width - between + LOG_UNIT


def _integral(z: Tensor) -> Tensor:
    """Return s log(s) - (1 - s) log(1 - s) - 2 s for s = sigmoid(z)."""
    s = torch.sigmoid(z)
    return -s * F.softplus(-z) + torch.sigmoid(-z) * F.softplus(z) - 2 * s
