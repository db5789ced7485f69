"""Any policy on a GPU, compiled by `torch.compile` and replayed from CUDA graphs, without Python.

The policy is traced once for each shape of its inputs. Matrices are multiplied in bf16 or float32; values, recurrent
states and gradients stay float32.
"""

from typing import Any

import torch
from torch import Tensor

from particle_grid.learn.policy import Policy, RecurrentState


class Compiled:
    """Computes a policy, and is called like it. The first call with each shape compiles.

    Args:
        policy: the policy.
        dtype: precision of matrix multiplications, float32 or bfloat16.
        device: the device of the policy.
        options: keyword arguments of `torch.compile`.
    """

    def __init__(self, policy: Policy, dtype: torch.dtype, device: torch.device, options: dict[str, Any]) -> None:
        self.dtype = dtype
        self.device = device
        self.network = torch.compile(policy, fullgraph=True, dynamic=False, **options)

    def __call__(self, obs: Tensor, starts: Tensor, state: RecurrentState) -> tuple[Tensor, Tensor, RecurrentState]:
        """Return outputs, values and the next recurrent state, see `particle_grid.learn.policy`."""
        torch.compiler.cudagraph_mark_step_begin()
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            out, value, state = self.network(obs, starts, state)
        # The next replay overwrites this memory, so the state, which must outlive it, is copied.
        return out.float(), value.float(), tuple(x.to(torch.float32, copy=True) for x in state)
