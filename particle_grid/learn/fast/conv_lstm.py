"""`ConvLSTM` on a CPU: the same function of the same parameters, several times faster.

* Windows are one-hot, so the first convolution adds one row of a table per cell that is not empty. Most cells are.
* Everything between the second convolution and the gates is linear: its bias, the linear layer and the LSTM's input
  weights are composed into one matrix. Together with the bias and the recurrent weights, a step is *one* product of
  [convolved 32 | features 7 | 1 | h] with [.., 4 hidden].
* Ordinary torch code with autograd composes the parameters. The hand-written backward pass returns the gradients of the
  composed matrices, and autograd passes them on to the parameters, which stay in the module.
* Products may run in bf16, which is twice as fast on processors that support it. Cell state, heads, values and sums of
  gradients stay float32.
* All steps of a chunk of agents are one compiled call, while their data is in the cache.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from particle_grid.learn.fast.convolution import Convolution, FastEncoder, convolve, convolve_back
from particle_grid.learn.fast.lstm import join, step, step_back
from particle_grid.learn.fast.network import FastNetwork, gather, real, words
from particle_grid.learn.fast.products import add_transposed_product, pack, product
from particle_grid.learn.policy import CHANNELS, FEATURES, ConvLSTM
from particle_grid.support.jit import math_kernel

INPUTS = CHANNELS + FEATURES + 1


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
    joint: np.ndarray  # real[T, n, 40 + H] the inputs of the steps' products
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


class FastConvLSTM(FastNetwork):
    """Computes a `ConvLSTM` whose first convolution covers the window without padding."""

    policy: ConvLSTM
    run_forward = staticmethod(forward)
    run_backward = staticmethod(backward)

    def __init__(self, policy: ConvLSTM, dtype: torch.dtype, threads: int) -> None:
        self.encoder = FastEncoder(policy.encoder)
        super().__init__(policy, dtype, threads)

    def compose(self) -> tuple[Tensor, ...]:
        """Return the composed matrices.

        These are the matrices of the encoder, joint f32[40 + H, 4 H], heads f32[K + 1, H] and bias f32[K + 1].
        """
        policy = self.policy
        lstm = policy.lstm
        conv2_bias = policy.encoder.conv2.bias
        assert conv2_bias is not None
        shift = policy.linear.weight[:, :CHANNELS] @ conv2_bias + policy.linear.bias
        into = lstm.weight_ih @ torch.cat([policy.linear.weight, shift[:, None]], 1)  # [4 hidden, 40]
        bias = F.pad((lstm.bias_ih + lstm.bias_hh)[:, None], (INPUTS - 1, 0))
        unused = self.padded - policy.hidden
        joint = torch.cat([into + bias, lstm.weight_hh], 1)  # [4 hidden, 40 + hidden]
        if unused:
            joint = F.pad(joint.unflatten(0, (4, -1)), (0, unused, 0, unused)).flatten(0, 1)
        heads = F.pad(torch.cat([policy.actor.weight, policy.critic.weight]), (0, unused))
        return *self.encoder.compose(), joint.t(), heads, torch.cat([policy.actor.bias, policy.critic.bias])

    def pack(self, composed: Sequence[Tensor]) -> Weights:
        """Return the arrays that the kernels read."""
        joint, heads, bias = composed[3:]
        return Weights(
            self.encoder.pack(composed[:3], self.dtype),
            words(joint, self.dtype),
            words(joint[:CHANNELS].t(), self.dtype),
            words(joint[INPUTS:].t(), self.dtype),
            heads.contiguous().numpy(),
            bias.numpy(),
        )

    def allocate(self, steps: int, n: int) -> Record:
        """Return a record."""
        number = real(self.dtype)
        rows = steps * n
        return Record(
            obs=np.zeros((steps, n, self.policy.observation_size), np.uint8),
            starts=np.zeros((steps, n), np.bool_),
            hidden=np.zeros((rows, self.encoder.patches * CHANNELS), number),
            x=np.zeros((rows, CHANNELS), np.float32),
            joint=np.zeros((steps, n, INPUTS + self.padded), number),
            preactivations=np.zeros((n, 4 * self.padded), np.float32),
            gates=np.zeros((steps, n, 4 * self.padded), number),
            c=np.zeros((steps + 1, n, self.padded), np.float32),
            h=np.zeros((n, self.padded), np.float32),
            out=np.zeros((steps, n, self.outputs), np.float32),
            d_out=np.zeros((steps, n, self.outputs), np.float32),
            d_h=np.zeros((n, self.padded), np.float32),
            d_c=np.zeros((n, self.padded), np.float32),
            d_x=np.zeros((rows, CHANNELS), number),
        )

    def state_after(self, record: Record) -> tuple[np.ndarray, ...]:
        """Return h and c after the last step."""
        return record.h, record.c[-1]
