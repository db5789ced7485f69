"""Any policy on a GPU: traced once for each shape of its inputs, what can be fused is fused, and the GPU replays it all
from a CUDA graph, without Python. Products are in bf16 or float32; values, states and gradients stay float32."""

from typing import Any

import torch
from torch import Tensor

from particle_grid.learn.policy import Policy, State


class Compiled:
    """Calls like `policy`. options: of `torch.compile`. Compiling happens in the first call with each shape."""

    def __init__(self, policy: Policy, dtype: torch.dtype, device: torch.device, options: dict[str, Any]) -> None:
        self.dtype, self.device = dtype, device
        self.network = torch.compile(policy, fullgraph=True, dynamic=False, **options)

    def __call__(self, obs: Tensor, starts: Tensor, state: State) -> tuple[Tensor, Tensor, State]:
        """As `particle_grid.learn.policy` has it."""
        torch.compiler.cudagraph_mark_step_begin()
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            out, value, state = self.network(obs, starts, state)
        # The next replay writes into the same memory: what must outlive it is copied.
        return out.float(), value.float(), tuple(x.to(torch.float32, copy=True) for x in state)
