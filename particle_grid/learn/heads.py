"""Heads turn the outputs of a policy into actions.

MultiDiscrete action spaces have a categorical head. For Box there are normal distributions (as they are, squashed or
snapped), Beta distributions and bins.

All heads work in float32 on outputs f32[..., K] and samples [..., A], and sum log-probabilities and entropies over the
A components. A sample is what learning sees; `to_action` converts it to what the environment receives. Probabilities
are written out by hand, because distribution objects validate and allocate on every call.
"""

import math
from collections.abc import Callable, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from gymnasium.spaces import Box, MultiDiscrete, Space
from torch import Tensor, nn

from particle_grid.support import registry
from particle_grid.support.errors import UserError

NEVER = -1e9  # the logit of a choice that does not exist: its probability and its share of the entropy are 0
LARGEST_LOG_STD = 20.0  # beyond, samples all hit the mean or the edges of the box; much further, float32 overflows
MOST_BINS = 4096
LOG_2PI = math.log(2 * math.pi)
# Gauss-Hermite quadrature of a mean over a standard normal distribution: each entropy below is within 0.05 nats.
NODES = (0.0, 1.3556261799742659, -1.3556261799742659, 2.8569700138728056, -2.8569700138728056)
WEIGHTS = (0.5333333333333333, 0.2220759220056126, 0.2220759220056126, 0.0112574113277207, 0.0112574113277207)


def check_number(name: str, value: object, least: float, most: float) -> None:
    """Raise UserError unless a value is a number between two bounds."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise UserError(f"{name}={value!r} is invalid: it must be a number from {least:g} to {most:g}.")


def solve(rising: Callable[[float], float], target: float, low: float, high: float) -> float:
    """Return where between low and high a rising function of actions reaches a target size.

    Raises:
        UserError: if it does not reach the target there.
    """
    if not rising(low) <= target <= rising(high):
        raise UserError(
            f"policy.init_action_rms={target} is out of reach for this head: it must be between {rising(low):.2f} and "
            f"{rising(high):.2f}."
        )
    for _ in range(50):
        middle = (low + high) / 2
        if rising(middle) < target:
            low = middle
        else:
            high = middle
    return low


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
        check_number("log_std_min", log_std_min, -LARGEST_LOG_STD, LARGEST_LOG_STD)
        check_number("log_std_max", log_std_max, -LARGEST_LOG_STD, LARGEST_LOG_STD)
        if isinstance(log_std_init, bool) or not isinstance(log_std_init, int | float):
            raise UserError(f"log_std_init={log_std_init!r} is not a number: give one between the bounds.")
        self.middle = (log_std_max + log_std_min) / 2
        self.reach = (log_std_max - log_std_min) / 2
        if not abs(log_std_init - self.middle) < self.reach:  # after rounding, or atanh would be infinite
            raise UserError(
                f"log_std_init={log_std_init} is not between log_std_min={log_std_min} and log_std_max={log_std_max}: "
                f"choose a number that is."
            )
        self.components = components
        self.outputs = components
        start = math.atanh((log_std_init - self.middle) / self.reach)
        self.raw_log_std = nn.Parameter(torch.full((self.outputs,), start))

    @property
    def log_std(self) -> Tensor:
        """Return the logarithm of the standard deviations, f32[A], within its bounds."""
        return self._log_std(self.raw_log_std)

    def _log_std(self, raw: Tensor) -> Tensor:
        return self.middle + self.reach * torch.tanh(raw)

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

    def init_bias(self, rms: float) -> Tensor:
        """Set the standard deviation with which clipped actions have this root mean square, and return outputs of 0.

        Raises:
            UserError: if no standard deviation does.
        """
        normal = torch.special.ndtri((torch.arange(4096) + 0.5) / 4096)  # evenly spaced quantiles

        def spread(raw: float) -> float:
            actions = self.to_action(normal * self._log_std(torch.tensor(raw)).exp())
            return float(actions.clamp(-1, 1).square().mean().sqrt())

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

    def init_bias(self, rms: float) -> Tensor:
        """Return the outputs f32[K] with which actions have this root mean square along each axis.

        Raises:
            UserError: if no outputs do. With one peak it is smaller than that of a uniform distribution.
        """

        def spread(out: float) -> float:  # the variance over [-1, 1] is 1 / (2 alpha + 1) if alpha = beta
            return (2 * (1 + math.log1p(math.exp(out))) + 1) ** -0.5

        return torch.full((self.outputs,), -solve(lambda out: spread(-out), rms, -20, 20))


Head = CategoricalHead | GaussianHead | BetaHead
HEADS = ("auto", "gaussian", "squashed", "snapped", "beta", "bins")
HEAD_METHODS = ("sample", "log_prob_and_entropy", "mode", "to_action", "init_bias")
# Name in an earlier version -> name.
RENAMED_METHODS = {"evaluate": "log_prob_and_entropy", "greedy": "mode", "act": "to_action", "begin": "init_bias"}


def make_head(
    space: Space,
    head: str = "auto",
    bins: int = 9,
    log_std_min: float = -3.0,
    log_std_max: float = 0.5,
    log_std_init: float = -0.5,
) -> Head:
    """Return the head for an action space.

    Args:
        space: MultiDiscrete([...]) or Box(-1, 1, (n,)).
        head: for MultiDiscrete `auto`, which is categorical; for Box one of HEADS, where `auto` is bins
            (docs/learning.md compares them). Also, for either, the name of a head that an installed package registers,
            or the place of a class, `my_package.my_module:MyHead`, which is called with the space.
        bins: values along each axis, for the head of that name.
        log_std_min, log_std_max, log_std_init: bounds and start of the logarithm of the standard deviation, for the
            normal heads.

    Raises:
        UserError: for an unknown head or space.
    """
    place = head if registry.is_place(head) else registry.registered("head").get(str(head))
    if place and head not in HEADS:
        return _users_head(head, place, space)
    if head not in HEADS:
        raise registry.unknown_class("head", str(head), [*HEADS, *registry.registered("head")])
    if isinstance(space, MultiDiscrete) and space.nvec.ndim == 1 and not space.start.any():
        if head != "auto":
            raise UserError(f"policy.head={head} is for continuous actions: use auto, or action=continuous.")
        return CategoricalHead(space.nvec.tolist())
    components = _box_components(space)
    if head in ("auto", "bins"):
        return BinsHead(components, bins)
    if head == "beta":
        return BetaHead(components)
    kinds = {"gaussian": GaussianHead, "squashed": SquashedHead, "snapped": SnappedHead}
    return kinds[head](components, log_std_min, log_std_max, log_std_init)


def _box_components(space: Space) -> int:
    """Return the number of axes of a Box from -1 to 1. Raise UserError for any other space."""
    if not isinstance(space, Box) or len(space.shape) != 1:
        raise UserError(f"No policy can act in {space}: use MultiDiscrete([...]) or Box(-1, 1, (n,)).")
    if (space.low != -1).any() or (space.high != 1).any():
        raise UserError(
            f"The action box reaches from {space.low.tolist()} to {space.high.tolist()}: scale actions to [-1, 1] in "
            f"the environment."
        )
    return space.shape[0]


def _users_head(name: str, place: str, space: Space) -> Head:
    """Return a head whose class is not part of this package."""
    _refuse_renamed_methods(place)
    kind = registry.load("head", place, HEAD_METHODS)
    registry.check_constructor("head", name, kind, "let it be __init__(self, space)", space)
    head = cast(Head, kind(space))
    action = head.to_action(head.sample(torch.zeros(1, head.outputs), torch.Generator())[0])
    if action.is_floating_point() != isinstance(space, Box):
        raise UserError(
            f"policy.head={name} gives {action.dtype}, which are not actions in {space}: use another head, or the "
            f"other action form."
        )
    return head


def _refuse_renamed_methods(place: str) -> None:
    """Raise UserError for a class that was written for an earlier version."""
    kind = registry.load("head", place, ())
    renamed = {old: new for old, new in RENAMED_METHODS.items() if hasattr(kind, old) and not hasattr(kind, new)}
    if renamed:
        changes = ", ".join(f"{old} to {new}" for old, new in renamed.items())
        raise UserError(f"The head {place} has method names of an earlier version: rename {changes}.")
