"""What all fast networks share: threads, chunks of agents, and the passage of gradients to the parameters.

Agents pass through a network in chunks of a fixed size. Each chunk is one compiled call forward and one backward, which
do not hold the GIL, so that threads share the chunks in any order. Gradients of chunks are summed in their order. The
result therefore does not depend on the number of threads. Vanishing gradients would become denormal numbers, which are
slow, so these count as 0 here.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import wait
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from particle_grid.learn.fast.denormals import denormals_as_zero
from particle_grid.learn.fast.kernels.columns import add_rows, clear, gather, scatter
from particle_grid.learn.fast.kernels.products import MULTIPLE_COLUMNS, MULTIPLE_ROWS
from particle_grid.learn.policy import Policy, RecurrentState
from particle_grid.support.errors import UserError, UserRuntimeError
from particle_grid.support.jit import Pool

ACTING_CHUNK = 64  # agents
SMALL_CHUNK = 8  # agents when learning, whose data of all steps stays in the cache of a core
LARGE_CHUNK = 16  # a few percent faster, if there are enough of them for many threads
MANY_AGENTS = 256
PARTS_PER_THREAD = 2  # when acting
MOST_PARTS = 32  # sums of gradients that are kept apart until all agents are done

# The loss of some agents: takes their outputs f32[T, at least n, K + 1] and numbers i64[n], writes the gradient of the
# outputs to the last argument, and returns sums.
Loss = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


def up(n: int, multiple: int) -> int:
    """Return n rounded up to a multiple."""
    return -(-n // multiple) * multiple


def gradient_memory(parameter: Tensor) -> Tensor:
    """Return memory for the gradient of a parameter: that of its `grad`, if it has one and kernels can write there."""
    if not parameter.requires_grad:
        return torch.empty(parameter.shape)
    if parameter.grad is None:
        parameter.grad = torch.empty_like(parameter)
    return parameter.grad if parameter.grad.is_contiguous() else torch.empty(parameter.shape)


def _this_thread() -> int:
    """Return the key of this thread's own record, which the last chunk has left in the cache."""
    return -threading.get_ident()


class Sums:
    """Sums of gradients, of several parts of the agents: flat f32[parts, size], and views of each part by shapes."""

    def __init__(self, parts: int, shapes: Sequence[Sequence[int]]) -> None:
        sizes = [int(np.prod(shape)) for shape in shapes]
        ends = np.cumsum(sizes)
        self.flat = np.zeros((parts, ends[-1]), np.float32)
        self.arrays = [
            tuple(x.reshape(shape) for x, shape in zip(np.split(row, ends[:-1]), shapes, strict=True))
            for row in self.flat
        ]


class FastNetwork:
    """Computes a policy in compiled kernels, and is called like it.

    Between a call with gradients and its backward pass there must be no other call. Torch itself is set to one thread,
    because OpenMP's threads keep the cores busy for milliseconds after each operation.

    Subclasses define the methods without a body below, and three kernels:

    - `run_forward(*inputs, agents, weights, record)` computes all steps of some agents and writes them to a record.
    - `run_backward(weights, record, gradients)` adds the gradients, given `record.d_out`.
    - `run_act(inputs, first, end, weights, record, wholes)` does the same as `run_forward` for the agents from first to
      end, in chunks of the record's size, and copies outputs and the next state to `wholes`, see `scatter`.

    Args:
        policy: the policy.
        dtype: precision of matrix multiplications, float32 or bfloat16.
        threads: the number of threads.
    """

    run_forward: Callable[..., None]
    run_backward: Callable[..., None]
    run_act: Callable[..., None]

    def __init__(self, policy: Policy, dtype: torch.dtype, threads: int) -> None:
        self.policy = policy
        self.dtype = dtype
        self.threads = threads
        self.outputs = policy.head.outputs + 1  # outputs of actor and critic
        self.size = up(policy.hidden, MULTIPLE_COLUMNS)  # units in kernels
        self.real: type[np.generic] = np.uint16 if dtype == torch.bfloat16 else np.float32  # dtype of arrays marked so
        torch.set_num_threads(1)
        self.pool = Pool(max(1, threads - 1), torch.set_flush_denormal, True)
        self.known: list[Tensor] = []  # the policy's parameters as they were when `weights` was made
        self.unchanged = False  # whether the parameters are known to be those that `weights` was made from
        self.kinds = {name: (x.shape, x.dtype) for name, x in self.named_parameters().items()}
        self.tensors: dict[str, Tensor] = {}  # the parameters that `weights` was made from
        self.arrays: dict[str, np.ndarray] = {}  # the same as arrays
        self.found: list[tuple[Any, ...]] = []  # where the parameters were, unless an array is a copy of one
        self.weights: Any = None
        self.inputs: tuple[np.ndarray, ...] = ()
        self.chunks: list[np.ndarray] = []
        self.records: dict[tuple[int, int, int], Any] = {}
        self.sums: dict[int, Sums] = {}  # by the number of parts
        self.passes = 0

    def named_parameters(self) -> dict[str, Tensor]:
        """Return the parameters of the policy that the network computes with, by the names that the kernels use."""
        raise NotImplementedError

    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Return the shapes of the gradients of the weights, in the order in which the kernels take them."""
        raise NotImplementedError

    def compose(self, arrays: dict[str, np.ndarray]) -> Any:
        """Return the weights that the kernels read, computed from the parameters."""
        raise NotImplementedError

    def compose_back(
        self, arrays: dict[str, np.ndarray], sums: tuple[np.ndarray, ...], gradients: dict[str, np.ndarray]
    ) -> None:
        """Write the gradients of the parameters, given those of the weights."""
        raise NotImplementedError

    def allocate(self, steps: int, n: int) -> Any:
        """Return a record: the arrays that the kernels write for n agents, with zeros in them.

        All records have `out` and `d_out`, f32[T, n, K + 1].
        """
        raise NotImplementedError

    def state_after(self, record: Any) -> tuple[np.ndarray, ...]:
        """Return the recurrent state after the last step, f32[1, n, at least hidden] each."""
        return ()

    def chunk_size(self, n: int, learning: bool) -> int:
        """Return how many of n agents are computed together."""
        if not learning:
            return ACTING_CHUNK
        return LARGE_CHUNK if n >= MANY_AGENTS else SMALL_CHUNK

    def __call__(self, obs: Tensor, starts: Tensor, state: RecurrentState) -> tuple[Tensor, Tensor, RecurrentState]:
        """Return outputs, values and the next recurrent state, see `particle_grid.learn.policy`."""
        if torch.is_grad_enabled():
            self._prepare()
            out, *after = _Pass.apply(self, obs, starts, state, *self.tensors.values())
        else:
            if not self.unchanged:
                self._refresh()
            out, *after = self.act(obs, starts, state)
        return out[..., :-1], out[..., -1], tuple(after)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Do not look for changes of the parameters in this context, which takes as long as acting with 100 agents."""
        self._refresh()
        self.unchanged = True
        try:
            yield
        finally:
            self.unchanged = False

    def words(self, rows: int, columns: int) -> np.ndarray:
        """Return an array for a matrix [rows, columns] as words, see `kernels.products`."""
        if self.dtype == torch.bfloat16:
            return np.empty((rows // 2, columns), np.uint32)
        return np.empty((rows, columns), np.float32)

    def _prepare(self) -> None:
        """Compose the parameters. Raise UserError for a wrong shape or dtype: kernels do not check bounds."""
        self.known = []
        self.tensors = self.named_parameters()
        found = [(x.data_ptr(), x.shape, x.stride(), x.dtype) for x in self.tensors.values()]
        if found != self.found:  # seldom: an optimiser changes the weights where they are
            changed = [name for name, x in self.tensors.items() if (x.shape, x.dtype) != self.kinds[name]]
            if changed:
                raise UserError(f"{changed[0]} has another shape or dtype than before: make another trainer or player.")
            self.arrays = {name: x.detach().contiguous().numpy() for name, x in self.tensors.items()}
            shared = all(x.is_contiguous() for x in self.tensors.values())
            self.found = found if shared else []
        self.weights = self.compose(self.arrays)

    def _refresh(self) -> None:
        """Compose the parameters again if they have changed: version counters miss what fused optimisers do."""
        parameters = list(self.named_parameters().values())
        if not self.known or not all(map(torch.equal, self.known, parameters)):
            self._prepare()
            self.known = [x.detach().clone() for x in parameters]

    def arrays_of(self, obs: Tensor, starts: Tensor, state: RecurrentState) -> tuple[np.ndarray, ...]:
        """Return the inputs as arrays. Raise UserError for a wrong shape or dtype: kernels do not check bounds."""
        steps, n = obs.shape[:2]
        memory = [((n, self.policy.hidden), torch.float32)] * len(self.policy.initial_state(0))
        expected = [((steps, n, self.policy.observation_size), torch.uint8), ((steps, n), torch.bool), *memory]
        inputs = (obs, starts, *state)
        given = [(x.shape, x.dtype) for x in inputs]
        if given != expected:
            names = "(obs, starts, h, c)" if memory else "(obs, starts)"
            raise UserError(f"The fast network takes {names} as {expected}, not as {given}: change them.")
        return tuple(x.detach().contiguous().numpy() for x in inputs)

    def _begin(self, inputs: tuple[np.ndarray, ...], agents: np.ndarray, size: int) -> None:
        """Start a pass of some agents in chunks of a size."""
        self.passes += 1
        self.inputs = inputs
        self.chunks = [agents[first : first + size] for first in range(0, len(agents), size)]

    def _record(self, key: int, n: int) -> Any:
        """Return the record for n agents, which is allocated once for each key and shape."""
        steps = len(self.inputs[0])
        place = (key, steps, n)
        if place not in self.records:
            self.records[place] = self.allocate(steps, up(n, MULTIPLE_ROWS))
        return self.records[place]

    def _compute(self, key: int, agents: np.ndarray) -> Any:
        """Run the forward kernel for some agents, and return the record."""
        record = self._record(key, len(agents))
        self.run_forward(*self.inputs, agents, self.weights, record)
        return record

    def act(self, obs: Tensor, starts: Tensor, state: RecurrentState) -> tuple[Tensor, ...]:
        """Return out f32[T, N, K + 1], of actor and critic, and the state after the last step.

        Threads share the agents in few parts, because handing over takes time.
        """
        steps, n = obs.shape[:2]
        self._begin(self.arrays_of(obs, starts, state), np.arange(0), 1)
        results, wholes = self._results(steps, n, state)
        size = self.chunk_size(n, learning=False)
        chunks = -(-n // size)
        parts = min(chunks, PARTS_PER_THREAD * self.threads if self.threads > 1 else 1)

        def run(part: int) -> None:
            first = chunks * part // parts * size
            end = min(chunks * (part + 1) // parts * size, n)
            record = self._record(_this_thread(), min(size, n))
            self.run_act(self.inputs, first, end, self.weights, record, wholes)

        self._share(run, parts)
        return results

    def forward(self, obs: Tensor, starts: Tensor, state: RecurrentState) -> tuple[Tensor, ...]:
        """Return the same as `act`, and keep the records of all chunks for a backward pass."""
        steps, n = obs.shape[:2]
        self._begin(self.arrays_of(obs, starts, state), np.arange(n), self.chunk_size(n, learning=True))
        results, wholes = self._results(steps, n, state)

        def run(k: int) -> None:
            agents = self.chunks[k]
            record = self._compute(k, agents)
            scatter((record.out, *self.state_after(record)), agents, wholes)

        self._share(run, len(self.chunks))
        return results

    def _results(self, steps: int, n: int, state: RecurrentState) -> tuple[tuple[Tensor, ...], tuple[np.ndarray, ...]]:
        """Return empty tensors for outputs and the next state, and arrays that share their memory, for `scatter`."""
        out = torch.empty(steps, n, self.outputs)
        after = [torch.empty_like(x) for x in state]
        return (out, *after), (out.numpy(), *(x[None].numpy() for x in after))

    def backward(self, d_out: Tensor) -> list[Tensor]:
        """Return the gradients of the parameters, given that of the last call's out, f32[T, N, K + 1]."""
        given = d_out.detach().contiguous().numpy()

        def run(k: int, gradients: Any) -> None:
            agents = self.chunks[k]
            record = self._record(k, len(agents))
            gather(given, agents, record.d_out)
            self.run_backward(self.weights, record, gradients)

        gradients = {name: np.empty_like(x) for name, x in self.arrays.items()}
        self._sum_over_chunks(run, gradients)
        return list(map(torch.from_numpy, gradients.values()))

    def learn(self, inputs: tuple[np.ndarray, ...], agents: Tensor, loss: Loss) -> list[np.ndarray]:
        """Set the gradients of the parameters to those of a loss, and return the loss's sums of each chunk.

        Gradients are written to the memory that the parameters' `grad` has, if there is any.

        Args:
            inputs: of N agents, from `arrays_of`.
            agents: i64[n], the agents to learn from.
            loss: computes the loss of a chunk.
        """
        self._prepare()
        size = self.chunk_size(len(agents), learning=True)
        self._begin(inputs, agents.numpy(), size)
        results = [np.empty(0)] * len(self.chunks)

        def run(k: int, sums: Any) -> None:
            record = self._compute(_this_thread(), self.chunks[k])
            results[k] = loss(record.out, self.chunks[k], record.d_out)
            self.run_backward(self.weights, record, sums)

        gradients = {name: gradient_memory(x) for name, x in self.tensors.items()}
        self._sum_over_chunks(run, {name: x.numpy() for name, x in gradients.items()})
        for name, parameter in self.tensors.items():
            if parameter.requires_grad and parameter.grad is not None:
                parameter.grad.copy_(gradients[name])  # does nothing if both are the same
        return results

    def _share(self, run: Callable[[int], None], count: int) -> None:
        """Call run(k) for each k below count. The threads, of which this is one, take the next number in turn."""
        numbers = iter(range(count))

        def work() -> None:
            for k in numbers:
                run(k)

        others = [self.pool.submit(work) for _ in range(min(self.threads, count) - 1)]
        try:
            with denormals_as_zero():
                work()
        finally:
            wait(others)
        for other in others:
            other.result()

    def _sum_over_chunks(self, run: Callable[[int, Any], None], gradients: dict[str, np.ndarray]) -> None:
        """Call run(chunk, sums) for each chunk, and write the gradients of the parameters.

        Each part sums the gradients of every so many chunks. Then the parts are added in order.
        """
        parts = min(len(self.chunks), MOST_PARTS)
        if parts not in self.sums:
            self.sums[parts] = Sums(parts, self.shapes())
        sums = self.sums[parts]

        def run_part(part: int) -> None:
            clear(sums.flat[part])
            for k in range(part, len(self.chunks), parts):
                run(k, sums.arrays[part])

        self._share(run_part, parts)
        add_rows(sums.flat)
        self.compose_back(self.arrays, sums.arrays[0], gradients)


class _Pass(torch.autograd.Function):
    """The network as one differentiable operation on its composed parameters."""

    @staticmethod
    def forward(ctx, net, obs, starts, state, *composed):
        out, *after = net.forward(obs, starts, state)
        ctx.net = net
        ctx.number = net.passes
        ctx.mark_non_differentiable(*after)
        return out, *after

    @staticmethod
    def backward(ctx, d_out, *_):
        if ctx.number != ctx.net.passes:
            raise UserRuntimeError(
                "The fast network was called again before this backward pass: run each backward pass right after its "
                "call."
            )
        return *[None] * 4, *ctx.net.backward(d_out)
