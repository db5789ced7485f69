"""Heads turn a policy's outputs into actions: categorical for MultiDiscrete, Gaussian for Box.

Both work in float32 on outputs f32[..., K] and actions [..., A], and sum log-probability and entropy over the A action
components. Probabilities are written out by hand: distribution objects validate and allocate on every call.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from gymnasium.spaces import Box, MultiDiscrete, Space
from torch import Tensor, nn

NEVER = -1e9  # the logit of a choice that does not exist: its probability is 0, and its share of the entropy too


class CategoricalHead(nn.Module):
    """Independent choices, one of nvec[k] for component k. Outputs: K = sum(nvec) logits. Actions: int32[..., A]."""

    dtype = torch.int32

    def __init__(self, nvec: Sequence[int]) -> None:
        super().__init__()
        self.nvec = tuple(int(n) for n in nvec)
        self.outputs, self.components = sum(self.nvec), len(self.nvec)

    def _logits(self, out: Tensor) -> Tensor:
        """out f32[..., K] -> f32[max(nvec), A, rows]: reductions over the first axis are many times faster than over a
        short last one. A component with fewer choices gets some that are never taken."""
        rows, most = out.reshape(-1, self.outputs), max(self.nvec)
        if len(set(self.nvec)) == 1:
            return rows.unflatten(1, (self.components, most)).permute(2, 1, 0).contiguous()
        parts = [F.pad(x, (0, most - x.shape[1]), value=NEVER) for x in rows.split(self.nvec, 1)]
        return torch.stack(parts).permute(2, 0, 1)  # [A, rows, max(nvec)]

    def _log_softmax(self, out: Tensor) -> Tensor:
        logits = self._logits(out)
        return logits - logits.logsumexp(0)

    def sample(self, out: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """out f32[..., K] -> action int32[..., A] and its logp f32[...], by inverting the cumulative distribution."""
        logp = self._log_softmax(out)
        noise = torch.rand(logp.shape[1:], generator=generator, device=out.device)
        cumulative = logp.exp().cumsum(0)[:-1]  # without its last entry, 1 to rounding: the last choice's
        choice = (noise >= cumulative).sum(0)  # [A, rows]
        action = choice.t().to(self.dtype).reshape(*out.shape[:-1], self.components)
        return action, self._chosen(logp, choice).view(out.shape[:-1])

    @staticmethod
    def _chosen(logp: Tensor, choice: Tensor) -> Tensor:
        """logp f32[n, A, rows], choice i64[A, rows] -> the log-probability of all components together, f32[rows]."""
        return logp.gather(0, choice[None]).sum((0, 1))

    def evaluate(self, out: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """out f32[..., K], action int[..., A] -> its logp f32[...], and the entropy f32[...] in nats."""
        logp = self._log_softmax(out)
        chosen = self._chosen(logp, action.reshape(-1, self.components).t().long())
        entropy = -(logp.exp() * logp).sum((0, 1))
        return chosen.view(out.shape[:-1]), entropy.view(out.shape[:-1])

    def greedy(self, out: Tensor) -> Tensor:
        """The most probable action, int32[..., A]."""
        return torch.stack([logits.argmax(-1) for logits in out.split(self.nvec, -1)], -1).to(self.dtype)


class GaussianHead(nn.Module):
    """Independent normal distributions. Outputs: the K = A means. Actions: f32[..., A], not clipped.

    The environment clips what it is given; learning sees the sample itself. Clipping before storing would change its
    probability and bias the gradient. The standard deviation does not depend on the state; its logarithm is bounded
    smoothly, in (log_std_min, log_std_max), so that a gradient always leads back from a bound.
    """

    dtype = torch.float32

    def __init__(
        self,
        low: Sequence[float],
        high: Sequence[float],
        log_std_min: float = -3.0,
        log_std_max: float = 0.5,
        log_std_init: float = -0.5,
    ) -> None:
        """Raises ValueError for a box other than [-1, 1] and for an initial log_std that is not between its bounds."""
        super().__init__()
        if any(x != -1 for x in low) or any(x != 1 for x in high):
            raise ValueError(
                f"The action box reaches from {low} to {high}: scale actions to [-1, 1] in the environment."
            )
        if not log_std_min < log_std_init < log_std_max:
            raise ValueError(
                f"log_std_init={log_std_init} is not between log_std_min={log_std_min} and log_std_max={log_std_max}: "
                f"choose one that is."
            )
        self.outputs = self.components = len(low)
        self.middle, self.reach = (log_std_max + log_std_min) / 2, (log_std_max - log_std_min) / 2
        start = math.atanh((log_std_init - self.middle) / self.reach)
        self.raw_log_std = nn.Parameter(torch.full((self.outputs,), start))

    @property
    def log_std(self) -> Tensor:
        """f32[A], bounded."""
        return self.middle + self.reach * torch.tanh(self.raw_log_std)

    def sample(self, out: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """out f32[..., K] -> action f32[..., A] and its logp f32[...]."""
        noise = torch.randn(out.shape, generator=generator, device=out.device)
        action = out + self.log_std.exp() * noise
        return action, self._log_prob(out, action)  # of the action as rounded, so that a replay gives the same

    def _log_prob(self, out: Tensor, action: Tensor) -> Tensor:
        log_std = self.log_std
        z = (action - out) * (-log_std).exp()
        return -0.5 * (z * z).sum(-1) - (log_std + 0.5 * math.log(2 * math.pi)).sum()

    def evaluate(self, out: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """out f32[..., K], action f32[..., A] -> its logp f32[...], and the entropy f32[...] in nats: the same for
        every state."""
        entropy = (self.log_std + 0.5 * math.log(2 * math.pi * math.e)).sum().expand(out.shape[:-1])
        return self._log_prob(out, action), entropy

    def greedy(self, out: Tensor) -> Tensor:
        """The mean, f32[..., A], not clipped."""
        return out


Head = CategoricalHead | GaussianHead


def make_head(space: Space, log_std_min: float, log_std_max: float, log_std_init: float) -> Head:
    """The head for an action space. Raises ValueError for spaces other than MultiDiscrete and Box of one dimension."""
    if isinstance(space, MultiDiscrete) and space.nvec.ndim == 1 and not space.start.any():
        return CategoricalHead(space.nvec.tolist())
    if isinstance(space, Box) and len(space.shape) == 1:
        return GaussianHead(space.low.tolist(), space.high.tolist(), log_std_min, log_std_max, log_std_init)
    raise ValueError(f"No policy acts in {space}: use MultiDiscrete([...]) or Box(-1, 1, (n,)).")
