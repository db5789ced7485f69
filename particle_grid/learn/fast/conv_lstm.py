"""`ConvLSTM` on a CPU: the same function of the same parameters, several times faster.

* Windows are one-hot, so the first convolution adds one row of a table per cell that is not empty. Most cells are.
* Everything between the second convolution and the gates is linear: its bias, the linear layer and the LSTM's input
  weights are composed into one matrix. Together with the bias and the recurrent weights, a step is *one* matrix
  multiplication of [convolved 32 | features 7 | 1 | h] by [.., 4 hidden].
* Matrices may be multiplied in bf16, which is twice as fast on processors that support it. Cell state, heads, values
  and sums of gradients stay float32.
* All steps of a chunk of agents are one compiled call, while their data is in the cache.
"""

from typing import Any, NamedTuple

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
from particle_grid.learn.fast.dense import top_parameters
from particle_grid.learn.fast.kernels.columns import gather, scatter
from particle_grid.learn.fast.kernels.lstm import (
    INPUTS,
    WIDTH,
    GateParameters,
    compose_gates,
    compose_gates_back,
    join,
    step,
    step_back,
)
from particle_grid.learn.fast.kernels.products import add_transposed_product, pack, product
from particle_grid.learn.fast.network import FastNetwork
from particle_grid.learn.policy import CHANNELS, FEATURES, ConvLSTM
from particle_grid.support.jit import math_kernel


class Weights(NamedTuple):
    """What the kernels read. H is the number of units, rounded up to a multiple of 32."""

    encoder: Convolution
    joint: np.ndarray  # words[40 + H, 4 H]
    inputs_back: np.ndarray  # words[4 H, 32]
    recurrent_back: np.ndarray  # words[4 H, H]
    heads: np.ndarray  # f32[K + 1, H]
    bias: np.ndarray  # f32[K + 1]


class Record(NamedTuple):
    """What the kernels write for n agents over T steps. Rows are in the order [T, n]."""

    obs: np.ndarray  # u8[T, n, observation size]
    starts: np.ndarray  # bool[T, n]
    hidden: np.ndarray  # real[T * n, patches * 32] the first convolution
    x: np.ndarray  # f32[T * n, 32] the second convolution
    joint: np.ndarray  # real[T, n, 40 + H] the inputs of the steps' matrix multiplications
    preactivations: np.ndarray  # f32[n, 4 H] of a step
    gates: np.ndarray  # real[T, n, 4 H] activated; after the backward pass their gradients
    c: np.ndarray  # f32[T + 1, n, H] the cell state before each step, and after the last
    h: np.ndarray  # f32[n, H] the hidden state before a step
    out: np.ndarray  # f32[T, n, K + 1] of actor and critic
    d_out: np.ndarray  # f32[T, n, K + 1] its gradient
    d_h: np.ndarray  # f32[n, H]
    d_c: np.ndarray  # f32[n, H]
    d_x: np.ndarray  # real[T * n, 32]


@math_kernel
def forward(obs, starts, h, c, agents, weights, record):
    """Compute all steps of the agents with these numbers."""
    steps, n = record.starts.shape
    gather(obs, agents, record.obs)
    record.h[:] = 0  # also in the padding, where a NaN of an earlier pass would stay
    for k in range(len(agents)):
        agent = agents[k]
        for t in range(steps):
            record.starts[t, k] = starts[t, agent]
        for j in range(h.shape[1]):
            record.h[k, j] = h[agent, j]
            record.c[0, k, j] = c[agent, j]
    rows = record.obs.reshape(steps * n, obs.shape[2])
    convolve(rows, weights.encoder, record.hidden, record.x)
    x = record.x.reshape(steps, n, record.x.shape[1])
    for t in range(steps):
        join(x[t], record.obs[t], len(weights.encoder.places), record.h, record.starts[t], record.joint[t])
        product(record.joint[t], weights.joint, record.preactivations)
        step(
            record.preactivations, record.c[t], record.starts[t], weights.heads, weights.bias,
            record.gates[t], record.c[t + 1], record.h, record.out[t],
        )  # fmt: skip


@math_kernel
def act(inputs, first, end, weights, record, wholes):
    """Compute all steps of the agents from first to end, and copy outputs and the next state to `wholes`."""
    size = len(record.h)
    for start in range(first, end, size):
        agents = np.arange(start, min(start + size, end))
        forward(*inputs, agents, weights, record)
        h = record.h.reshape((1, size, record.h.shape[1]))
        scatter((record.out, h, record.c[len(record.starts) :]), agents, wholes)


@math_kernel
def backward_steps(weights, record, d_heads, d_bias):
    """Replace the gates by their gradients, from the last step to the first, and add to d_heads and d_bias."""
    steps, n = record.starts.shape
    starts_next = np.zeros(n, np.bool_)
    record.d_h[:] = 0
    record.d_c[:] = 0
    for t in range(steps - 1, -1, -1):
        step_back(
            record.gates[t], record.c[t], record.starts[t], record.c[t + 1], record.d_out[t], weights.heads,
            record.d_h, starts_next, record.d_c, d_heads, d_bias,
        )  # fmt: skip
        starts_next = record.starts[t]
        if t:
            product(record.gates[t], weights.recurrent_back, record.d_h)


@math_kernel
def backward(weights, record, gradients):
    """Add the gradients of the composed matrices, given record.d_out."""
    d_base, d_table, d_conv, d_joint, d_heads, d_bias = gradients
    backward_steps(weights, record, d_heads, d_bias)
    steps, n = record.starts.shape
    gates = record.gates.reshape(steps * n, record.gates.shape[2])
    add_transposed_product(record.joint.reshape(steps * n, record.joint.shape[2]), gates, d_joint)
    product(gates, weights.inputs_back, record.x)
    for row in range(len(record.x)):
        pack(record.x[row], record.d_x[row])
    rows = record.obs.reshape(steps * n, record.obs.shape[2])
    convolve_back(rows, weights.encoder, record.hidden, record.d_x, d_base, d_table, d_conv)


def gates_of(arrays: dict[str, np.ndarray]) -> GateParameters:
    """Return the parameters of the gates among others."""
    return GateParameters(*(arrays[name] for name in GateParameters._fields))


class FastConvLSTM(FastNetwork):
    """Computes a `ConvLSTM` whose first convolution covers the window without padding."""

    policy: ConvLSTM
    run_forward = staticmethod(forward)
    run_backward = staticmethod(backward)
    run_act = staticmethod(act)

    def __init__(self, policy: ConvLSTM, dtype: torch.dtype, threads: int) -> None:
        super().__init__(policy, dtype, threads)
        self.encoder = FastEncoder(policy.encoder)
        self.left = np.zeros((self.size, WIDTH), np.float32)
        size = self.size
        #: Shapes of the parameters that depend on the number of units.
        self.padded_shapes = {
            "linear": (size, CHANNELS + FEATURES),
            "linear_bias": (size,),
            "actor": (self.outputs - 1, size),
            "critic": (1, size),
            "weight_ih": (4 * size, size),
            "weight_hh": (4 * size, size),
            "bias_ih": (4 * size,),
            "bias_hh": (4 * size,),
        }

    def named_parameters(self) -> dict[str, Tensor]:
        """Return the parameters by the names that the kernels use."""
        policy = self.policy
        gates = {name: getattr(policy.lstm, name) for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")}
        return encoder_parameters(policy.encoder) | top_parameters(policy, policy.linear) | gates

    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Return the shapes of the sums of gradients: base, table, conv, joint, heads and bias."""
        joint = (INPUTS + self.size, 4 * self.size)
        return *self.encoder.shapes, joint, (self.outputs, self.size), (self.outputs,)

    def compose(self, arrays: dict[str, np.ndarray]) -> Any:
        """Return the weights."""
        padded = self._padded(arrays)
        weights = Weights(
            encoder=self.encoder.compose(arrays, self.words),
            joint=self.words(INPUTS + self.size, 4 * self.size),
            inputs_back=self.words(4 * self.size, CHANNELS),
            recurrent_back=self.words(4 * self.size, self.size),
            heads=np.concatenate([padded["actor"], padded["critic"]]),
            bias=np.concatenate([arrays["actor_bias"], arrays["critic_bias"]]),
        )
        compose_gates(gates_of(padded), self.left, weights.joint, weights.inputs_back, weights.recurrent_back)
        return weights

    def compose_back(
        self, arrays: dict[str, np.ndarray], sums: tuple[np.ndarray, ...], gradients: dict[str, np.ndarray]
    ) -> None:
        """Write the gradients of the parameters."""
        *d_encoder, d_joint, d_heads, d_bias = sums
        self.encoder.compose_back(d_encoder, gradients)
        padded = self._padded(gradients)
        compose_gates_back(gates_of(self._padded(arrays)), self.left, d_joint, gates_of(padded))
        padded["actor"][:] = d_heads[:-1]
        padded["critic"][:] = d_heads[-1]
        gradients["actor_bias"][:] = d_bias[:-1]
        gradients["critic_bias"][:] = d_bias[-1]
        if padded is not gradients:
            for name in self.padded_shapes:
                gradients[name][...] = self._block(name, padded[name]).reshape(gradients[name].shape)

    def _padded(self, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return arrays of the parameters with zeros for the units that only kernels have."""
        if self.size == self.policy.hidden:
            return arrays
        result = dict(arrays)
        for name, shape in self.padded_shapes.items():
            result[name] = np.zeros(shape, np.float32)
            block = self._block(name, result[name])
            block[...] = arrays[name].reshape(block.shape)
        return result

    def _block(self, name: str, padded: np.ndarray) -> np.ndarray:
        """Return the part of a padded array that belongs to the policy's units."""
        hidden = self.policy.hidden
        if name.startswith("linear"):
            return padded[:hidden]
        if name in ("actor", "critic"):
            return padded[:, :hidden]
        if name.startswith("weight"):
            return padded.reshape(4, self.size, self.size)[:, :hidden, :hidden]
        return padded.reshape(4, self.size)[:, :hidden]

    def allocate(self, steps: int, n: int) -> Record:
        """Return a record."""
        rows = steps * n
        return Record(
            obs=np.zeros((steps, n, self.policy.observation_size), np.uint8),
            starts=np.zeros((steps, n), np.bool_),
            hidden=np.zeros((rows, self.encoder.width), self.real),
            x=np.zeros((rows, CHANNELS), np.float32),
            joint=np.zeros((steps, n, INPUTS + self.size), self.real),
            preactivations=np.zeros((n, 4 * self.size), np.float32),
            gates=np.zeros((steps, n, 4 * self.size), self.real),
            c=np.zeros((steps + 1, n, self.size), np.float32),
            h=np.zeros((n, self.size), np.float32),
            out=np.zeros((steps, n, self.outputs), np.float32),
            d_out=np.zeros((steps, n, self.outputs), np.float32),
            d_h=np.zeros((n, self.size), np.float32),
            d_c=np.zeros((n, self.size), np.float32),
            d_x=np.zeros((rows, CHANNELS), self.real),
        )

    def state_after(self, record: Record) -> tuple[np.ndarray, ...]:
        """Return h and c after the last step."""
        return record.h[None], record.c[-1:]
