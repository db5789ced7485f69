"""Any policy on a GPU, compiled by `torch.compile`.

The policy is traced once for each shape of its inputs. Matrices are multiplied in bf16 or float32. Outputs, values,
recurrent states and gradients stay float32, and so do the layers of actor and critic, see `Policy.decide`.
"""

import copy
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from particle_grid.learn.fast.compare import Results, largest_difference, results
from particle_grid.learn.policy import ConvLSTM, Network, Policy, RecurrentState

# Largest relative difference of outputs, and of the gradient of a parameter, from the policy in float64.
TOLERANCES = {torch.float32: (1e-3, 1e-3), torch.bfloat16: (1e-2, 3e-2)}
ROUNDING = 2.0  # or this many times the difference of the policy in the same precision, not compiled


class Compiled:
    """Computes a policy, and is called like it. The first call with each shape compiles.

    Args:
        policy: the policy.
        dtype: precision of matrix multiplications, float32 or bfloat16.
        device: the device of the policy.
        options: keyword arguments of `torch.compile`.

    Attributes:
        checked: set this once the network was compared with its policy. From then on, the policy takes over if it
            cannot be compiled for another shape; until then, the exception is passed on.
    """

    def __init__(self, policy: Policy, dtype: torch.dtype, device: torch.device, options: dict[str, Any]) -> None:
        self.policy = policy
        self.dtype = dtype
        self.device = device
        torch.compiler.reset()  # or variants for earlier policies would count towards the limit of this one
        self.network: Callable[..., Any] = torch.compile(policy, fullgraph=True, dynamic=False, **options)
        self.variants: set[tuple[Any, ...]] = set()  # that were called before
        self.checked = False
        self.composed: tuple[Tensor, ...] = ()  # what `ConvLSTM.compose` returned, always in the same memory
        self.unchanged = False  # whether the parameters are known to be those that `composed` was made from

    def __call__(self, obs: Tensor, starts: Tensor, state: RecurrentState) -> tuple[Tensor, Tensor, RecurrentState]:
        """Return outputs, values and the next recurrent state, see `particle_grid.learn.policy`."""
        torch.compiler.cudagraph_mark_step_begin()
        composed = (self.composed,) if self.composed and self.unchanged else ()
        with self._autocast():
            out, value, state = self._compute(obs, starts, state, *composed)
        # The next replay overwrites this memory, so the state, which must outlive it, is copied.
        return out.float(), value.float(), tuple(x.to(torch.float32, copy=True) for x in state)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Compose weights now, and not again in this context, in which the parameters do not change."""
        if isinstance(self.policy, ConvLSTM) and type(self.policy).forward is ConvLSTM.forward:
            with torch.no_grad(), self._autocast():
                fresh = self.policy.compose()
            self.composed = self.composed or tuple(map(torch.empty_like, fresh))
            for kept, new in zip(self.composed, fresh, strict=True):
                kept.copy_(new)
        self.unchanged = True
        try:
            yield
        finally:
            self.unchanged = False

    def _compute(self, obs: Tensor, *others: Any) -> tuple[Tensor, Tensor, RecurrentState]:
        """Call the network, or the policy if it cannot be compiled for these inputs."""
        variant = (obs.shape, torch.is_grad_enabled(), len(others))
        if variant in self.variants:
            return self.network(obs, *others)
        try:
            result = self.network(obs, *others)
        except Exception as error:  # torch.compile has dozens, without a base class
            if not self.checked:
                raise
            self.network = self.policy
            warnings.warn(
                f"The policy runs in plain torch from now on, which is slower: it cannot be compiled for inputs "
                f"{list(obs.shape)} ({reason(error)}).",
                RuntimeWarning,
                stacklevel=3,
            )
            result = self.policy(obs, *others)
        self.variants.add(variant)
        return result


def reason(error: Exception) -> str:
    """Return the first line of a message."""
    return str(error).strip().partition("\n")[0].rstrip(".")


def compiled(policy: Policy, dtype: torch.dtype, device: torch.device, options: dict[str, Any]) -> tuple[Network, str]:
    """Return what `particle_grid.learn.fast.accelerate` returns on a GPU.

    Args:
        policy, dtype, device, options: as for `Compiled`.
    """
    try:
        network = Compiled(policy, dtype, device, options)
        got = results(policy, network)
    except Exception as error:  # likewise; the compiler needs Triton and a C compiler
        return policy, f"The policy runs in plain torch on {device}, because it cannot be compiled: {reason(error)}."
    network.checked = True
    expected = _reference(policy)
    with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
        rounded = results(policy, policy)
    for difference, rounding, tolerance in zip(
        _differences(got, expected), _differences(rounded, expected), TOLERANCES[dtype], strict=True
    ):
        if not difference <= max(tolerance, ROUNDING * rounding):
            return policy, f"The policy runs in plain torch on {device}: compiled, it differs by {difference:.1e}."
    name = "bf16" if dtype == torch.bfloat16 else "fp32"
    return network, f"The policy is compiled for {device}, in {name}; the first iteration takes a minute or two."


def _reference(policy: Policy) -> Results:
    """Return the results of a policy in float64; in its own precision, if it is written for that only."""
    twin = copy.deepcopy(policy).double()
    try:
        return results(twin, twin)
    except RuntimeError:
        return results(policy, policy)


def _differences(got: Results, expected: Results) -> tuple[float, float]:
    """Return the largest relative differences of outputs and of gradients."""
    return largest_difference(got.outputs, expected.outputs), largest_difference(got.gradients, expected.gradients)
