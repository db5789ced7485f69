"""`ConvLSTM` on a CPU: the same function of the same parameters, several times faster.

* Windows are one-hot, so the first convolution adds a row of a table for each cell that is not empty, and most are.
* Between the second convolution and the gates all is linear: its bias, the linear layer and the LSTM's input weights
  compose into one matrix. With the bias and the recurrent weights below it, a step is *one* product of
  [convolved 32 | features 7 | 1 | zeros | h] with [.., 4 hidden].
* Ordinary torch code with autograd composes the parameters. What is written by hand gives the gradients of the composed
  matrices, and autograd carries them on to the parameters, which stay with the module.
* Products may run in bf16, twice as fast or more where the processor has it. Cell state, heads, values and sums of
  gradients stay float32.
* Agents go through the network in chunks of fixed size, which threads take as they come. Sums are made in the order
  of the chunks, so the result is the same for any number of threads. A chunk goes step by step through time, while
  what it touches is in the cache, and large buffers are allocated once.
"""

import numpy as np
import torch
from torch import Tensor

from particle_grid.learn.fast import kernels
from particle_grid.learn.policy import CELLS, CHANNELS, FEATURES, ConvLSTM, State
from particle_grid.support.jit import Pool

ACTING = 2048  # agents in a chunk, times the bytes of a number
SMALL, LARGE = 128, 512  # the same when learning: a quarter of the agents, but within these
TILE = 32  # depth of AMX's tiles: rows are padded to a multiple, or their rounding would depend on how many there are

Chunk = tuple[int, int, int]  # its number, its first agent, and the one behind its last


def places(side: int, kernel: int, stride: int) -> np.ndarray:
    """i64[side * side, 9] for `kernels.convolve`: in how many patches a cell is, and for each of them where the patch
    begins in a row of outputs, and where the cell's position in it begins in the table."""
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
    """The parameters as the kernels take them: base f32[patches * 32], table f32[25, 7, 32],
    conv f32[patches * 32, 32], joint f32[39 + 1 + pad + H, 4 H], heads f32[K + 1, H] and bias f32[K + 1]."""
    conv1, conv2, linear, lstm = policy.encoder.conv1, policy.encoder.conv2, policy.linear, policy.lstm
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
    """A tensor's memory, bf16 as uint16."""
    return (tensor.view(torch.uint16) if tensor.dtype == torch.bfloat16 else tensor).detach().numpy()


def start_worker() -> None:
    """A worker is one thread: those that torch would start for each product would be in each other's way."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)  # gradients that vanish over time become denormal, and those are slow


class Record:
    """What n agents' way through T steps leaves behind, for the backward pass, in rows [T * n, ...]: hidden, joint and
    gates as in `kernels`, the second convolution x, and the cell state c f32[T, n, H] behind each step."""

    def __init__(self, steps: int, n: int, widths: tuple[int, int, int, int], dtype: torch.dtype) -> None:
        self.hidden, self.joint, self.gates, self.x = (torch.zeros(steps * n, k, dtype=dtype) for k in widths)
        self.d_hidden = torch.zeros_like(self.hidden)
        self.c = np.zeros((steps, n, widths[2] // 4), np.float32)


class FastConvLSTM:
    """Calls like `policy`, a `ConvLSTM` whose window the first convolution's patches cover without padding, and gives
    its outputs and gradients with the products in `dtype`, float32 or bfloat16, on `threads` threads.

    Between a call with gradients and its backward pass there must be no other call. Torch itself is set to one
    thread: those of OpenMP would keep spinning on the cores of these for milliseconds after each operation."""

    def __init__(self, policy: ConvLSTM, dtype: torch.dtype, threads: int) -> None:
        self.policy, self.dtype, self.threads = policy, dtype, threads
        conv1, self.size = policy.encoder.conv1, policy.hidden
        self.places = places(policy.side, conv1.kernel_size[0], conv1.stride[0])
        self.cells = policy.side**2
        depth = CHANNELS + FEATURES + 1 + self.size
        self.pad = -depth % TILE if dtype == torch.bfloat16 and torch.cpu._is_amx_tile_supported() else 0
        self.patches = int(self.places[:, 1::2].max()) // CHANNELS + 1
        self.widths = self.patches * CHANNELS, depth + self.pad, 4 * self.size, CHANNELS
        torch.set_num_threads(1)
        self.pool = Pool(threads, start_worker)
        self.seen = [x.new_full((), torch.nan) for x in policy.parameters()]  # weights that were composed: none
        self.records: dict[tuple[int, int, int], Record] = {}
        self.chunks: list[Chunk] = []
        self.passes = 0

    def __call__(self, obs: Tensor, starts: Tensor, state: State) -> tuple[Tensor, Tensor, State]:
        """As `particle_grid.learn.policy` has it."""
        if torch.is_grad_enabled():
            out, h, c = _Pass.apply(self, obs, starts, state, *self._prepare())
        else:
            # Composed for many steps, until the weights are others. Their version counters would not tell: fused
            # optimisers leave them as they are.
            if not all(map(torch.equal, self.seen, self.policy.parameters())):
                self._prepare()
            out, h, c = self.forward(obs, starts, state, learning=False)
        return out[..., :-1], out[..., -1], (h, c)

    def _prepare(self) -> tuple[Tensor, ...]:
        """Composes the parameters, and lays them out for the kernels."""
        self.seen = [x.detach().clone() for x in self.policy.parameters()]
        composed = compose(self.policy, self.patches, self.pad)
        base, table, conv, joint, heads, bias = (x.detach() for x in composed)
        self.small = [x.contiguous().numpy() for x in (base, table.flatten(), heads, bias)]
        self.conv, self.joint = conv.to(self.dtype).contiguous(), joint.to(self.dtype)
        return composed

    def forward(self, obs: Tensor, starts: Tensor, state: State, learning: bool) -> tuple[Tensor, Tensor, Tensor]:
        """out f32[T, N, K + 1], actor and critic, and the state behind."""
        (steps, n), (h, c) = obs.shape[:2], state
        self._check(steps, n, obs, starts, h, c)
        self.passes += 1
        out, h_new, c_new = torch.empty(steps, n, len(self.small[-1])), torch.empty_like(h), torch.empty_like(c)
        self.inputs = tuple(x.detach().contiguous().numpy() for x in (obs, starts, h[None], c[None]))
        out_array, h_array, c_array = (x.numpy() for x in (out, h_new, c_new))
        size = min(max(n // 4, SMALL), LARGE) if learning else ACTING // self.dtype.itemsize
        self.chunks = [(k, lo, min(lo + size, n)) for k, lo in enumerate(range(0, n, size))]
        list(self.pool.map(lambda chunk: self._forward(chunk, out_array, h_array, c_array, learning), self.chunks))
        return out, h_new, c_new

    def _check(self, steps: int, n: int, *inputs: Tensor) -> None:
        """Raise ValueError for inputs of other shapes or kinds: the kernels look at no bounds."""
        memory = (n, self.size), torch.float32
        wanted = [((steps, n, self.policy.row), torch.uint8), ((steps, n), torch.bool), memory, memory]
        given = [(x.shape, x.dtype) for x in inputs]
        if given != wanted:
            raise ValueError(f"The fast network takes (obs, starts, h, c) as {wanted}, not as {given}.")

    def _record(self, k: int, steps: int, n: int) -> Record:
        key = k, steps, n
        if key not in self.records:
            self.records[key] = Record(steps, n, self.widths, self.dtype)
        return self.records[key]

    @torch.no_grad()
    def _forward(self, chunk: Chunk, out: np.ndarray, h: np.ndarray, c: np.ndarray, learning: bool) -> None:
        """Takes the agents of a chunk through all steps, and writes their part of the results."""
        k, lo, hi = chunk
        obs, starts, h0, c0 = (x[:, lo:hi] for x in self.inputs)
        base, table, heads, bias = self.small
        out, h, c = out[:, lo:hi], h[lo:hi], c[lo:hi]
        n, record = hi - lo, self._record(k, len(obs), hi - lo)
        kernels.convolve(obs, self.places, base, table, memory(record.hidden))
        torch.mm(record.hidden, self.conv, out=record.x)
        x, joint, gates = (memory(rows).reshape(len(obs), n, -1) for rows in (record.x, record.joint, record.gates))
        for t in range(len(obs)):
            rows = slice(t * n, (t + 1) * n)
            kernels.join(x[t], obs[t], self.cells, h if t else h0[0], starts[t], joint[t])
            torch.mm(record.joint[rows], self.joint, out=record.gates[rows])
            old = record.c[t - 1] if t else c0[0]
            kernels.step(gates[t], old, starts[t], heads, bias, record.c[t], h, out[t])
        c[:] = record.c[-1]

    def backward(self, d_out: Tensor) -> list[Tensor]:
        """The gradients of the composed parameters, from that of the last call's out, f32[T, N, K + 1]."""
        d_out_array = d_out.contiguous().numpy()
        parts = list(self.pool.map(lambda chunk: self._backward(chunk, d_out_array), self.chunks))
        return [torch.stack(part).sum(0) for part in zip(*parts, strict=True)]

    @torch.no_grad()
    def _backward(self, chunk: Chunk, d_out: np.ndarray) -> tuple[Tensor, ...]:
        """The part of the gradients that a chunk gives."""
        k, lo, hi = chunk
        obs, starts, _, c0 = (x[:, lo:hi] for x in self.inputs)
        steps, n, record = len(obs), hi - lo, self._record(k, len(obs), hi - lo)
        d_h, d_c = torch.zeros(n, self.size, dtype=self.dtype), np.zeros_like(c0[0])
        d_base, d_table, d_heads, d_bias = small = [np.zeros_like(x) for x in self.small]
        gates, recurrent = memory(record.gates).reshape(steps, n, -1), self.joint[-self.size :].t()
        following = np.zeros(n, bool)  # whether an episode starts in the next step
        for t in range(steps - 1, -1, -1):
            old = record.c[t - 1] if t else c0[0]
            state = gates[t], old, starts[t], record.c[t]
            kernels.step_back(*state, d_out[t, lo:hi], self.small[2], memory(d_h), following, d_c, d_heads, d_bias)
            following = starts[t]
            if t:
                torch.mm(record.gates[t * n : (t + 1) * n], recurrent, out=d_h)
        d_joint = torch.mm(record.joint.t(), record.gates)
        torch.mm(record.gates, self.joint[:CHANNELS].t(), out=record.x)
        d_conv = torch.mm(record.hidden.t(), record.x)
        d_hidden = torch.mm(record.x, self.conv.t(), out=record.d_hidden)
        kernels.convolve_back(obs, self.places, memory(record.hidden), memory(d_hidden), d_base, d_table)
        base, table, heads, bias = (torch.from_numpy(x) for x in small)
        return base, table.view(-1, CELLS, CHANNELS), d_conv.float(), d_joint.float(), heads, bias


class _Pass(torch.autograd.Function):
    """The network as one operation, of its composed parameters."""

    @staticmethod
    def forward(ctx, net, obs, starts, state, *composed):  # type: ignore[no-untyped-def]
        out, h, c = net.forward(obs, starts, state, learning=True)
        ctx.net, ctx.number = net, net.passes
        ctx.mark_non_differentiable(h, c)
        return out, h, c

    @staticmethod
    def backward(ctx, d_out, *_):  # type: ignore[no-untyped-def]
        if ctx.number != ctx.net.passes:
            raise RuntimeError("The fast network ran again before this backward pass: run them one after another.")
        return *[None] * 4, *ctx.net.backward(d_out)
