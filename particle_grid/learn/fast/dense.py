"""Linear layers with ReLU, and actor and critic after the last: what `Conv` and `MLP` have in common.

Activations are stored once, after the ReLU. Where they are 0, the gradient before the ReLU is 0.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from torch import Tensor, nn

from particle_grid.learn.fast.kernels.products import (
    MULTIPLE_ROWS,
    add_transposed_product,
    apply_heads,
    pack,
    pack_words,
    product,
    transpose,
    unpack,
)
from particle_grid.learn.fast.network import FastNetwork, up
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


class TopParameters(NamedTuple):
    """The parameters of the last layer and of the heads, or their gradients, for a policy of U units."""

    linear: np.ndarray  # f32[U, at most D]
    actor: np.ndarray  # f32[K, U]
    critic: np.ndarray  # f32[1, U]
    linear_bias: np.ndarray  # f32[U]
    actor_bias: np.ndarray  # f32[K]
    critic_bias: np.ndarray  # f32[1]


@math_kernel
def compose_top(p, depth, top):
    """Compute the weights from the parameters of the last layer and of the heads.

    Args:
        p: the parameters.
        depth: D.
        top: the weights, with zeros where p has nothing.
    """
    units, inputs = p.linear.shape
    rows = np.zeros((depth, len(top.shift)), np.float32)
    transpose(p.linear, rows)
    pack_words(rows, top.linear)
    back = np.zeros((len(top.shift), top.linear_back.shape[1]), np.float32)
    first = min(inputs, back.shape[1])
    back[:units, :first] = p.linear[:, :first]
    pack_words(back, top.linear_back)
    top.shift[:units] = p.linear_bias
    outputs = len(p.actor)
    top.heads[:outputs, :units] = p.actor
    top.heads[outputs, :units] = p.critic[0]
    top.bias[:outputs] = p.actor_bias
    top.bias[outputs] = p.critic_bias[0]


@math_kernel
def compose_top_back(d_linear, d_shift, d_heads, d_bias, d):
    """Write the gradients of the parameters to d."""
    units, inputs = d.linear.shape
    transpose(d_linear[:inputs, :units], d.linear)
    d.linear_bias[:] = d_shift[:units]
    outputs = len(d.actor)
    d.actor[:] = d_heads[:outputs, :units]
    d.critic[0] = d_heads[outputs, :units]
    d.actor_bias[:] = d_bias[:outputs]
    d.critic_bias[0] = d_bias[outputs]


class FastTop:
    """Describes the last layer and the heads.

    Args:
        network: the network that they belong to.
        depth: D.
        first: C, the number of inputs that need gradients.
    """

    def __init__(self, network: FastNetwork, depth: int, first: int) -> None:
        self.network = network
        self.depth = depth
        self.first = first
        size = network.size
        heads = up(network.outputs, MULTIPLE_ROWS)
        #: Shapes of the sums of gradients: linear, shift, heads and bias.
        self.shapes = (depth, size), (size,), (heads, size), (network.outputs,)

    def compose(self, arrays: dict[str, np.ndarray]) -> Top:
        """Return the weights for parameters of these names."""
        words = self.network.words
        shift, heads, bias = (np.zeros(shape, np.float32) for shape in self.shapes[1:])
        top = Top(words(self.depth, len(shift)), words(len(shift), self.first), shift, heads, bias)
        compose_top(parameters_of(arrays), self.depth, top)
        return top

    def compose_back(self, sums: Sequence[np.ndarray], gradients: dict[str, np.ndarray]) -> None:
        """Write the gradients of the parameters, given those of linear, shift, heads and bias."""
        compose_top_back(*sums, parameters_of(gradients))


def parameters_of(arrays: dict[str, np.ndarray]) -> TopParameters:
    """Return the parameters of the last layer and of the heads among others."""
    return TopParameters(*(arrays[name] for name in TopParameters._fields))


def top_parameters(policy: Policy, linear: nn.Linear) -> dict[str, Tensor]:
    """Return the parameters of the last layer and of the heads, by their names in `TopParameters`."""
    layers = {"linear": linear, "actor": policy.actor, "critic": policy.critic}
    return {name: x.weight for name, x in layers.items()} | {f"{name}_bias": x.bias for name, x in layers.items()}
