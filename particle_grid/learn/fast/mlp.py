"""`MLP` on a CPU: the same function of the same parameters, several times faster.

The first layer is one call of `kernels.one_hot.encode`. Rows are independent, since there is no
memory: blocks of them pass through all layers while their data is in the nearest caches.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from particle_grid.learn.fast.dense import (
    BLOCK,
    FastTop,
    Top,
    decide,
    decide_back,
    top_parameters,
)
from particle_grid.learn.fast.kernels.columns import gather, scatter
from particle_grid.learn.fast.kernels.one_hot import CHANNELS, encode, encode_back
from particle_grid.learn.fast.kernels.products import transpose
from particle_grid.learn.fast.network import FastNetwork
from particle_grid.learn.policy import CELLS, FEATURES, MLP
from particle_grid.support.jit import math_kernel


class Weights(NamedTuple):
    """What the kernels read. H is the number of units, rounded up to a multiple of 32."""

    places: np.ndarray  # i64[cells, 1 + H / 16] see `kernels.one_hot.encode`
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
    """Return the table i64[cells, 1 + 2 * units / 32] of a linear layer, see `kernels.one_hot.encode`.

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
def act(inputs, first, end, weights, record, wholes):
    """Compute all steps of the agents from first to end, and copy the outputs to `wholes`."""
    size = record.out.shape[1]
    for start in range(first, end, size):
        agents = np.arange(start, min(start + size, end))
        forward(*inputs, agents, weights, record)
        scatter((record.out,), agents, wholes)


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
        encode_back(flat[rows], weights.places, hidden, d_block, d_base, d_table, d_dense)


@math_kernel
def compose_first(first, bias, places, base, table, dense):
    """Compute the weights of the first layer, for its parameters f32[U, cells * 7 + 7] and f32[U]."""
    units = len(first)
    for start in range(0, units, CHANNELS):
        end = min(start + CHANNELS, units)
        for u in range(start, end):
            base[u] = bias[u]
        for cell in range(len(places)):
            place = places[cell, 2 + 2 * (start // CHANNELS)]
            column = cell * CELLS
            for u in range(start, end):
                base[u] += first[u, column]
            for code in range(CELLS):
                row = table[place + code * CHANNELS : place + (code + 1) * CHANNELS]
                for u in range(start, end):
                    row[u - start] = first[u, column + code] - first[u, column]
    transpose(first[:, len(places) * CELLS :], dense)


@math_kernel
def compose_first_back(places, d_base, d_table, d_dense, d_first, d_bias):
    """Write the gradients of the first layer's parameters."""
    units = len(d_first)
    cells = len(places)
    d_bias[:] = d_base[:units]
    for start in range(0, units, CHANNELS):
        end = min(start + CHANNELS, units)
        for cell in range(cells):
            place = places[cell, 2 + 2 * (start // CHANNELS)]
            column = cell * CELLS
            for u in range(start, end):
                d_empty = d_base[u]
                for code in range(1, CELLS):
                    d_code = d_table[place + code * CHANNELS + u - start]
                    d_first[u, column + code] = d_code
                    d_empty -= d_code
                d_first[u, column] = d_empty
    for u in range(units):
        for feature in range(len(d_dense)):
            d_first[u, cells * CELLS + feature] = d_dense[feature, u]


class FastMLP(FastNetwork):
    """Computes an `MLP`."""

    policy: MLP
    run_forward = staticmethod(forward)
    run_backward = staticmethod(backward)
    run_act = staticmethod(act)

    def __init__(self, policy: MLP, dtype: torch.dtype, threads: int) -> None:
        super().__init__(policy, dtype, threads)
        self.places = layer_places(policy.side**2, self.size)
        self.top = FastTop(self, self.size, self.size)

    def named_parameters(self) -> dict[str, Tensor]:
        """Return the parameters by the names that the kernels use."""
        policy = self.policy
        first = {"first": policy.linear1.weight, "first_bias": policy.linear1.bias}
        return first | top_parameters(policy, policy.linear2)

    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Return the shapes of the sums of gradients."""
        return (self.size,), (len(self.places) * CELLS * self.size,), (FEATURES, self.size), *self.top.shapes

    def compose(self, arrays: dict[str, np.ndarray]) -> Weights:
        """Return the weights."""
        base, table, dense = (np.zeros(shape, np.float32) for shape in self.shapes()[:3])
        compose_first(arrays["first"], arrays["first_bias"], self.places, base, table, dense)
        return Weights(self.places, base, table, dense, self.top.compose(arrays))

    def compose_back(
        self, arrays: dict[str, np.ndarray], sums: tuple[np.ndarray, ...], gradients: dict[str, np.ndarray]
    ) -> None:
        """Write the gradients of the parameters."""
        d_base, d_table, d_dense, *d_top = sums
        compose_first_back(self.places, d_base, d_table, d_dense, gradients["first"], gradients["first_bias"])
        self.top.compose_back(d_top, gradients)

    def allocate(self, steps: int, n: int) -> Record:
        """Return a record."""
        rows = steps * n
        return Record(
            obs=np.zeros((steps, n, self.policy.observation_size), np.uint8),
            hidden=np.zeros((rows, self.size), self.real),
            last=np.zeros((rows, self.size), self.real),
            out=np.zeros((steps, n, self.outputs), np.float32),
            d_out=np.zeros((steps, n, self.outputs), np.float32),
        )
