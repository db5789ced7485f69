"""Heads turn a policy's outputs into actions: categorical for MultiDiscrete; for Box normal, squashed, snapped, Beta or
bins.

All work in float32 on outputs f32[..., K] and samples [..., A], and sum log-probability and entropy over the A
components. A sample is what learning sees; `to_action` turns it into what the environment is given. Probabilities are
written out by hand: distribution objects validate and allocate on every call.
"""

import math
from collections.abc import Callable, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from gymnasium.spaces import Box, MultiDiscrete, Space
from torch import Tensor, nn

from particle_grid.support import registry

NEVER = -1e9  # the logit of a choice that does not exist: its probability is 0, and its share of the entropy too
LARGEST_LOG_STD = 20.0  # deviations beyond are nothing, or all, of the box; much farther float32 ends
LOG_2PI = math.log(2 * math.pi)
# Gauss-Hermite quadrature of a mean over a standard normal distribution: of each entropy below within 0.05 nats.
NODES = 0.0, 1.3556261799742659, -1.3556261799742659, 2.8569700138728056, -2.8569700138728056
WEIGHTS = 0.5333333333333333, 0.2220759220056126, 0.2220759220056126, 0.0112574113277207, 0.0112574113277207


def check_number(name: str, value: object, least: float, most: float) -> None:
    """Raises ValueError for what is no number within these bounds."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise ValueError(f"{name}={value!r} cannot be: give a number from {least:g} to {most:g}.")


def where(rising: Callable[[float], float], target: float, low: float, high: float) -> float:
    """Between low and high, where a rising function comes to a target. Raises ValueError where it does not."""
    if not rising(low) <= target <= rising(high):
        raise ValueError(
            f"policy.init_action_rms={target} is out of reach for this head: it can be between {rising(low):.2f} and "
            f"{rising(high):.2f}."
        )
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if rising(middle) < target else (low, middle)
    return low


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

    def log_prob_and_entropy(self, out: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """out f32[..., K], action int[..., A] -> its logp f32[...], and the entropy f32[...] in nats."""
        logp = self._log_softmax(out)
        chosen = self._chosen(logp, action.reshape(-1, self.components).t().long())
        entropy = -(logp.exp() * logp).sum((0, 1))
        return chosen.view(out.shape[:-1]), entropy.view(out.shape[:-1])

    def mode(self, out: Tensor) -> Tensor:
        """The most probable action, int32[..., A]."""
        return torch.stack([logits.argmax(-1) for logits in out.split(self.nvec, -1)], -1).to(self.dtype)

    def to_action(self, sample: Tensor) -> Tensor:
        """The sample itself."""
        return sample

    def init_bias(self, rms: float) -> Tensor:
        """The outputs f32[K] with which a component, whose choices are evenly from -1 to 1, has this root mean square,
        and as much entropy as it then can. Raises ValueError where it cannot."""
        parts = []
        for n in self.nvec:
            squares = torch.linspace(-1, 1, n, dtype=torch.float64) ** 2
            weight = where(lambda w, x=squares: float(((w * x).softmax(0) @ x).sqrt()), rms, -50, 50)  # type: ignore[misc]
            parts.append((weight * squares).float())
        return torch.cat(parts)


class BinsHead(CategoricalHead):
    """Continuous actions by choice: `bins` values an axis, evenly from -1 to 1."""

    def __init__(self, components: int, bins: int) -> None:
        """Raises ValueError for fewer than two bins, or more than MOST_BINS."""
        if type(bins) is not int or not 2 <= bins <= MOST_BINS:
            raise ValueError(f"policy.bins={bins} is no number of choices: give a whole number from 2 to {MOST_BINS}.")
        super().__init__([bins] * components)
        self.register_buffer("values", torch.linspace(-1, 1, bins), persistent=False)

    def to_action(self, sample: Tensor) -> Tensor:
        """int32[..., A] -> f32[..., A]."""
        return self.get_buffer("values")[sample.long()]


class GaussianHead(nn.Module):
    """Independent normal distributions. Outputs: the K = A means. Actions: f32[..., A], not clipped.

    The environment clips what it is given; learning sees the sample itself. Clipping before storing would change its
    probability and bias the gradient. The standard deviation does not depend on the state; its logarithm is bounded
    smoothly, in (log_std_min, log_std_max), so that a gradient always leads back from a bound.
    """

    dtype = torch.float32

    def __init__(self, components: int, log_std_min: float, log_std_max: float, log_std_init: float) -> None:
        """Raises ValueError for an initial log_std that is not between its bounds."""
        super().__init__()
        for name, bound in (("log_std_min", log_std_min), ("log_std_max", log_std_max)):
            check_number(name, bound, -LARGEST_LOG_STD, LARGEST_LOG_STD)
        if isinstance(log_std_init, bool) or not isinstance(log_std_init, int | float):
            raise ValueError(f"log_std_init={log_std_init!r} is no number: give one between the bounds.")
        self.middle, self.reach = (log_std_max + log_std_min) / 2, (log_std_max - log_std_min) / 2
        if not abs(log_std_init - self.middle) < self.reach:  # as the computer sees it, or atanh is infinite
            raise ValueError(
                f"log_std_init={log_std_init} is not between log_std_min={log_std_min} and log_std_max={log_std_max}: "
                f"choose one that is."
            )
        self.outputs = self.components = components
        start = math.atanh((log_std_init - self.middle) / self.reach)
        self.raw_log_std = nn.Parameter(torch.full((self.outputs,), start))

    @property
    def log_std(self) -> Tensor:
        """f32[A], bounded."""
        return self._log_std(self.raw_log_std)

    def _log_std(self, raw: Tensor) -> Tensor:
        return self.middle + self.reach * torch.tanh(raw)

    def sample(self, out: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """out f32[..., K] -> action f32[..., A] and its logp f32[...]."""
        noise = torch.randn(out.shape, generator=generator, device=out.device)
        action = out + self.log_std.exp() * noise
        return action, self._log_prob(out, action)  # of the action as rounded, so that a replay gives the same

    def _log_prob(self, out: Tensor, action: Tensor) -> Tensor:
        log_std = self.log_std
        z = (action - out) * (-log_std).exp()
        return -0.5 * (z * z).sum(-1) - (log_std + 0.5 * LOG_2PI).sum()

    def log_prob_and_entropy(self, out: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """out f32[..., K], action f32[..., A] -> its logp f32[...], and the entropy f32[...] in nats: the same for
        every state."""
        entropy = (self.log_std + 0.5 * (LOG_2PI + 1)).sum().expand(out.shape[:-1])
        return self._log_prob(out, action), entropy

    def mode(self, out: Tensor) -> Tensor:
        """The mean, f32[..., A], not clipped."""
        return out

    def to_action(self, sample: Tensor) -> Tensor:
        """The sample itself: the environment clips it."""
        return sample

    def init_bias(self, rms: float) -> Tensor:
        """Sets the standard deviation with which actions, clipped to [-1, 1], around outputs f32[K] of 0, which it
        returns, have this root mean square along each axis. Raises ValueError where none does."""
        normal = torch.special.ndtri((torch.arange(4096) + 0.5) / 4096)
        start = where(
            lambda raw: float(
                self.to_action(normal * self._log_std(torch.tensor(raw)).exp()).clamp(-1, 1).square().mean().sqrt()
            ),
            rms,
            -3,
            3,
        )
        nn.init.constant_(self.raw_log_std, start)
        return torch.zeros(self.outputs)


class SquashedHead(GaussianHead):
    """The hyperbolic tangent of a normal sample (as in Haarnoja et al. 2018, arXiv:1801.01290).

    Learning sees the sample in front of it, so nothing is lost where the tangent is flat: in ratios of probabilities
    its derivative cancels. It is left out of logp, but not of the entropy, which it bounds."""

    def log_prob_and_entropy(self, out: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """out f32[..., K], action f32[..., A] -> logp of the normal sample and entropy of what is done, f32[...]."""
        logp, entropy = super().log_prob_and_entropy(out, action)
        std, slope = self.log_std.exp(), torch.zeros_like(out)
        for node, weight in zip(NODES, WEIGHTS, strict=True):  # log(1 - tanh(x)^2), such that it cannot overflow
            x = out + node * std
            slope = slope + weight * 2 * (math.log(2) - x - F.softplus(-2 * x))
        return logp, entropy + slope.sum(-1)

    def to_action(self, sample: Tensor) -> Tensor:
        """f32[..., A] -> f32[..., A] in [-1, 1]."""
        return sample.tanh()


class SnappedHead(GaussianHead):
    """A normal sample snapped to the nearest of -1, 0 and 1 an axis: what discrete actions can do, chosen as continuous
    ones are. Learning sees the sample in front of it."""

    def to_action(self, sample: Tensor) -> Tensor:
        """f32[..., A] -> f32[..., A] in {-1, 0, 1}."""
        return sample.clamp(-1, 1).round()


class BetaHead(nn.Module):
    """Independent Beta distributions over [-1, 1], with one peak (Chou, Maturana and Scherer 2017). Outputs: K = 2 A.

    Samples are within (0, 1); nothing of the distribution lies outside the box, so nothing is clipped."""

    dtype = torch.float32

    def __init__(self, components: int) -> None:
        super().__init__()
        self.components, self.outputs = components, 2 * components

    def _shape(self, out: Tensor) -> tuple[Tensor, Tensor]:
        """alpha and beta f32[..., A], both above 1."""
        alpha, beta = (1 + F.softplus(out)).chunk(2, -1)
        return alpha, beta

    def sample(self, out: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """out f32[..., K] -> sample f32[..., A] and its logp f32[...]."""
        a, b = (torch._standard_gamma(x, generator=generator) for x in self._shape(out))
        x = (a / (a + b)).clamp(1e-6, 1 - 1e-6)
        return x, self.log_prob_and_entropy(out, x)[0]

    def log_prob_and_entropy(self, out: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """out f32[..., K], sample f32[..., A] -> logp and entropy, in nats, of 2 * sample - 1, f32[...]."""
        a, b = self._shape(out)
        log_beta = a.lgamma() + b.lgamma() - (a + b).lgamma() + math.log(2)
        logp = (a - 1) * action.log() + (b - 1) * (-action).log1p() - log_beta
        entropy = (a + b - 2) * (a + b).digamma() - (a - 1) * a.digamma() - (b - 1) * b.digamma() + log_beta
        return logp.sum(-1), entropy.sum(-1)

    def mode(self, out: Tensor) -> Tensor:
        """The mean, f32[..., A]."""
        a, b = self._shape(out)
        return a / (a + b)

    def to_action(self, sample: Tensor) -> Tensor:
        """f32[..., A] in (0, 1) -> f32[..., A] in (-1, 1)."""
        return 2 * sample - 1

    def init_bias(self, rms: float) -> Tensor:
        """The outputs f32[K] with which actions have this root mean square along each axis. Raises ValueError where
        none has: with one peak it stays below that of a uniform distribution."""

        def spread(out: float) -> float:  # 1 / (2 alpha + 1) is the variance over [-1, 1] where alpha = beta
            return (2 * (1 + math.log1p(math.exp(out))) + 1) ** -0.5

        return torch.full((self.outputs,), -where(lambda out: spread(-out), rms, -20, 20))


Head = CategoricalHead | GaussianHead | BetaHead
PARTS = (
    "sample",
    "log_prob_and_entropy",
    "mode",
    "to_action",
    "init_bias",
)  # what the class of a head has, besides its attributes
MOST_BINS = 4096  # finer than anybody could tell apart
HEADS = ("auto", "gaussian", "squashed", "snapped", "beta", "bins")


def make_head(
    space: Space,
    head: str = "auto",
    bins: int = 9,
    log_std_min: float = -3.0,
    log_std_max: float = 0.5,
    log_std_init: float = -0.5,
) -> Head:
    """The head for an action space. MultiDiscrete: categorical, and `head` must be auto. Box: one of HEADS, where auto
    is bins: docs/learning.md compares them. Either: one that an installed package registers or that is at a place
    `my_package.my_module:MyHead`, built with the space. Raises ValueError for another head or space."""
    place = head if registry.is_place(head) else registry.registered("head").get(str(head))
    if place and head not in HEADS:
        own = cast(Head, registry.load("head", place, PARTS)(space))
        action = own.to_action(own.sample(torch.zeros(1, own.outputs), torch.Generator())[0])
        if action.is_floating_point() != isinstance(space, Box):
            raise ValueError(
                f"policy.head={head} gives {action.dtype}, which are no actions in {space}: use another head, or the "
                f"other action form."
            )
        return own
    if head not in HEADS:
        known = ", ".join([*HEADS, *registry.registered("head")])
        raise ValueError(f"policy.head={head} is not known: choose {known}, or my_module:MyHead of your own.")
    if isinstance(space, MultiDiscrete) and space.nvec.ndim == 1 and not space.start.any():
        if head != "auto":
            raise ValueError(f"policy.head={head} is for continuous actions: use auto, or action=continuous.")
        return CategoricalHead(space.nvec.tolist())
    if not isinstance(space, Box) or len(space.shape) != 1:
        raise ValueError(f"No policy acts in {space}: use MultiDiscrete([...]) or Box(-1, 1, (n,)).")
    if (space.low != -1).any() or (space.high != 1).any():
        raise ValueError(
            f"The action box reaches from {space.low.tolist()} to {space.high.tolist()}: scale actions to [-1, 1] in "
            f"the environment."
        )
    components = space.shape[0]
    if head == "beta":
        return BetaHead(components)
    if head in ("auto", "bins"):
        return BinsHead(components, bins)
    kinds = {"gaussian": GaussianHead, "squashed": SquashedHead, "snapped": SnappedHead}
    return kinds[head](components, log_std_min, log_std_max, log_std_init)
