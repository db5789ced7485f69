"""`ConvLSTM` with `torch.mm` for matrix multiplications, where that is the fastest.

This is so for bf16 on processors with AMX, whose instructions the tiles do not use, and on those without any
instructions for bf16. It needs larger chunks of agents, because `torch.mm` is slow for few rows.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from particle_grid.learn.fast.conv_lstm import FastConvLSTM, Record, Weights
from particle_grid.learn.fast.kernels.columns import gather, scatter
from particle_grid.learn.fast.kernels.lstm import INPUTS, join, step, step_back
from particle_grid.learn.fast.kernels.one_hot import encode, encode_back
from particle_grid.learn.fast.kernels.tiles import HAS_AMX
from particle_grid.learn.fast.network import up
from particle_grid.learn.policy import CHANNELS, ConvLSTM
from particle_grid.support.jit import Pool

ACTING_CHUNK = 2048  # agents, times the bytes of a number
SMALLEST_CHUNK = 128  # agents when learning: a quarter of all, within these bounds
LARGEST_CHUNK = 512
DEPTH = 32  # of AMX tiles: rows are padded to a multiple, or rounding would depend on the number of rows


class TorchWeights(NamedTuple):
    """The weights, and two of their matrices for `torch.mm`, in float32 or bf16."""

    kernels: Weights
    conv: Tensor  # [patches * 32, 32]
    joint: Tensor  # [40 + padding + H, 4 H]


def tensor(x: np.ndarray) -> Tensor:
    """Return an array real[...] as a tensor that shares its memory."""
    result = torch.from_numpy(x)
    return result.view(torch.bfloat16) if x.dtype == np.uint16 else result


def matrix(words: np.ndarray) -> Tensor:
    """Return a matrix in words as a tensor."""
    if words.dtype == np.float32:
        return torch.from_numpy(words)
    pairs = words.view(np.uint16).reshape(*words.shape, 2)  # [K / 2, n, 2]
    return tensor(pairs.transpose(0, 2, 1).reshape(-1, words.shape[1]))  # [K, n]


def start_worker() -> None:
    """Keep torch to one thread in each worker, because more threads would compete with other workers."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)  # vanishing gradients become denormal, which is slow


def forward(
    obs: np.ndarray, starts: np.ndarray, h: np.ndarray, c: np.ndarray, agents: np.ndarray, weights: TorchWeights,
    record: Record,
) -> None:  # fmt: skip
    """Compute all steps of the agents with these numbers."""
    n = len(agents)
    size = h.shape[1]
    gather(obs, agents, record.obs)
    record.starts[:, :n] = starts[:, agents]
    record.h[:] = 0  # also in the padding, where a NaN of an earlier pass would stay
    record.h[:n, :size] = h[agents]
    record.c[0, :n, :size] = c[agents]
    kernels = weights.kernels
    encoder = kernels.encoder
    rows = record.obs.reshape(-1, obs.shape[2])
    encode(rows, encoder.places, encoder.base, encoder.table, encoder.dense, record.hidden)
    torch.mm(tensor(record.hidden), weights.conv, out=tensor(record.d_x))
    x = record.d_x.reshape(*record.starts.shape, -1)
    for t in range(len(starts)):
        gates = record.gates[t]
        join(x[t], record.obs[t], len(encoder.places), record.h, record.starts[t], record.joint[t])
        torch.mm(tensor(record.joint[t]), weights.joint, out=tensor(gates))
        state = (gates, record.c[t], record.starts[t])
        step(*state, kernels.heads, kernels.bias, gates, record.c[t + 1], record.h, record.out[t])


def act(
    inputs: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray], first: int, end: int, weights: TorchWeights,
    record: Record, wholes: tuple[np.ndarray, ...],
) -> None:  # fmt: skip
    """Compute all steps of the agents from first to end, and copy outputs and the next state to `wholes`."""
    obs, starts, h, c = inputs
    size = len(record.h)
    for start in range(first, end, size):
        agents = np.arange(start, min(start + size, end))
        forward(obs, starts, h, c, agents, weights, record)
        scatter((record.out, record.h[None], record.c[-1:]), agents, wholes)


def backward_steps(weights: TorchWeights, record: Record, d_heads: np.ndarray, d_bias: np.ndarray) -> None:
    """Replace the gates by their gradients, from the last step to the first, and add to d_heads and d_bias."""
    heads = weights.kernels.heads
    starts_next = np.zeros_like(record.starts[0])
    recurrent = weights.joint[-record.h.shape[1] :].t()
    record.d_h[:] = 0
    record.d_c[:] = 0
    for t in reversed(range(len(record.starts))):
        state = (record.gates[t], record.c[t], record.starts[t], record.c[t + 1])
        step_back(*state, record.d_out[t], heads, record.d_h, starts_next, record.d_c, d_heads, d_bias)
        starts_next = record.starts[t]
        if t:
            torch.mm(tensor(record.gates[t]), recurrent, out=tensor(record.d_h))


def backward(weights: TorchWeights, record: Record, gradients: tuple[np.ndarray, ...]) -> None:
    """Add the gradients of the composed matrices, given record.d_out."""
    d_base, d_table, d_conv, d_joint, d_heads, d_bias = gradients
    backward_steps(weights, record, d_heads, d_bias)
    gates = tensor(record.gates).flatten(0, 1)
    joint = torch.mm(tensor(record.joint).flatten(0, 1).t(), gates).float().numpy()
    d_joint[:INPUTS] += joint[:INPUTS]
    d_joint[INPUTS:] += joint[INPUTS - len(d_joint) :]
    d_x = torch.mm(gates, weights.joint[:CHANNELS].t(), out=tensor(record.d_x))
    hidden = tensor(record.hidden)
    d_conv += torch.mm(hidden.t(), d_x).float().numpy()
    d_hidden = np.empty_like(record.hidden)
    torch.mm(d_x, weights.conv.t(), out=tensor(d_hidden))
    encoder = weights.kernels.encoder
    d_dense = np.empty_like(encoder.dense)
    rows = record.obs.reshape(-1, record.obs.shape[2])
    encode_back(rows, encoder.places, record.hidden, d_hidden, d_base, d_table, d_dense)


class TorchConvLSTM(FastConvLSTM):
    """Computes a `ConvLSTM` as `FastConvLSTM` does, but multiplies matrices in torch."""

    run_forward = staticmethod(forward)
    run_backward = staticmethod(backward)
    run_act = staticmethod(act)

    def __init__(self, policy: ConvLSTM, dtype: torch.dtype, threads: int) -> None:
        super().__init__(policy, dtype, threads)
        self.pool = Pool(threads, start_worker)
        depth = INPUTS + self.size
        padded = up(depth, DEPTH) if dtype == torch.bfloat16 and HAS_AMX else depth
        self.padding = padded - depth  # rows of `joint`, between the inputs and h

    def chunk_size(self, n: int, learning: bool) -> int:
        """Return how many of n agents are computed together."""
        return min(max(n // 4, SMALLEST_CHUNK), LARGEST_CHUNK) if learning else ACTING_CHUNK // self.dtype.itemsize

    def compose(self, arrays: dict[str, np.ndarray]) -> TorchWeights:
        """Return the weights."""
        weights = super().compose(arrays)
        joint = matrix(weights.joint)
        parts = [joint[:INPUTS], joint.new_zeros(self.padding, joint.shape[1]), joint[INPUTS:]]
        return TorchWeights(weights, matrix(weights.encoder.conv), torch.cat(parts))

    def allocate(self, steps: int, n: int) -> Record:
        """Return a record whose rows are padded, and whose gradient of h is like its other multiplied matrices."""
        joint = np.zeros((steps, n, INPUTS + self.padding + self.size), self.real)
        return super().allocate(steps, n)._replace(joint=joint, d_h=np.zeros((n, self.size), self.real))
