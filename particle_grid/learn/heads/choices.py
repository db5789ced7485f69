"""Heads that choose: discrete actions, and bins of continuous ones."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from particle_grid.learn.heads.numbers import MOVES, SHARE, move_logits, solve
from particle_grid.support.errors import UserError

NEVER = -1e9  # the logit of a choice that does not exist: its probability and its share of the entropy are 0
MOST_BINS = 4096
BINS = 9  # values along each axis, by default


class CategoricalHead(nn.Module):
    """Independent choices, one of nvec[k] for component k. Outputs: K = sum(nvec) logits. Actions: int32[..., A]."""

    dtype = torch.int32

    def __init__(self, nvec: Sequence[int]) -> None:
        super().__init__()
        self.nvec = tuple(int(n) for n in nvec)
        self.outputs = sum(self.nvec)
        self.components = len(self.nvec)

    def _logits(self, out: Tensor) -> Tensor:
        """Return the outputs f32[..., K] as logits f32[max(nvec), A, rows].

        Reductions over the first axis are many times faster than over a short last one. Components with fewer choices
        are padded with choices that are never taken.
        """
        rows = out.reshape(-1, self.outputs)  # [..., K] -> [rows, K]
        most = max(self.nvec)
        if len(set(self.nvec)) == 1:
            return rows.unflatten(1, (self.components, most)).permute(2, 1, 0).contiguous()
        parts = [F.pad(x, (0, most - x.shape[1]), value=NEVER) for x in rows.split(self.nvec, 1)]
        return torch.stack(parts).permute(2, 0, 1)  # [A, rows, max(nvec)] -> [max(nvec), A, rows]

    def _log_softmax(self, out: Tensor) -> Tensor:
        logits = self._logits(out)
        return logits - logits.logsumexp(0)

    def sample(self, out: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return samples int32[..., A] and their log-probability f32[...], by inverting the cumulative distribution."""
        logp = self._log_softmax(out)
        noise = torch.rand(logp.shape[1:], generator=generator, device=out.device)
        cumulative = logp.exp().cumsum(0)[:-1]  # without its last entry, 1 up to rounding, which is the last choice's
        choice = (noise >= cumulative).sum(0)  # [A, rows]
        sample = choice.t().to(self.dtype).reshape(*out.shape[:-1], self.components)
        return sample, self._chosen(logp, choice).view(out.shape[:-1])

    @staticmethod
    def _chosen(logp: Tensor, choice: Tensor) -> Tensor:
        """Return the log-probability f32[rows] of all components, from logp f32[n, A, rows] and choice i64[A, rows]."""
        return logp.gather(0, choice[None]).sum((0, 1))

    def log_prob_and_entropy(self, out: Tensor, sample: Tensor) -> tuple[Tensor, Tensor]:
        """Return the log-probability of a sample int[..., A], and the entropy in nats, both f32[...]."""
        logp = self._log_softmax(out)
        chosen = self._chosen(logp, sample.reshape(-1, self.components).t().long())
        entropy = -(logp.exp() * logp).sum((0, 1))
        return chosen.view(out.shape[:-1]), entropy.view(out.shape[:-1])

    def mode(self, out: Tensor) -> Tensor:
        """Return the most probable sample, int32[..., A]."""
        return torch.stack([logits.argmax(-1) for logits in out.split(self.nvec, -1)], -1).to(self.dtype)

    def to_action(self, sample: Tensor) -> Tensor:
        """Return the sample itself."""
        return sample

    def init_bias(self, rms: float, moves: bool = False) -> Tensor:
        """Return the outputs f32[K] of largest entropy with which actions have this root mean square.

        The choices of a component stand for numbers spread evenly from -1 to 1.

        Args:
            rms: root mean square along each axis.
            moves: let -1, 0 and 1 be as likely as discrete moves; all other choices have a probability of SHARE.

        Raises:
            UserError: if no outputs do.
        """
        return torch.cat([_first_logits(n, self._squares(n), rms, moves) for n in self.nvec])

    @staticmethod
    def _squares(n: int) -> Tensor:
        """Return the mean square of the action that each of n choices stands for, f64[n]."""
        return torch.linspace(-1, 1, n, dtype=torch.float64) ** 2


def _first_logits(n: int, squares: Tensor, rms: float, moves: bool) -> Tensor:
    """Return the logits f32[n] of `init_bias` for a component."""
    if not moves or n <= len(MOVES):
        weight = solve(lambda w: float(((w * squares).softmax(0) @ squares).sqrt()), rms, -50, 50)
        return (weight * squares).float()
    if n % 2 == 0:
        raise UserError(f"policy.bins={n} has no choice for 0, which policy.init_actions=moves needs: give an odd one.")
    is_move = torch.zeros(n, dtype=torch.bool)
    is_move[[0, n // 2, n - 1]] = True
    others = squares[~is_move]
    logits = torch.full((n,), math.log(SHARE / len(others)), dtype=torch.float64)
    logits[is_move] = move_logits(rms, SHARE, float(others.mean()))
    return logits.float()


class BinsHead(CategoricalHead):
    """Continuous actions by choice: `bins` values for each axis, spread evenly from -1 to 1.

    Raises:
        UserError: for fewer than two bins, or more than MOST_BINS.
    """

    def __init__(self, components: int, bins: int) -> None:
        if type(bins) is not int or not 2 <= bins <= MOST_BINS:
            raise UserError(f"policy.bins={bins} is invalid: it must be a whole number from 2 to {MOST_BINS}.")
        super().__init__([bins] * components)
        self.register_buffer("values", torch.linspace(-1, 1, bins), persistent=False)

    def to_action(self, sample: Tensor) -> Tensor:
        """Return the values f32[..., A] of choices int32[..., A]."""
        return self.get_buffer("values")[sample.long()]


class JitterHead(BinsHead):
    """The same choices, with uniform noise as wide as the distance between two values: a piecewise constant density.

    Learning sees the sample f32[..., A] that includes the noise. The environment clips it.
    """

    dtype = torch.float32

    def __init__(self, components: int, bins: int) -> None:
        super().__init__(components, bins)
        self.width = 2 / (bins - 1)

    def sample(self, out: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return samples f32[..., A] and their log-probability f32[...]."""
        choice, _ = super().sample(out, generator)
        values = super().to_action(choice)
        noise = torch.rand(values.shape, generator=generator, device=out.device) - 0.5
        sample = values + self.width * noise
        return sample, self.log_prob_and_entropy(out, sample)[0]

    def log_prob_and_entropy(self, out: Tensor, sample: Tensor) -> tuple[Tensor, Tensor]:
        """Return the log-density of a sample f32[..., A], and its entropy in nats, both f32[...]."""
        choice = ((sample + 1) / self.width).round()
        inside = (sample.abs() <= 1 + self.width / 2).all(-1)
        logp, entropy = super().log_prob_and_entropy(out, choice.clamp(0, self.nvec[0] - 1))
        volume = self.components * math.log(self.width)
        return (logp - volume).masked_fill(~inside, -torch.inf), entropy + volume

    def mode(self, out: Tensor) -> Tensor:
        """Return the value of the most probable choice, f32[..., A]."""
        return super().to_action(super().mode(out).int())

    def to_action(self, sample: Tensor) -> Tensor:
        """Return the sample itself. The environment clips it."""
        return sample

    @staticmethod
    def _squares(n: int) -> Tensor:
        """Return the mean square of the clipped action around each of n values, f64[n]."""
        width = 2 / (n - 1)
        noise = (torch.arange(256, dtype=torch.float64) + 0.5) / 256 - 0.5
        values = torch.linspace(-1, 1, n, dtype=torch.float64)
        return (values + width * noise[:, None]).clamp(-1, 1).square().mean(0)
