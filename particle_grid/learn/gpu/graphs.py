"""Steps of rollouts and updates as CUDA graphs: captured once, then replayed without Python.

The limit on a GPU is how many small operations follow each other, and how soon each of them is launched. A graph
launches all operations of a step at once. What it reads and writes must always be in the same memory, and it must not
wait for the host. `Collector` and `Updater` remain the definition: the classes here only give their steps such memory.

On a CPU, the same steps are called instead of replayed, so that tests can compare them with the definition.
"""

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from particle_grid.learn.collect import Collector, EnvSplit
from particle_grid.learn.config import TrainerConfig
from particle_grid.learn.distributed import ProcessGroup
from particle_grid.learn.gpu.pinned import DeviceCopy, host_memory
from particle_grid.learn.policy import RecurrentState
from particle_grid.learn.update import Batch, Updater
from particle_grid.support.errors import UserError

WARM_UP = 3  # ordinary calls before a capture: they compile, and allocate what is kept


def use_graphs(config: TrainerConfig, device: torch.device, group: ProcessGroup) -> bool:
    """Return whether a trainer uses the classes of this module.

    Raises:
        UserError: for several processes that are told to, whose communication cannot be captured.
    """
    if config.graphs == "on" and group.size > 1:
        raise UserError(f"trainer.graphs=on does not apply to {group.size} processes: use auto or off.")
    possible = device.type == "cuda" and group.size == 1 and config.fast != "off"
    return config.graphs == "on" or (config.graphs == "auto" and possible)


class Graph:
    """A function without arguments, on static memory. On a GPU it is captured once, and replayed from then on.

    The first calls are ordinary ones, so nothing has to be undone. If the capture fails, all calls are.

    Args:
        function: reads and writes the same memory in each call, and never waits for the host.
        generator: the only source of its random numbers. Its device is that of the memory.
    """

    def __init__(self, function: Callable[[], None], generator: torch.Generator) -> None:
        self.function = function
        self.generator = generator
        self.on_gpu = generator.device.type == "cuda"
        self.stream = torch.cuda.Stream() if self.on_gpu else None
        self.calls = 0
        self.graph: torch.cuda.CUDAGraph | None = None

    def __call__(self) -> None:
        """Call the function, or do what it does."""
        if self.on_gpu and self.calls == WARM_UP:
            self._capture()
        self.calls += 1
        if self.graph:
            self.graph.replay()
        elif self.stream and self.calls <= WARM_UP:
            self.stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self.stream):  # what a backward pass leaves behind belongs to the stream of capture
                self.function()
            torch.cuda.current_stream().wait_stream(self.stream)
        else:
            self.function()

    def _capture(self) -> None:
        graph = torch.cuda.CUDAGraph()
        before = self.generator.clone_state()
        graph.register_generator_state(self.generator)
        try:
            with torch.cuda.graph(graph, stream=self.stream):
                self.function()
        except RuntimeError as error:
            self.generator.graphsafe_set_state(before)  # the state that took part in the capture is unusable
            warnings.warn(
                f"Training is slower than it could be: its steps could not be captured as CUDA graphs "
                f"({str(error).strip().partition(chr(10))[0]}). To avoid the attempt, set trainer.graphs=off.",
                RuntimeWarning,
                stacklevel=3,
            )
        else:
            self.graph = graph


class SplitSteps:
    """The two steps of a split on static memory: to act, and to record the outcome.

    Args:
        split: the split.
        collector: whose buffer, network and generator the steps use.
        state: what the split's agents remember: parts of the collector's memory, updated in place.

    Attributes:
        row: i64[1], the number of the next step in the rollout.
    """

    def __init__(self, split: EnvSplit, collector: Collector, state: RecurrentState) -> None:
        env = split.env
        device = collector.device
        self.agents = split.agents
        self.collector = collector
        self.state = state
        self.arrays = DeviceCopy([env.observations, env.rewards, env.terminals, env.truncations], device)
        self.row = torch.zeros(1, dtype=torch.int64, device=device)
        self.action = collector.head.to_action(collector.buffer.actions[0, split.agents].clone())
        self.host_action = host_memory(self.action.shape, self.action.dtype)
        self.copied = torch.cuda.Event() if device.type == "cuda" else None
        self._act = Graph(self._act_once, collector.generator)
        self._record = Graph(self._record_once, collector.generator)

    def begin(self) -> None:
        """Begin a rollout."""
        self.row.zero_()
        self.arrays.fetch()

    def act(self) -> np.ndarray:
        """Choose and record actions for the observations that were fetched, and return them."""
        self._act()
        self.host_action.copy_(self.action, non_blocking=True)
        if self.copied:
            self.copied.record()
            self.copied.synchronize()
        return self.host_action.numpy()

    def record(self) -> None:
        """Fetch the outcome of the step and record it."""
        self.arrays.fetch()
        self._record()

    def values(self) -> Tensor:
        """Return the values f32[n] of the observations that were fetched."""
        return self._infer()[1][0]

    def _infer(self) -> tuple[Tensor, Tensor, RecurrentState]:
        """Return what the network computes for the observations that were fetched."""
        starts = self.collector.buffer.starts[:, self.agents].index_select(0, self.row)  # [1, n]
        return self.collector.network(self.arrays.tensors[0][None], starts, self.state)

    def _act_once(self) -> None:
        buffer = self.collector.buffer
        out, value, state = self._infer()
        sample, logp = self.collector.sample(out[0], self.collector.generator)
        sample = sample.to(buffer.actions.dtype)
        for kept, new in ((buffer.values, value[0]), (buffer.logp, logp), (buffer.actions, sample)):
            self._write(kept, new)
        self._write(buffer.obs, self.arrays.tensors[0])
        self.action.copy_(self.collector.head.to_action(sample))
        for memory, remembered in zip(self.state, state, strict=True):
            memory.copy_(remembered)

    def _record_once(self) -> None:
        buffer = self.collector.buffer
        _, *outcome = self.arrays.tensors
        for kept, new in zip((buffer.rewards, buffer.terminals, buffer.truncations), outcome, strict=True):
            self._write(kept, new)
        self.row += 1
        _, terminals, truncations = outcome
        self._write(buffer.starts, terminals | truncations)

    def _write(self, kept: Tensor, new: Tensor) -> None:
        """Write [n, ...] to the present row of an array of the buffer."""
        kept[:, self.agents].index_copy_(0, self.row, new[None])


class GraphCollector(Collector):
    """Fills a buffer with rollouts by steps that are captured. Takes the arguments of `Collector`."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.memory = tuple(x.clone() for x in self.state)
        self.buffer.state = tuple(x.clone() for x in self.state)
        self.of_split = {
            split: SplitSteps(split, self, tuple(x[split.agents] for x in self.memory)) for split in self.splits
        }

    def _begin(self) -> list[RecurrentState]:
        self.buffer.starts[0] = self.starts
        for recorded, memory, now in zip(self.buffer.state, self.memory, self.state, strict=True):
            memory.copy_(now)  # which is another tensor after a checkpoint was loaded
            recorded.copy_(now)
        for steps in self.of_split.values():
            steps.begin()
        return [steps.state for steps in self.of_split.values()]

    def _end(self, states: list[RecurrentState]) -> None:
        self.starts = self.buffer.starts[-1].clone()
        self.state = self.memory
        for split, steps in self.of_split.items():
            self.buffer.values[-1, split.agents] = steps.values()

    def _act(self, split: EnvSplit, t: int, state: RecurrentState) -> tuple[np.ndarray, RecurrentState]:
        return self.of_split[split].act(), state

    def _record(self, split: EnvSplit, t: int) -> None:
        self.of_split[split].record()


class GraphUpdater(Updater):
    """Updates a policy by steps that are captured. Takes the arguments of `Updater`.

    There is a graph for each size of minibatch, of which there are at most two.
    """

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        buffer = self.buffer
        device = buffer.obs.device
        # float32 is what Adam on a GPU requires; on a CPU, steps are the same to the bit with float64.
        self.rate = torch.zeros((), dtype=torch.float32 if device.type == "cuda" else torch.float64, device=device)
        self.entropy_coef = torch.zeros((), device=device)
        returns = torch.zeros_like(buffer.rewards)
        self.rollout = Batch(buffer.actions, buffer.logp, torch.zeros_like(returns), returns, buffer.truncations)
        self.sums: dict[str, Tensor] = {}
        self.prepare = Graph(self._prepare, self.generator)
        self.steps: dict[int, tuple[Tensor, Graph]] = {}  # by the size of a minibatch: its agents, and its step

    def _prepare(self) -> None:
        fresh = super()._batch()
        self.rollout.advantage.copy_(fresh.advantage)
        self.rollout.returns.copy_(fresh.returns)

    def _batch(self) -> Batch:
        self.prepare()
        return self.rollout

    def _learn(self, batch: Batch, entropy_coef: float) -> dict[str, Tensor]:
        self.rate.fill_(self.optimiser.learning_rate)
        self.optimiser.learning_rate = self.rate
        self.entropy_coef.fill_(entropy_coef)
        for total in self.sums.values():
            total.zero_()
        count = 0
        for _ in range(self.config.epochs):
            for agents in self._minibatches():
                self._take_step(agents)
                count += 1
        return {name: total / count for name, total in self.sums.items()}

    def _take_step(self, agents: Tensor) -> None:
        size = len(agents)
        if size not in self.steps:
            static = torch.empty_like(agents)
            self.steps[size] = static, Graph(partial(self._step, static), self.generator)
        static, step = self.steps[size]
        static.copy_(agents)
        step()

    def _step(self, agents: Tensor) -> None:
        for name, value in self._minibatch(agents, self.rollout, self.entropy_coef).items():
            if name not in self.sums:
                self.sums[name] = torch.zeros_like(torch.as_tensor(value))
            self.sums[name] += value
