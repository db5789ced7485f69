"""Linear layers with ReLU, and actor and critic after the last: what `Conv` and `MLP` have in common.

Activations are stored once, after the ReLU. Where they are 0, the gradient before the ReLU is 0.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from particle_grid.learn.fast.network import up, words
from particle_grid.learn.fast.products import (
    MULTIPLE_COLUMNS,
    MULTIPLE_ROWS,
    add_transposed_product,
    pack,
    product,
    unpack,
)
from particle_grid.learn.policy import Policy
from particle_grid.support.jit import math_kernel

BLOCK = 64  # rows that pass through all layers together
ZERO = np.float32(0)


class Top(NamedTuple):
    """What the kernels read.

    H is the number of units, rounded up to a multiple of 32. A is the number of outputs, rounded up to a multiple of 8.
    """

    linear: np.ndarray  # words[D, H]
    linear_back: np.ndarray  # words[H, C], for the first C of D inputs
    shift: np.ndarray  # f32[H]
    heads: np.ndarray  # f32[A, H]
    bias: np.ndarray  # f32[K + 1]


@math_kernel
def activate(x, shift, y):
    """Write ReLU(x + shift) to x f32[rows, n] and to y real[rows, n]."""
    for row in range(len(x)):
        values = x[row]
        for k in range(len(values)):
            values[k] = max(values[k] + shift[k], ZERO)
        pack(values, y[row])


@math_kernel
def activate_back(y, d_x, d_shift, d_rows):
    """Set d_x f32[rows, n] to 0 where y is, copy it to d_rows real[rows, n], and add the sum of rows to d_shift."""
    n = d_x.shape[1]
    out = np.empty(n, np.float32)
    for row in range(len(d_x)):
        values = d_x[row]
        unpack(y[row][:n], out)
        for k in range(n):
            values[k] = values[k] if out[k] > ZERO else ZERO
        for k in range(n):
            d_shift[k] += values[k]
        pack(values, d_rows[row])


@math_kernel
def apply_heads(hidden, heads, bias, out):
    """Write heads f32[>= A, H] @ hidden f32[H] + bias f32[A] to out f32[A]. For few outputs, products are slower."""
    for a in range(len(bias)):
        total = ZERO
        head = heads[a]
        for k in range(len(hidden)):
            total += head[k] * hidden[k]
        out[a] = total + bias[a]


@math_kernel
def decide(x, top, hidden, out):
    """Compute the last layer, hidden real[rows, H], and actor and critic, out f32[rows, K + 1], for x real[rows, D]."""
    values = np.empty(hidden.shape, np.float32)
    product(x, top.linear, values)
    activate(values, top.shift, hidden)
    for row in range(len(x)):
        apply_heads(values[row], top.heads, top.bias, out[row])


@math_kernel
def decide_back(x, top, hidden, d_out, d_linear, d_shift, d_heads, d_bias, d_x):
    """Add the gradients of `decide`, given d_out f32[rows, K + 1].

    The gradient of the first C inputs is written to d_x f32[rows, C].
    """
    d_results = np.zeros((len(x), len(top.heads)), np.float32)
    values = np.empty(hidden.shape, np.float32)
    d_hidden = np.empty(hidden.shape, np.float32)
    d_rows = np.empty_like(hidden)
    for row in range(len(x)):
        for k in range(d_out.shape[1]):
            d_results[row, k] = d_out[row, k]
            d_bias[k] += d_out[row, k]
        unpack(hidden[row], values[row])
    add_transposed_product(d_results, values, d_heads)
    product(d_results, top.heads, d_hidden)
    activate_back(hidden, d_hidden, d_shift, d_rows)
    add_transposed_product(x, d_rows, d_linear)
    product(d_rows, top.linear_back, d_x)


def compose_top(policy: Policy, weight: Tensor, bias: Tensor, inputs: int) -> tuple[Tensor, ...]:
    """Return linear f32[inputs, H], shift f32[H], heads f32[A, H] and bias f32[K + 1].

    Args:
        policy: the policy, for actor and critic.
        weight: f32[hidden, at most inputs] of the last layer.
        bias: f32[hidden].
        inputs: the rows of `linear`.
    """
    unused = up(policy.hidden, MULTIPLE_COLUMNS) - policy.hidden
    heads = torch.cat([policy.actor.weight, policy.critic.weight])
    return (
        F.pad(weight.t(), (0, unused, 0, inputs - weight.shape[1])),
        F.pad(bias, (0, unused)),
        F.pad(heads, (0, unused, 0, -len(heads) % MULTIPLE_ROWS)),
        torch.cat([policy.actor.bias, policy.critic.bias]),
    )


def pack_top(composed: Sequence[Tensor], first: int, dtype: torch.dtype) -> Top:
    """Return the arrays that the kernels read; gradients flow to the first so many inputs."""
    linear, shift, heads, bias = composed
    return Top(
        words(linear, dtype),
        words(linear[:first].t(), dtype),
        shift.numpy(),
        heads.contiguous().numpy(),
        bias.numpy(),
    )
