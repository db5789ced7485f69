"""Heads that choose: discrete actions, and bins of continuous ones."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from particle_grid.learn.heads.numbers import solve
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

    def init_bias(self, rms: float) -> Tensor:
        """Return the outputs f32[K] of largest entropy with which actions have this root mean square.

        The choices of a component stand for numbers spread evenly from -1 to 1.

        Raises:
            UserError: if no outputs do.
        """
        parts = []
        for n in self.nvec:
            squares = torch.linspace(-1, 1, n, dtype=torch.float64) ** 2
            weight = solve(lambda w, x=squares: float(((w * x).softmax(0) @ x).sqrt()), rms, -50, 50)  # type: ignore[misc]
            parts.append((weight * squares).float())
        return torch.cat(parts)


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
