"""Fast implementations of policies, chosen by `trainer.fast`: kernels on CPUs, `torch.compile` on GPUs.

The modules in `particle_grid.learn.policy` remain the definition. Each time a fast implementation is chosen, it is
compared with its module, and rejected if it differs.
"""

import copy
import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

import numba
import torch
from torch import Tensor

from particle_grid.learn.fast.compare import compare
from particle_grid.learn.fast.kernels.tiles import HAS_AMX, HAS_BF16
from particle_grid.learn.heads import Head
from particle_grid.learn.policy import MLP, Conv, ConvLSTM, Network, Policy
from particle_grid.learn.ranks import ranks

if TYPE_CHECKING:
    from particle_grid.learn.fast.loss import FusedLoss

Sample = Callable[[Tensor, torch.Generator], tuple[Tensor, Tensor]]
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
TOLERANCE = 1e-4  # relative difference from the module, in float32
NO_KERNEL = "The loss runs in plain torch, which is slower: there is no kernel for trainer.objective={}."
ADVICE = 'The section "Speed" of docs/own.md says what helps.'


def accelerate(
    policy: Policy, mode: str, device: torch.device, threads: int, captured: bool = False
) -> tuple[Network, str]:
    """Return what to call instead of a policy, and a sentence that describes it.

    If no fast implementation applies, this is the policy itself, and the sentence says why.

    Args:
        policy: the policy, on its device.
        mode: `off` for the policy itself; `fp32` or `bf16` for a fast implementation that multiplies in this precision;
            `auto` for bf16 if the processor or GPU has instructions for it, and fp32 otherwise.
        device: the device of the policy.
        threads: CPU threads; 0 for all cores.
        captured: whether the caller captures CUDA graphs, in which the network will be called.
    """
    if mode == "off":
        return policy, f"The policy runs in plain torch on {device}."
    if device.type != "cpu":
        from particle_grid.learn.fast.gpu import compiled  # only if needed: few machines have a GPU

        name = mode if mode != "auto" else "bf16" if torch.cuda.is_bf16_supported() else "fp32"
        return compiled(policy, DTYPES[name], device, {} if captured else {"mode": "reduce-overhead"})
    reason = _why_no_kernels(policy)
    if reason:
        return policy, f"The policy runs in plain torch, several times slower than in kernels: {reason}. {ADVICE}"
    return _with_kernels(policy, mode, threads)


def _with_kernels(policy: Policy, mode: str, threads: int) -> tuple[Network, str]:
    """Return the kernels for a policy, or the policy itself if it differs from them, and a sentence."""
    name = mode if mode != "auto" else "bf16" if has_bf16() else "fp32"
    if not HAS_BF16 and not isinstance(policy, ConvLSTM):
        name = "fp32"  # only `TorchConvLSTM` multiplies matrices in bf16 on any processor
    threads = thread_count(threads)
    torch_threads = torch.get_num_threads()
    twin = _with_random_weights(policy)
    difference = compare(twin, _kernels(twin, torch.float32, 1))
    if not difference <= TOLERANCE:
        torch.set_num_threads(torch_threads)
        return policy, (
            f"The policy runs in plain torch, which is slower: the module {type(policy).__name__} was changed and the "
            f"kernels in learn/fast were not, so they differ (by {difference:.1e}). Change them too, or set "
            f"trainer.fast=off."
        )
    on = "one thread" if threads == 1 else f"up to {threads} threads"
    return _kernels(policy, DTYPES[name], threads), f"The policy runs in {name} kernels on {on}."


@torch.no_grad()
def _with_random_weights(policy: Policy) -> Policy:
    """Return a copy to compare, which may be trained even if the policy is frozen.

    Its weights are neither 0, which would hide a change of the module, nor so large that units saturate, since the
    gradients of saturated units are little more than rounding errors.
    """
    twin = copy.deepcopy(policy).requires_grad_(True)
    generator = torch.Generator().manual_seed(0)
    for weight in twin.parameters():
        inputs = weight[0].numel() if weight.ndim > 1 else 1
        weight.copy_(torch.randn(weight.shape, generator=generator) / max(10, inputs) ** 0.5)
    return twin


def _kernels(policy: Policy, dtype: torch.dtype, threads: int) -> Network:
    """Return the fast network for a policy. It is imported only here, since it loads compiled kernels."""
    if isinstance(policy, MLP):
        from particle_grid.learn.fast.mlp import FastMLP

        return FastMLP(policy, dtype, threads)
    if isinstance(policy, Conv):
        from particle_grid.learn.fast.conv import FastConv

        return FastConv(policy, dtype, threads)
    assert isinstance(policy, ConvLSTM)
    if dtype == torch.bfloat16 and (HAS_AMX or not HAS_BF16):
        from particle_grid.learn.fast.torch_conv_lstm import TorchConvLSTM

        return TorchConvLSTM(policy, dtype, threads)
    from particle_grid.learn.fast.conv_lstm import FastConvLSTM

    return FastConvLSTM(policy, dtype, threads)


def accelerate_head(head: Head, network: Network, objective: str = "ppo") -> tuple["FusedLoss | None", Sample, str]:
    """Return the loss of a head in kernels, or None, how to sample from it, and a sentence for each that has no kernel.

    Kernels are used beside a network in kernels only, and compute the loss of PPO only.
    """
    if not hasattr(network, "learn"):
        return None, head.sample, ""
    from particle_grid.learn.fast.loss import fused_loss
    from particle_grid.learn.fast.sampling import fused_sampler

    loss, how_loss = fused_loss(head) if objective == "ppo" else (None, NO_KERNEL.format(objective))
    sampler, how_sample = fused_sampler(head)
    return loss, sampler or head.sample, " ".join([how_loss] * (loss is None) + [how_sample] * (sampler is None))


def frozen(network: Network) -> AbstractContextManager[None]:
    """Return a context in which the parameters of a network do not change, so that it need not look for changes."""
    return network.frozen() if hasattr(network, "frozen") else nullcontext()


def thread_count(threads: int) -> int:
    """Return the number of threads to use for a setting, in which 0 means all cores."""
    return threads or min(cores(), numba.config.NUMBA_NUM_THREADS)  # launchers of many runs set this variable


def cores() -> int:
    """Return how many cores this process may use: its share, if several processes of a run are on this machine."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, count // ranks().local_size)


def has_bf16() -> bool:
    """Return whether the processor multiplies bf16 faster than float32."""
    return HAS_BF16 or HAS_AMX


def _why_no_kernels(policy: Policy) -> str:
    """Return why the kernels do not apply to a policy, or an empty string if they do."""
    if type(policy) not in (ConvLSTM, Conv, MLP):
        return f"there are no kernels for {type(policy).__name__}"
    if numba.config.DISABLE_JIT:
        return "Numba's compiler is off (NUMBA_DISABLE_JIT)"
    if isinstance(policy, ConvLSTM | Conv) and policy.encoder.conv1.padding != (0, 0):
        return f"there are no kernels for windows of {policy.side} x {policy.side}, which need padding"
    if _shapes(policy) != _shapes(_original(policy)):
        return f"its weights are not those of {type(policy).__name__}, or some of them are shared"
    if any(x._backward_hooks for x in policy.parameters()):
        return "its weights have hooks, which kernels do not call"
    other_dtypes = {x.dtype for x in policy.parameters()} - {torch.float32}
    if other_dtypes:
        return f"there are no kernels for weights in {other_dtypes.pop()}"
    if not all(x.isfinite().all() for x in policy.parameters()):
        return "some of its weights are NaN or infinite"
    return ""


def _original(policy: Policy) -> Policy:
    """Return a policy of the same class as it is made, without memory for its weights."""
    with torch.device("meta"):
        return type(policy)(policy.side // 2, policy.head, policy.hidden)


def _shapes(policy: Policy) -> dict[str, torch.Size]:
    """Return the shape of each weight. Weights that are computed from others, or shared, have other names or none."""
    return {name: x.shape for name, x in policy.named_parameters()}
