"""`MLP` on a CPU: the same function of the same parameters, several times faster.

The first layer is one call of `particle_grid.learn.fast.one_hot.encode`. Rows are independent, since there is no
memory: blocks of them pass through all layers while their data is in the nearest caches.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from particle_grid.learn.fast.dense import BLOCK, Top, compose_top, decide, decide_back, pack_top
from particle_grid.learn.fast.network import FastNetwork, gather, real
from particle_grid.learn.fast.one_hot import CHANNELS, encode, encode_back
from particle_grid.learn.policy import CELLS, MLP
from particle_grid.support.jit import math_kernel


class Weights(NamedTuple):
    """What the kernels read. H is the number of units, rounded up to a multiple of 32."""

    places: np.ndarray  # i64[cells, 1 + H / 16] see `particle_grid.learn.fast.one_hot.encode`
    base: np.ndarray  # f32[H]
    table: np.ndarray  # f32[cells * 7 * H]
    dense: np.ndarray  # f32[7, H]
    top: Top


class Record(NamedTuple):
    """What the kernels write for n agents over T steps. Rows are in the order [T, n]."""

    obs: np.ndarray  # u8[T, n, observation size]
    hidden: np.ndarray  # real[T * n, H] the first layer
    last: np.ndarray  # real[T * n, H] the second layer
    out: np.ndarray  # f32[T, n, K + 1] of actor and critic
    d_out: np.ndarray  # f32[T, n, K + 1] its gradient


def layer_places(cells: int, units: int) -> np.ndarray:
    """Return the table i64[cells, 1 + 2 * units / 32] of a linear layer, see `particle_grid.learn.fast.one_hot.encode`.

    Each cell belongs to all patches, which are groups of 32 units.
    """
    groups = units // CHANNELS
    result = np.full((cells, 1 + 2 * groups), groups, np.int64)
    result[:, 1::2] = np.arange(groups) * CHANNELS
    result[:, 2::2] = np.arange(cells * groups).reshape(cells, groups) * CELLS * CHANNELS
    return result


@math_kernel
def forward(obs, starts, agents, weights, record):
    """Compute all steps of the agents with these numbers."""
    gather(obs, agents, record.obs)
    flat = record.obs.reshape(-1, obs.shape[2])
    out = record.out.reshape(-1, record.out.shape[2])
    for first in range(0, len(flat), BLOCK):
        rows = slice(first, first + BLOCK)
        hidden = record.hidden[rows]
        encode(flat[rows], weights.places, weights.base, weights.table, weights.dense, hidden)
        decide(hidden, weights.top, record.last[rows], out[rows])


@math_kernel
def backward(weights, record, gradients):
    """Add the gradients of the composed matrices, given record.d_out."""
    d_base, d_table, d_dense, d_linear, d_last, d_heads, d_bias = gradients
    flat = record.obs.reshape(-1, record.obs.shape[2])
    d_out = record.d_out.reshape(-1, record.d_out.shape[2])
    d_hidden = np.empty((BLOCK, record.hidden.shape[1]), np.float32)
    for first in range(0, len(flat), BLOCK):
        rows = slice(first, first + BLOCK)
        hidden = record.hidden[rows]
        d_block = d_hidden[: len(hidden)]
        decide_back(hidden, weights.top, record.last[rows], d_out[rows], d_linear, d_last, d_heads, d_bias, d_block)
        encode_back(flat[rows], weights.places, hidden, d_block, d_base, d_table.reshape(-1), d_dense)


class FastMLP(FastNetwork):
    """Computes an `MLP`."""

    policy: MLP
    run_forward = staticmethod(forward)
    run_backward = staticmethod(backward)

    def __init__(self, policy: MLP, dtype: torch.dtype, threads: int) -> None:
        super().__init__(policy, dtype, threads)
        self.places = layer_places(policy.side**2, self.padded)

    def compose(self) -> tuple[Tensor, ...]:
        """Return base f32[H], table f32[cells, H / 32, 7, 32], dense f32[7, H], and those of `compose_top`."""
        policy = self.policy
        cells = policy.side**2
        weight = F.pad(policy.linear1.weight, (0, 0, 0, self.padded - policy.hidden))  # [H, cells * 7 + 7]
        table = weight[:, : cells * CELLS].unflatten(0, (-1, CHANNELS)).unflatten(2, (cells, CELLS))
        table = table.permute(2, 0, 3, 1)  # [H / 32, 32, cells, 7] -> [cells, H / 32, 7, 32]
        empty = table[:, :, :1]
        base = F.pad(policy.linear1.bias, (0, self.padded - policy.hidden)) + empty.sum((0, 2)).flatten()
        dense = weight[:, cells * CELLS :].t()
        linear2 = policy.linear2
        return base, table - empty, dense, *compose_top(policy, linear2.weight, linear2.bias, self.padded)

    def pack(self, composed: Sequence[Tensor]) -> Weights:
        """Return the arrays that the kernels read."""
        base, table, dense = composed[:3]
        top = pack_top(composed[3:], self.padded, self.dtype)
        return Weights(self.places, base.numpy(), table.flatten().numpy(), dense.contiguous().numpy(), top)

    def allocate(self, steps: int, n: int) -> Record:
        """Return a record."""
        number = real(self.dtype)
        rows = steps * n
        return Record(
            obs=np.zeros((steps, n, self.policy.observation_size), np.uint8),
            hidden=np.zeros((rows, self.padded), number),
            last=np.zeros((rows, self.padded), number),
            out=np.zeros((steps, n, self.outputs), np.float32),
            d_out=np.zeros((steps, n, self.outputs), np.float32),
        )
