"""`ConvLSTM` on a CPU: the same function of the same parameters, several times faster.

* Windows are one-hot, so the first convolution adds one row of a table per cell that is not empty. Most cells are.
* Everything between the second convolution and the gates is linear: its bias, the linear layer and the LSTM's input
  weights are composed into one matrix. Together with the bias and the recurrent weights, a step is *one* product of
  [convolved 32 | features 7 | 1 | zeros | h] with [.., 4 hidden].
* Ordinary torch code with autograd composes the parameters. The hand-written backward pass returns the gradients of the
  composed matrices, and autograd passes them on to the parameters, which stay in the module.
* Products may run in bf16, which is at least twice as fast on processors that support it. Cell state, heads, values
  and sums of gradients stay float32.
* Agents pass through the network in chunks of fixed size, which threads process in any order. Sums are made in the
  order of the chunks, so the result does not depend on the number of threads. Each chunk is computed step by step
  through time, while its data is in the cache. Large buffers are allocated once.
"""

import numpy as np
import torch
from torch import Tensor

from particle_grid.learn.fast import kernels
from particle_grid.learn.policy import CELLS, CHANNELS, FEATURES, ConvLSTM, RecurrentState
from particle_grid.support.errors import UserError, UserRuntimeError
from particle_grid.support.jit import Pool

ACTING_CHUNK = 2048  # agents in a chunk when acting, times the bytes of a number
SMALLEST_CHUNK = 128  # agents in a chunk when learning: a quarter of all, within these bounds
LARGEST_CHUNK = 512
TILE = 32  # depth of AMX tiles: rows are padded to a multiple, or rounding would depend on the number of rows

Chunk = tuple[int, int, int]  # its number, its first agent, and the end of its agents


def places(side: int, kernel: int, stride: int) -> np.ndarray:
    """Return the table i64[side * side, 9] of patches that `kernels.convolve` uses.

    For each cell: the number of patches that contain it, and for each of these where the patch starts in a row of
    outputs, and where the cell's position in the patch starts in the table of weights.
    """
    patches = (side - kernel) // stride + 1
    result = np.zeros((side * side, 9), np.int64)
    for patch in range(patches * patches):
        for position in range(kernel * kernel):
            row = patch // patches * stride + position // kernel
            column = patch % patches * stride + position % kernel
            place = result[row * side + column]
            place[1 + 2 * place[0] : 3 + 2 * place[0]] = patch * CHANNELS, position * CELLS * CHANNELS
            place[0] += 1
    return result


def compose(policy: ConvLSTM, patches: int, pad: int) -> tuple[Tensor, ...]:
    """Return the parameters in the form that the kernels use.

    These are base f32[patches * 32], table f32[25, 7, 32], conv f32[patches * 32, 32],
    joint f32[39 + 1 + pad + H, 4 H], heads f32[K + 1, H] and bias f32[K + 1].
    """
    conv1 = policy.encoder.conv1
    conv2 = policy.encoder.conv2
    linear = policy.linear
    lstm = policy.lstm
    assert conv1.bias is not None
    assert conv2.bias is not None
    table = conv1.weight.permute(2, 3, 1, 0).flatten(0, 1)  # [32, 7, 5, 5] -> [25, 7, 32]
    empty = table[:, :1]
    conv = conv2.weight.permute(2, 3, 1, 0).flatten(0, 2)  # [32, 32, p, p] -> [p * p * 32, 32]
    shift = linear.weight[:, :CHANNELS] @ conv2.bias + linear.bias
    gates = lstm.weight_ih @ shift + lstm.bias_ih + lstm.bias_hh
    into = (lstm.weight_ih @ linear.weight).t()
    joint = torch.cat([into, gates[None], into.new_zeros(pad, len(gates)), lstm.weight_hh.t()])
    heads = torch.cat([policy.actor.weight, policy.critic.weight])
    bias = torch.cat([policy.actor.bias, policy.critic.bias])
    base = (conv1.bias + empty.sum((0, 1))).repeat(patches)
    return base, table - empty, conv, joint, heads, bias


def memory(tensor: Tensor) -> np.ndarray:
    """Return a tensor as an array that shares its memory, with bf16 as uint16."""
    return (tensor.view(torch.uint16) if tensor.dtype == torch.bfloat16 else tensor).detach().numpy()


def start_worker() -> None:
    """Keep torch to one thread in each worker, where more threads per product would compete with other workers."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)  # vanishing gradients become denormal, which is slow


class Record:
    """What the backward pass needs of n agents over T steps.

    Attributes:
        hidden, joint, gates: as in `kernels`, in rows [T * n, ...].
        x: the second convolution, in such rows.
        d_hidden: the gradient of hidden.
        c: the cell state after each step, f32[T, n, H].
    """

    def __init__(self, steps: int, n: int, widths: tuple[int, int, int, int], dtype: torch.dtype) -> None:
        rows = [torch.zeros(steps * n, width, dtype=dtype) for width in widths]
        self.hidden = rows[0]
        self.joint = rows[1]
        self.gates = rows[2]
        self.x = rows[3]
        self.d_hidden = torch.zeros_like(self.hidden)
        self.c = np.zeros((steps, n, widths[2] // 4), np.float32)


class FastConvLSTM:
    """Computes a `ConvLSTM`, and is called like it.

    Between a call with gradients and its backward pass there must be no other call. Torch itself is set to one thread,
    because OpenMP's threads keep the cores busy for milliseconds after each operation.

    Args:
        policy: its first convolution must cover the window without padding.
        dtype: of the products, float32 or bfloat16.
        threads: the number of threads.
    """

    def __init__(self, policy: ConvLSTM, dtype: torch.dtype, threads: int) -> None:
        self.policy = policy
        self.dtype = dtype
        self.threads = threads
        self.size = policy.hidden
        conv1 = policy.encoder.conv1
        self.places = places(policy.side, conv1.kernel_size[0], conv1.stride[0])
        self.cells = policy.side**2
        depth = CHANNELS + FEATURES + 1 + self.size
        self.pad = -depth % TILE if dtype == torch.bfloat16 and torch.cpu._is_amx_tile_supported() else 0
        self.patches = int(self.places[:, 1::2].max()) // CHANNELS + 1
        self.widths = self.patches * CHANNELS, depth + self.pad, 4 * self.size, CHANNELS
        torch.set_num_threads(1)
        self.pool = Pool(threads, start_worker)
        self.composed = [x.new_full((), torch.nan) for x in policy.parameters()]  # weights used by `_prepare`; none yet
        self.records: dict[tuple[int, int, int], Record] = {}
        self.chunks: list[Chunk] = []
        self.passes = 0

    def __call__(self, obs: Tensor, starts: Tensor, state: RecurrentState) -> tuple[Tensor, Tensor, RecurrentState]:
        """Return outputs, values and the next recurrent state, see `particle_grid.learn.policy`."""
        if torch.is_grad_enabled():
            out, h, c = _Pass.apply(self, obs, starts, state, *self._prepare())
        else:
            # The composed weights serve many steps, until the parameters change. Version counters would not tell when:
            # fused optimisers do not increase them.
            if not all(map(torch.equal, self.composed, self.policy.parameters())):
                self._prepare()
            out, h, c = self.forward(obs, starts, state, learning=False)
        return out[..., :-1], out[..., -1], (h, c)

    def _prepare(self) -> tuple[Tensor, ...]:
        """Compose the parameters, lay them out for the kernels, and return them."""
        self.composed = [x.detach().clone() for x in self.policy.parameters()]
        composed = compose(self.policy, self.patches, self.pad)
        base, table, conv, joint, heads, bias = map(Tensor.detach, composed)
        self.base = base.contiguous().numpy()
        self.table = table.flatten().contiguous().numpy()
        self.heads = heads.contiguous().numpy()
        self.bias = bias.contiguous().numpy()
        self.conv = conv.to(self.dtype).contiguous()
        self.joint = joint.to(self.dtype)
        return composed

    def forward(
        self, obs: Tensor, starts: Tensor, state: RecurrentState, learning: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return out f32[T, N, K + 1], of actor and critic, and h and c after the last step."""
        steps, n = obs.shape[:2]
        h, c = state
        self._check(steps, n, obs, starts, h, c)
        self.passes += 1
        out = torch.empty(steps, n, len(self.bias))
        h_new = torch.empty_like(h)
        c_new = torch.empty_like(c)
        self.inputs = tuple(x.detach().contiguous().numpy() for x in (obs, starts, h[None], c[None]))
        arrays = [x.numpy() for x in (out, h_new, c_new)]
        size = self._chunk_size(n) if learning else ACTING_CHUNK // self.dtype.itemsize
        self.chunks = [(k, first, min(first + size, n)) for k, first in enumerate(range(0, n, size))]
        list(self.pool.map(lambda chunk: self._forward(chunk, *arrays), self.chunks))
        return out, h_new, c_new

    @staticmethod
    def _chunk_size(n: int) -> int:
        """Return how many of n agents to learn from in a chunk."""
        return min(max(n // 4, SMALLEST_CHUNK), LARGEST_CHUNK)

    def _check(self, steps: int, n: int, *inputs: Tensor) -> None:
        """Raise UserError for inputs of another shape or dtype: the kernels do not check bounds."""
        memory = ((n, self.size), torch.float32)
        expected = [((steps, n, self.policy.observation_size), torch.uint8), ((steps, n), torch.bool), memory, memory]
        given = [(x.shape, x.dtype) for x in inputs]
        if given != expected:
            raise UserError(f"The fast network takes (obs, starts, h, c) as {expected}, not as {given}: change them.")

    def _record(self, k: int, steps: int, n: int) -> Record:
        """Return the record of chunk k, which is allocated once for each shape."""
        key = (k, steps, n)
        if key not in self.records:
            self.records[key] = Record(steps, n, self.widths, self.dtype)
        return self.records[key]

    @torch.no_grad()
    def _forward(self, chunk: Chunk, out: np.ndarray, h: np.ndarray, c: np.ndarray) -> None:
        """Compute all steps of the agents of a chunk, and write their part of the results."""
        k, first, end = chunk
        obs = self.inputs[0][:, first:end]
        starts = self.inputs[1][:, first:end]
        h0 = self.inputs[2][0, first:end]
        c0 = self.inputs[3][0, first:end]
        out = out[:, first:end]
        h = h[first:end]
        steps = len(obs)
        n = end - first
        record = self._record(k, steps, n)
        kernels.convolve(obs, self.places, self.base, self.table, memory(record.hidden))
        torch.mm(record.hidden, self.conv, out=record.x)
        x = memory(record.x).reshape(steps, n, -1)
        joint = memory(record.joint).reshape(steps, n, -1)
        gates = memory(record.gates).reshape(steps, n, -1)
        for t in range(steps):
            rows = slice(t * n, (t + 1) * n)
            kernels.join(x[t], obs[t], self.cells, h if t else h0, starts[t], joint[t])
            torch.mm(record.joint[rows], self.joint, out=record.gates[rows])
            c_before = record.c[t - 1] if t else c0
            kernels.step(gates[t], c_before, starts[t], self.heads, self.bias, record.c[t], h, out[t])
        c[first:end] = record.c[-1]

    def backward(self, d_out: Tensor) -> list[Tensor]:
        """Return the gradients of the composed parameters, given that of the last call's out, f32[T, N, K + 1]."""
        d_out_array = d_out.contiguous().numpy()
        parts = list(self.pool.map(lambda chunk: self._backward(chunk, d_out_array), self.chunks))
        return [torch.stack(part).sum(0) for part in zip(*parts, strict=True)]

    @torch.no_grad()
    def _backward(self, chunk: Chunk, d_out: np.ndarray) -> tuple[Tensor, ...]:
        """Return the part of the gradients that a chunk contributes."""
        k, first, end = chunk
        obs = self.inputs[0][:, first:end]
        record = self._record(k, len(obs), end - first)
        d_base = np.zeros_like(self.base)
        d_table = np.zeros_like(self.table)
        d_heads = np.zeros_like(self.heads)
        d_bias = np.zeros_like(self.bias)
        self._backward_steps(chunk, record, d_out[:, first:end], d_heads, d_bias)
        d_joint = torch.mm(record.joint.t(), record.gates)
        torch.mm(record.gates, self.joint[:CHANNELS].t(), out=record.x)
        d_conv = torch.mm(record.hidden.t(), record.x)
        d_hidden = torch.mm(record.x, self.conv.t(), out=record.d_hidden)
        kernels.convolve_back(obs, self.places, memory(record.hidden), memory(d_hidden), d_base, d_table)
        return (
            torch.from_numpy(d_base),
            torch.from_numpy(d_table).view(-1, CELLS, CHANNELS),
            d_conv.float(),
            d_joint.float(),
            torch.from_numpy(d_heads),
            torch.from_numpy(d_bias),
        )

    def _backward_steps(
        self, chunk: Chunk, record: Record, d_out: np.ndarray, d_heads: np.ndarray, d_bias: np.ndarray
    ) -> None:
        """Replace the gates of a chunk by their gradients, from last step to first, and add to d_heads and d_bias."""
        _, first, end = chunk
        starts = self.inputs[1][:, first:end]
        c0 = self.inputs[3][0, first:end]
        steps, n = starts.shape
        d_h = torch.zeros(n, self.size, dtype=self.dtype)
        d_c = np.zeros_like(c0)
        gates = memory(record.gates).reshape(steps, n, -1)
        recurrent = self.joint[-self.size :].t()
        starts_next = np.zeros(n, bool)  # whether an episode starts in the next step
        for t in range(steps - 1, -1, -1):
            c_before = record.c[t - 1] if t else c0
            state = (gates[t], c_before, starts[t], record.c[t])
            kernels.step_back(*state, d_out[t], self.heads, memory(d_h), starts_next, d_c, d_heads, d_bias)
            starts_next = starts[t]
            if t:
                torch.mm(record.gates[t * n : (t + 1) * n], recurrent, out=d_h)


class _Pass(torch.autograd.Function):
    """The network as one differentiable operation on its composed parameters."""

    @staticmethod
    def forward(ctx, net, obs, starts, state, *composed):  # type: ignore[no-untyped-def]
        out, h, c = net.forward(obs, starts, state, learning=True)
        ctx.net = net
        ctx.number = net.passes
        ctx.mark_non_differentiable(h, c)
        return out, h, c

    @staticmethod
    def backward(ctx, d_out, *_):  # type: ignore[no-untyped-def]
        if ctx.number != ctx.net.passes:
            raise UserRuntimeError(
                "The fast network was called again before this backward pass: run each backward pass right after its "
                "call."
            )
        return *[None] * 4, *ctx.net.backward(d_out)
