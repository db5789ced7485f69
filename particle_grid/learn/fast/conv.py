"""`Conv` on a CPU: the same function of the same parameters, several times faster.

The convolutions are those of `particle_grid.learn.fast.convolution`. Rows are independent, since there is no memory:
blocks of them pass through all layers while their data is in the nearest caches.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from particle_grid.learn.fast.convolution import (
    Convolution,
    FastEncoder,
    convolve,
    convolve_back,
    encoder_parameters,
)
from particle_grid.learn.fast.dense import (
    BLOCK,
    FastTop,
    Top,
    activate_back,
    decide,
    decide_back,
    top_parameters,
)
from particle_grid.learn.fast.kernels.columns import gather, scatter
from particle_grid.learn.fast.kernels.one_hot import put_features
from particle_grid.learn.fast.kernels.products import pack
from particle_grid.learn.fast.network import FastNetwork
from particle_grid.learn.policy import CHANNELS, FEATURES, Conv
from particle_grid.support.jit import math_kernel

INPUTS = CHANNELS + FEATURES + 1  # of the last layer, plus one without weights: matrix products need a multiple of 8
ZERO = np.float32(0)


class Weights(NamedTuple):
    """What the kernels read."""

    encoder: Convolution
    shift: np.ndarray  # f32[32] the bias of the second convolution
    top: Top


class Record(NamedTuple):
    """What the kernels write for n agents over T steps. Rows are in the order [T, n]."""

    obs: np.ndarray  # u8[T, n, observation size]
    hidden: np.ndarray  # real[T * n, patches * 32] the first convolution
    inputs: np.ndarray  # real[T * n, 40] the second convolution, features and a 1
    last: np.ndarray  # real[T * n, H] the last layer
    out: np.ndarray  # f32[T, n, K + 1] of actor and critic
    d_out: np.ndarray  # f32[T, n, K + 1] its gradient


@math_kernel
def join(x, shift, obs, inputs):
    """Write ReLU(x + shift), the features divided by 255 and a 1 to inputs real[rows, 40], for x f32[rows, 32]."""
    row = np.empty(inputs.shape[1], np.float32)
    for n in range(len(obs)):
        values = x[n]
        for k in range(len(values)):
            row[k] = max(values[k] + shift[k], ZERO)
        put_features(obs[n], obs.shape[1] - FEATURES, row[len(values) :])
        pack(row, inputs[n])


@math_kernel
def forward(obs, starts, agents, weights, record):
    """Compute all steps of the agents with these numbers."""
    gather(obs, agents, record.obs)
    flat = record.obs.reshape(-1, obs.shape[2])
    out = record.out.reshape(-1, record.out.shape[2])
    x = np.empty((BLOCK, len(weights.shift)), np.float32)
    for first in range(0, len(flat), BLOCK):
        rows = slice(first, first + BLOCK)
        inputs = record.inputs[rows]
        x_block = x[: len(inputs)]
        convolve(flat[rows], weights.encoder, record.hidden[rows], x_block)
        join(x_block, weights.shift, flat[rows], inputs)
        decide(inputs, weights.top, record.last[rows], out[rows])


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
    d_base, d_table, d_conv, d_shift, d_linear, d_last, d_heads, d_bias = gradients
    flat = record.obs.reshape(-1, record.obs.shape[2])
    d_out = record.d_out.reshape(-1, record.d_out.shape[2])
    d_x = np.empty((BLOCK, len(d_shift)), np.float32)
    d_rows = np.empty((BLOCK, len(d_shift)), record.inputs.dtype)
    for first in range(0, len(flat), BLOCK):
        rows = slice(first, first + BLOCK)
        inputs = record.inputs[rows]
        d_x_block = d_x[: len(inputs)]
        d_block = d_rows[: len(inputs)]
        decide_back(
            inputs, weights.top, record.last[rows], d_out[rows], d_linear, d_last, d_heads, d_bias, d_x_block
        )  # fmt: skip
        activate_back(inputs, d_x_block, d_shift, d_block)
        convolve_back(flat[rows], weights.encoder, record.hidden[rows], d_block, d_base, d_table, d_conv)


class FastConv(FastNetwork):
    """Computes a `Conv` whose first convolution covers the window without padding."""

    policy: Conv
    run_forward = staticmethod(forward)
    run_backward = staticmethod(backward)
    run_act = staticmethod(act)

    def __init__(self, policy: Conv, dtype: torch.dtype, threads: int) -> None:
        super().__init__(policy, dtype, threads)
        self.encoder = FastEncoder(policy.encoder)
        self.top = FastTop(self, INPUTS, CHANNELS)

    def named_parameters(self) -> dict[str, Tensor]:
        """Return the parameters by the names that the kernels use."""
        policy = self.policy
        return encoder_parameters(policy.encoder) | top_parameters(policy, policy.linear)

    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Return the shapes of the sums of gradients."""
        return *self.encoder.shapes, (CHANNELS,), *self.top.shapes

    def compose(self, arrays: dict[str, np.ndarray]) -> Weights:
        """Return the weights."""
        return Weights(self.encoder.compose(arrays, self.words), arrays["conv2_bias"], self.top.compose(arrays))

    def compose_back(
        self, arrays: dict[str, np.ndarray], sums: tuple[np.ndarray, ...], gradients: dict[str, np.ndarray]
    ) -> None:
        """Write the gradients of the parameters."""
        d_base, d_table, d_conv, d_shift, *d_top = sums
        self.encoder.compose_back((d_base, d_table, d_conv), gradients)
        gradients["conv2_bias"][:] = d_shift
        self.top.compose_back(d_top, gradients)

    def allocate(self, steps: int, n: int) -> Record:
        """Return a record."""
        rows = steps * n
        return Record(
            obs=np.zeros((steps, n, self.policy.observation_size), np.uint8),
            hidden=np.zeros((rows, self.encoder.width), self.real),
            inputs=np.zeros((rows, INPUTS), self.real),
            last=np.zeros((rows, self.size), self.real),
            out=np.zeros((steps, n, self.outputs), np.float32),
            d_out=np.zeros((steps, n, self.outputs), np.float32),
        )
