"""The bound of training: the matrix multiplications of an agent-step alone, at the rate of the register tiles.

Only the multiplications of the conv-LSTM between its table of patches and its head are counted, in the composed form of
`particle_grid/learn/fast/conv_lstm.py`: each layer forward twice, in the rollout and in the update, and backward once.
On processors with AMX, whose instructions the tiles do not use, training in bf16 can be faster than this.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from iterations import Iteration, timed_iteration

from particle_grid.learn.fast.kernels.products import add_transposed_product, product
from particle_grid.learn.policy import CHANNELS, FEATURES, ConvLSTM
from particle_grid.support.jit import math_kernel

SEQUENCES = 16  # sequences of a chunk, and thus rows of a matrix product in one step
STEPS = 32
REPEAT = 100  # chunks of a thread in one measurement: 0.2 s in bf16 on Zen 4
ONE = {"fp32": np.float32(1), "bf16": np.uint16(0x3F80)}  # as an element of a left matrix
ONES = {"fp32": np.float32(1), "bf16": np.uint32(0x3F803F80)}  # as a word of a right matrix: in bf16 a pair


@dataclass(frozen=True)
class Layer:
    """A matrix of weights f32[inputs, outputs]. The gradients of the first `learnt` inputs are needed."""

    inputs: int
    learnt: int
    outputs: int

    @property
    def forward(self) -> int:
        """Return the FLOP of an agent-step."""
        return 2 * self.inputs * self.outputs

    @property
    def backward(self) -> int:
        """Return the FLOP of the gradients of inputs and weights."""
        return 2 * self.learnt * self.outputs + 2 * self.inputs * self.outputs


def layers(policy: ConvLSTM) -> list[Layer]:
    """Return the second convolution, and the composed layer from convolved window, h, features and 1 to the gates."""
    patches = policy.encoder.conv2.weight[0].numel()
    learnt = CHANNELS + policy.hidden
    return [Layer(patches, patches, CHANNELS), Layer(learnt + FEATURES + 1, learnt, 4 * policy.hidden)]


def work(policy: ConvLSTM) -> int:
    """Return the FLOP of an agent-step in rollout and update."""
    return sum(2 * layer.forward + layer.backward for layer in layers(policy))


@math_kernel
def multiply(times, a, b, c):
    """Compute c = a @ b several times."""
    for _ in range(times):
        product(a, b, c)


def matmuls(policy: ConvLSTM, precision: str) -> Callable[[], None]:
    """Return a function that does all matrix multiplications of the agent-steps of a chunk."""
    packed = 2 if precision == "bf16" else 1  # numbers in a word

    def left(rows: int, columns: int) -> np.ndarray:
        return np.full((rows, columns), ONE[precision])

    def right(rows: int, columns: int) -> np.ndarray:
        return np.full((rows // packed, columns), ONES[precision])

    def result(rows: int, columns: int) -> np.ndarray:
        return np.zeros((rows, columns), np.float32)

    calls: list[tuple] = []
    for layer in layers(policy):
        inputs = layer.inputs
        learnt = layer.learnt
        outputs = layer.outputs
        forward = left(SEQUENCES, inputs), right(inputs, outputs), result(SEQUENCES, outputs)
        backward = left(SEQUENCES, outputs), right(outputs, learnt), result(SEQUENCES, learnt)
        rows = SEQUENCES * STEPS
        weights = left(rows, inputs), left(rows, outputs), result(inputs, outputs)
        calls.append((multiply, 2 * STEPS, *forward))
        calls.append((multiply, STEPS, *backward))
        calls.append((add_transposed_product, *weights))

    def run() -> None:
        for function, *arguments in calls:
            function(*arguments)

    return run


class MatMuls:
    """Measures the matrix multiplications on some threads, each of which computes its own chunks.

    Args:
        policy: whose layers count.
        precision: bf16 or fp32.
        threads: how many.
        batch: agent-steps of an iteration.
    """

    def __init__(self, policy: ConvLSTM, precision: str, threads: int, batch: int) -> None:
        self.threads = threads
        self.iterations = threads * REPEAT * SEQUENCES * STEPS / batch  # in one measurement
        self.runs = [matmuls(policy, precision) for _ in range(threads)]
        self.pool = ThreadPoolExecutor(threads)

    def __call__(self) -> Iteration:
        """Return the time of the matrix multiplications of an iteration."""
        measured = timed_iteration(lambda: list(self.pool.map(self._repeat, self.runs)), 1, self.threads)
        return Iteration(measured.seconds / self.iterations, {})

    @staticmethod
    def _repeat(run: Callable[[], None]) -> None:
        for _ in range(REPEAT):
            run()
