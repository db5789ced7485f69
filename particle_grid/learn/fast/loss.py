"""The loss and its gradient in compiled kernels, for the heads of this package.

`particle_grid.learn.ppo.ppo_loss` and the heads' `log_prob_and_entropy` remain the definition. When a kernel is chosen,
it is compared with them, and rejected if it differs.
"""

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor

from particle_grid.learn import heads, ppo
from particle_grid.learn.fast.kernels import loss_parts, losses
from particle_grid.learn.fast.kernels.hurdle import hurdle_loss
from particle_grid.learn.fast.kernels.mixture import mixture_loss
from particle_grid.learn.fast.kernels.normal_moves import CLIPPED, PROBIT, SNAPPED_MOVES, moves_loss
from particle_grid.learn.heads import CategoricalHead, Head
from particle_grid.learn.heads.normal import NODES, WEIGHTS
from particle_grid.learn.heads.numbers import Bounds

TOLERANCE = 1e-4  # relative difference of a kernel from its definition
Results = dict[str, Tensor]
# By their places in a chunk's sums, see `losses`.
STATISTICS = ("loss/policy", "loss/value", "policy/entropy", "policy/kl", "policy/clip_fraction")
KERNELS = {
    heads.CategoricalHead: losses.categorical_loss,
    heads.BinsHead: losses.categorical_loss,
    heads.GaussianHead: losses.normal_loss,
    heads.SnappedHead: losses.normal_loss,
    heads.SquashedHead: losses.normal_loss,
    heads.BetaHead: losses.beta_loss,
    heads.HurdleHead: hurdle_loss,
    heads.JitterHead: losses.categorical_loss,
    heads.MixtureHead: mixture_loss,
    heads.ProbitHead: moves_loss,
    heads.ClippedHead: moves_loss,
    heads.SnappedMovesHead: moves_loss,
}
KINDS = {heads.ProbitHead: PROBIT, heads.ClippedHead: CLIPPED, heads.SnappedMovesHead: SNAPPED_MOVES}


def moments(
    agents: np.ndarray, advantage: np.ndarray, truncations: np.ndarray, total: Callable[[Tensor], Tensor]
) -> tuple[float, float, float]:
    """Return mean and 1 / (standard deviation + 1e-8) of the advantages of valid steps, and 1 / the number of these.

    This is the twin of `ppo.moments`.

    Args:
        agents: i64[n], columns of the arrays.
        advantage: f32[T, N].
        truncations: bool[T, N].
        total: sums a tensor over the processes that share a minibatch, in place, and returns it.
    """
    sums = torch.zeros(3, dtype=torch.float64)
    own = sums.numpy()
    loss_parts.advantage_sums(agents, advantage, truncations, 0.0, own)
    whole = own[1]
    loss_parts.advantage_sums(agents, advantage, truncations, whole / max(own[0], 1), own)
    own[1] = whole  # instead of the sum of the distances from the mean
    count, whole, squares = ppo.over_processes(sums, total).tolist()
    share = 1 / max(count, 1)
    return whole * share, 1 / (math.sqrt(squares * share) + 1e-8), share


@dataclass(frozen=True)
class MinibatchLoss:
    """The loss of a minibatch, chunk by chunk: call `chunk` for each, in any thread, then `finish` with all results.

    Attributes:
        head: the head.
        columns: samples [T, N, A], old_logp, advantage and returns f32[T, N], truncations bool[T, N].
        numbers: f64[7], see `losses`.
        parameters: of the head, see `losses`.
    """

    head: Head
    columns: Sequence[np.ndarray]
    numbers: np.ndarray
    parameters: np.ndarray

    def chunk(self, out: np.ndarray, agents: np.ndarray, d_out: np.ndarray) -> np.ndarray:
        """Compute the loss of a chunk of agents, without the GIL. Return its sums, see `losses`.

        Args:
            out: f32[T, P, K + 1], outputs of actor and critic for the agents, followed by P - n rows of padding.
            agents: i64[n].
            d_out: f32[T, P, K + 1], overwritten by the gradient of out.
        """
        shared = shared_deviation(self.head)
        sums = np.empty(loss_parts.SUMS + (len(shared[0]) if shared else 0))
        KERNELS[type(self.head)](out, agents, *self.columns, self.numbers, self.parameters, d_out, sums)
        return sums

    def finish(self, sums: Sequence[np.ndarray]) -> tuple[float, dict[str, float]]:
        """Return loss and statistics, as `ppo_loss` does, and set the gradients of the head's own parameters.

        Args:
            sums: of all chunks, in order.
        """
        whole = np.array(sums).sum(0)
        shared = shared_deviation(self.head)
        if shared and shared[0].requires_grad:
            self._set_gradient(*shared, whole[loss_parts.SUMS :])
        statistics = dict(zip(STATISTICS, whole.tolist(), strict=False))  # followed by the gradients
        _, _, _, _, value_coef, entropy_coef, _ = self.numbers.tolist()
        loss = statistics["loss/policy"] + value_coef * statistics["loss/value"]
        return loss - entropy_coef * statistics["policy/entropy"], statistics

    @staticmethod
    def _set_gradient(raw: Tensor, bounds: Bounds, d_log_std: np.ndarray) -> None:
        """Set the gradient of the parameter from which the log standard deviations derive."""
        slope = bounds.reach * (1 - np.tanh(raw.detach().numpy()) ** 2)
        gradient = torch.from_numpy((d_log_std * slope).astype(np.float32))
        if raw.grad is None:
            raw.grad = gradient
        else:
            raw.grad.copy_(gradient)


class FusedLoss:
    """Computes losses in kernels, for one of the heads in KERNELS."""

    def __init__(self, head: Head) -> None:
        self.head = head

    @staticmethod
    def by_agent(x: Tensor) -> Tensor:
        """Return x [T, N, ...] with all steps of an agent side by side in memory, where kernels read them faster."""
        return x.transpose(0, 1).contiguous().transpose(0, 1)

    def minibatch(
        self,
        agents: np.ndarray,
        *columns: np.ndarray,
        clip: float,
        value_coef: float,
        entropy_coef: float,
        total: Callable[[Tensor], Tensor] = lambda x: x,
    ) -> MinibatchLoss:
        """Return the loss of a minibatch.

        Args:
            agents: i64[n], all agents of the minibatch.
            *columns: as in `MinibatchLoss`, of N agents.
            clip, value_coef, entropy_coef, total: as for `ppo_loss`.
        """
        _, _, advantage, _, truncations = columns
        mean, scale, share = moments(agents, advantage, truncations, total)
        numbers = np.array((mean, scale, share, clip, value_coef, entropy_coef, ppo.LOG_RATIO_LIMIT), np.float64)
        return MinibatchLoss(self.head, columns, numbers, self._parameters())

    def _parameters(self) -> np.ndarray:
        """Return what the kernel needs of the head."""
        head = self.head
        if isinstance(head, CategoricalHead):
            width = head.width if isinstance(head, heads.JitterHead) else 0.0
            return np.array([*head.nvec, *(width for _ in head.nvec)])
        if isinstance(head, heads.MixtureHead):
            return np.concatenate([head.get_buffer("points").numpy(), head.get_buffer("weights").numpy()])
        shared = shared_deviation(head)
        with torch.no_grad():
            log_std = shared[1].log_std(shared[0]).numpy() if shared else np.zeros(0, np.float32)
        if isinstance(head, heads.ProbitHead | heads.ClippedHead | heads.SnappedMovesHead):
            return np.array([KINDS[type(head)], *head.bounds, *log_std], np.float32)
        quadrature = [NODES, WEIGHTS] if type(head) is heads.SquashedHead else []
        return np.concatenate([log_std, *quadrature]).astype(np.float32)


def shared_deviation(head: Head) -> tuple[Tensor, Bounds] | None:
    """Return the parameter and the bounds of log standard deviations that all observations share, if a head has one."""
    if isinstance(head, heads.GaussianHead | heads.ProbitHead | heads.ClippedHead) and head.raw_log_std is not None:
        return head.raw_log_std, head.bounds
    return None


def fused_loss(head: Head) -> tuple[FusedLoss | None, str]:
    """Return the compiled loss for a head, or None if there is none, and a sentence that describes the choice."""
    name = type(head).__name__
    if type(head) not in KERNELS:
        return None, f"The loss runs in plain torch: there is no kernel for {name}."
    if numba.config.DISABLE_JIT:
        return None, "The loss runs in plain torch: Numba's compiler is off (NUMBA_DISABLE_JIT)."
    others = {(x.dtype, x.device.type) for x in head.parameters()} - {(torch.float32, "cpu")}
    if others:
        dtype, device = others.pop()
        return None, f"The loss runs in plain torch: there is no kernel for a head in {dtype} on {device}."
    difference = compare(head)
    if not difference <= TOLERANCE:
        return None, (
            f"The loss runs in plain torch, which is slower: ppo_loss or {name} was changed and the kernel in "
            f"learn/fast was not, so they differ (by {difference:.1e}). Change it too, or set trainer.fast=off."
        )
    return FusedLoss(head), "The loss runs in a kernel."


def compare(head: Head) -> float:
    """Return the largest relative difference between the kernel for a head and its definition, on random minibatches.

    Loss, statistics and all gradients are compared.
    """
    twin = copy.deepcopy(head).requires_grad_(True)  # frozen heads can be compared, and gradients survive
    differences = []
    for seed in range(6):
        try:
            batch = random_minibatch(twin, seed)
            difference = largest_difference(kernel_results(twin, batch), torch_results(twin, batch))
        except Exception:  # from modified code: a signature that differs, for instance
            return math.inf
        differences.append(difference)
    return float(torch.tensor(differences).max())  # NaN if any is


@dataclass(frozen=True)
class Minibatch:
    """What a loss is compared on.

    Attributes:
        outputs: f32[T, n, K + 1], of actor and critic.
        agents: i64[n], columns of the following tensors.
        samples: [T, N, A].
        old_logp, advantage, returns: f32[T, N].
        truncations: bool[T, N].
        settings: clip, value_coef and entropy_coef.
    """

    outputs: Tensor
    agents: Tensor
    samples: Tensor
    old_logp: Tensor
    advantage: Tensor
    returns: Tensor
    truncations: Tensor
    settings: dict[str, Any]

    def columns(self) -> tuple[Tensor, ...]:
        """Return the tensors that have one column for each of N agents."""
        return self.samples, self.old_logp, self.advantage, self.returns, self.truncations


@torch.no_grad()
def random_minibatch(head: Head, seed: int, steps: int = 4, count: int = 24) -> Minibatch:
    """Return a minibatch from `count` agents, with random settings. The head's parameters become random, too."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(steps, count, *shape, generator=generator)

    for parameter in head.parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=generator) / 2)
    outputs = normal(head.outputs + 1)
    samples, logp = head.sample(outputs[..., :-1] + 0.3 * normal(head.outputs), generator)
    spread = 12.0 if seed % 2 else 0.2  # 12: some ratios are beyond the limit
    coefs = torch.rand(3, generator=generator).tolist()
    agents = torch.randperm(count, generator=generator)[: count - 7]
    return Minibatch(
        outputs=outputs[:, agents],
        agents=agents,
        samples=samples,
        old_logp=logp + spread * normal(),
        advantage=normal() + 0.5,
        returns=normal(),
        truncations=torch.rand(steps, count, generator=generator) < 0.2,
        settings={"clip": 0.05 + 0.4 * coefs[0], "value_coef": coefs[1], "entropy_coef": coefs[2]},
    )


@torch.enable_grad()  # even if called in the middle of a rollout
def torch_results(head: Head, batch: Minibatch) -> Results:
    """Return loss, statistics and gradients by the definition. Afterwards the head's parameters have no gradients."""
    head.zero_grad()
    outputs = batch.outputs.detach().requires_grad_(True)
    samples, old_logp, advantage, returns, truncations = (x[:, batch.agents] for x in batch.columns())
    logp, entropy = head.log_prob_and_entropy(outputs[..., :-1], samples)
    loss, statistics = ppo.ppo_loss(
        logp, entropy, outputs[..., -1], old_logp, advantage, returns, ~truncations, **batch.settings
    )
    loss.backward()
    assert outputs.grad is not None
    return _results(head, loss.detach(), statistics, outputs.grad)


def kernel_results(head: Head, batch: Minibatch, size: int = 8) -> Results:
    """Return the same by the kernel, in chunks of `size` agents, whose last one is padded with NaN."""
    head.zero_grad()
    columns = (
        FusedLoss.by_agent(x).numpy() for x in batch.columns()
    )  # as in training, so that nothing is compiled twice
    loss = FusedLoss(head).minibatch(batch.agents.numpy(), *columns, **batch.settings)
    sums = []
    gradients = []
    for k, part in enumerate(batch.agents.split(size)):
        out = torch.full((len(batch.outputs), size, batch.outputs.shape[2]), torch.nan)
        out[:, : len(part)] = batch.outputs[:, k * size : k * size + len(part)]
        d_out = torch.full_like(out, torch.nan)
        sums.append(loss.chunk(out.numpy(), part.numpy(), d_out.numpy()))
        gradients.append(d_out[:, : len(part)])
    total, statistics = loss.finish(sums)
    as_tensors = {name: torch.tensor(x) for name, x in statistics.items()}
    return _results(head, torch.tensor(total), as_tensors, torch.cat(gradients, 1))


def _results(head: Head, loss: Tensor, statistics: dict[str, Tensor], d_out: Tensor) -> Results:
    """Return everything by name, and remove the gradients of the head's parameters."""
    own = {f"gradient of {name}": x.grad for name, x in head.named_parameters() if x.grad is not None}
    head.zero_grad()
    return {"loss": loss, "d_out": d_out[..., :-1], "d_value": d_out[..., -1]} | statistics | own


def largest_difference(got: Results, expected: Results) -> float:
    """Return the largest difference of a result, relative to its norm, or infinity if one is missing in either."""
    if got.keys() != expected.keys():
        return math.inf
    differences = [(got[name] - right).norm() / right.norm().clamp(min=1e-2) for name, right in expected.items()]
    return float(torch.stack(differences).max())
