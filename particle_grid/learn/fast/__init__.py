"""Fast paths through policies, chosen by `trainer.fast`: kernels for `ConvLSTM` on CPUs, `torch.compile` on GPUs. The
modules in `particle_grid.learn.policy` stay the definition: what runs here is compared with the module each time it is
chosen, and left out if it differs."""

import copy
import os
from collections.abc import Callable
from typing import Any

import numba
import torch
from torch import Tensor

from particle_grid.learn.distributed import ranks
from particle_grid.learn.policy import CELLS, FEATURES, ConvLSTM, Policy, State

Network = Callable[[Tensor, Tensor, State], tuple[Tensor, Tensor, State]]
MODES = ("auto", "off", "fp32", "bf16")
TOLERANCE = 1e-4  # relative difference, in float32, between the fast path and the module it stands for
COMPILED_TOLERANCE = 0.2  # the same, of the worst parameter's gradient in bf16
CPU = torch.device("cpu")


def accelerate(policy: Policy, mode: str, device: torch.device, threads: int) -> tuple[Network, str]:
    """What to call instead of the policy, and a sentence for people that says what that is.

    mode: off: the policy itself. fp32 or bf16: the fast path with products of this kind. auto: bf16 where the processor
    or GPU has instructions for it, else fp32. Threads: 0 for all cores. Where the fast path does not apply it is the
    policy itself, and the sentence says why. Raises ValueError for another mode.
    """
    if mode not in MODES:
        raise ValueError(f"trainer.fast={mode} is not known: choose {', '.join(MODES)}.")
    if mode == "off":
        return policy, f"The policy runs in plain torch on {device}."
    if device.type != "cpu":
        return compiled(policy, mode, device, {"mode": "reduce-overhead"})  # with CUDA graphs
    if reason := _unfit(policy):
        return policy, f"The policy runs in plain torch: {reason}."
    from particle_grid.learn.fast.conv_lstm import FastConvLSTM  # here, because it loads compiled kernels

    assert isinstance(policy, ConvLSTM)
    name = mode if mode != "auto" else "bf16" if has_bf16() else "fp32"
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[name]
    threads = threads or min(cores(), numba.config.NUMBA_NUM_THREADS)  # launchers of many runs set its variable
    own = torch.get_num_threads()
    twin = copy.deepcopy(policy).requires_grad_(True)  # a frozen policy is compared too, and no gradients are lost
    difference = compare(twin, FastConvLSTM(twin, torch.float32, 1))
    if not difference <= TOLERANCE:
        torch.set_num_threads(own)
        return policy, (
            f"The policy runs in plain torch, which is slower: the module ConvLSTM was changed and the kernels in "
            f"learn/fast were not, so they differ (by {difference:.1e}). Change them too, or set trainer.fast=off."
        )
    on = "one thread" if threads == 1 else f"up to {threads} threads"
    return FastConvLSTM(policy, dtype, threads), f"The policy runs in {name} kernels on {on}."


def compiled(policy: Policy, mode: str, device: torch.device, options: dict[str, Any]) -> tuple[Network, str]:
    """What `accelerate` gives on a GPU; options: of `torch.compile`."""
    from particle_grid.learn.fast.gpu import Compiled  # here, because few need it

    name = mode if mode != "auto" else "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    network = Compiled(policy, {"fp32": torch.float32, "bf16": torch.bfloat16}[name], device, options)
    try:
        difference = compare(policy, network, device=device)
    except RuntimeError as error:  # of the compiler, which needs Triton and a C compiler
        reason = str(error).strip().partition("\n")[0].rstrip(".")
        return policy, f"The policy runs in plain torch on {device}, for it cannot be compiled: {reason}."
    if not difference <= COMPILED_TOLERANCE:
        return policy, f"The policy runs in plain torch on {device}: compiled, it differs by {difference:.1e}."
    return network, f"The policy is compiled for {device}, in {name}; the first iteration takes a minute or two."


def cores() -> int:
    """How many cores this process may use: its part of them, where `torchrun` has started several."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, count // ranks()[2])


def has_bf16() -> bool:
    """Whether the processor multiplies bf16 faster than float32."""
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def _unfit(policy: Policy) -> str:
    """Why the fast path does not apply to a policy; empty if it does."""
    if type(policy) is not ConvLSTM:
        return f"there are no kernels for {type(policy).__name__}"
    if numba.config.DISABLE_JIT:
        return "Numba's compiler is off (NUMBA_DISABLE_JIT)"
    if policy.encoder.conv1.padding != (0, 0):
        return f"there are no kernels for windows of {policy.side} x {policy.side}, which need padding"
    if others := {x.dtype for x in policy.parameters()} - {torch.float32}:
        return f"there are no kernels for weights in {others.pop()}"
    if not all(x.isfinite().all() for x in policy.parameters()):
        return "some of its weights are no numbers"
    return ""


@torch.enable_grad()  # also where somebody asks in the middle of a rollout
def compare(policy: Policy, network: Network, steps: int = 3, agents: int = 16, device: torch.device = CPU) -> float:
    """The largest relative difference between a policy and what stands for it, over outputs, state and the gradient of
    every parameter, for random observations, starts and states. Leaves the parameters' gradients empty."""
    generator = torch.Generator().manual_seed(0)
    cells = torch.randint(0, CELLS, (steps, agents, policy.side**2), generator=generator)
    features = torch.randint(0, 256, (steps, agents, FEATURES), generator=generator)
    obs = torch.cat([cells, features], -1).to(device, torch.uint8)
    starts = (torch.rand(steps, agents, generator=generator) < 0.3).to(device)
    state = tuple((torch.rand(x.shape, generator=generator) - 0.5).to(device) for x in policy.initial_state(agents))
    weights = torch.randn(steps, agents, policy.head.outputs + 1, generator=generator).to(device)
    results = []
    for net in (policy, network):
        policy.zero_grad()
        out, value, after = net(obs, starts, state)
        ((out * weights[..., :-1]).sum() + (value * weights[..., -1]).sum()).backward()
        gradients = [x.grad for x in policy.parameters() if x.grad is not None]
        results.append([x.detach().clone() for x in (out, value, *after, *gradients)])
    policy.zero_grad()
    expected, got = results
    if [x.shape for x in expected] != [x.shape for x in got]:
        return float("inf")
    return max(float((a - b).norm() / b.norm().clamp(min=1e-12)) for a, b in zip(got, expected, strict=True))
