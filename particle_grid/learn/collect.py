"""Collect rollouts: act with a policy in environments, and record every step in a buffer."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, Future
from time import perf_counter
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from particle_grid.learn.fast import Sample, frozen
from particle_grid.learn.heads import Head
from particle_grid.learn.policy import Network, Policy, RecurrentState, check_array
from particle_grid.support.errors import UserError
from particle_grid.support.jit import similar_thread

SPLIT_SEED = 15_485_863  # distance between the seeds of two splits


class Env(Protocol):
    """An environment of N agents that writes its buffers in place.

    Attributes:
        observations: u8[N, observation size]. This array and the following ones are never replaced.
        rewards: f32[N].
        terminals: bool[N].
        truncations: bool[N]. An agent with this flag set did not act in the last step, see `particle_grid.learn.ppo`.
    """

    num_agents: int
    observations: np.ndarray
    rewards: np.ndarray
    terminals: np.ndarray
    truncations: np.ndarray

    def reset(self, seed: int | None = None) -> tuple[np.ndarray, list]:
        """Start all worlds and return the observations and infos."""
        ...

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, list]:
        """Take the actions i32[N, A] or f32[N, A] and return the buffers above and a list of dicts of floats."""
        ...

    def state_dict(self) -> dict[str, np.ndarray]:
        """Return the state, including the buffers."""
        ...

    def load_state_dict(self, saved: dict[str, np.ndarray]) -> None:
        """Restore the state."""
        ...


class TrainingOpponents(Protocol):
    """Plays some of the agents of an environment during training. Nothing is learnt from those agents.

    Attributes:
        agents: bool[N], the agents it plays.
    """

    agents: np.ndarray

    def act(self, moment: int) -> np.ndarray:
        """Return actions of all N agents for the current observations.

        Args:
            moment: a number that differs in every step. All randomness of the actions derives from it.
        """
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return the state: tensors, numbers and strings in dicts and lists."""
        ...

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Restore the state."""
        ...


def no_opponents(env: Any) -> None:
    """Let the policy play all agents of an environment."""


def one_team(env: Any) -> np.ndarray:
    """Return which agents of an environment without teams are in the second one, bool[N]: none."""
    return np.zeros(env.num_agents, bool)


class RolloutBuffer:
    """T steps of N agents on the device, allocated once and written in place.

    Attributes:
        obs: u8[T, N, observation size], what the policy saw before step t.
        starts: bool[T + 1, N], whether `obs[t]` was the first of an episode.
        actions: [T, N, A] in the head's dtype.
        logp: f32[T, N], log-probabilities of the actions.
        values: f32[T + 1, N]; the last row is of the observation after the last step.
        rewards: f32[T, N].
        terminals: bool[T, N].
        truncations: bool[T, N].
        state: recurrent state before step 0.
    """

    def __init__(self, steps: int, agents: int, observation_size: int, head: Head, device: torch.device) -> None:
        def zeros(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.zeros(shape, dtype=dtype, device=device)

        try:
            self.obs = zeros(steps, agents, observation_size, dtype=torch.uint8)
            self.starts = zeros(steps + 1, agents, dtype=torch.bool)
            self.actions = zeros(steps, agents, head.components, dtype=head.dtype)
            self.logp = zeros(steps, agents)
            self.values = zeros(steps + 1, agents)
            self.rewards = zeros(steps, agents)
            self.terminals = zeros(steps, agents, dtype=torch.bool)
            self.truncations = zeros(steps, agents, dtype=torch.bool)
        except (RuntimeError, TypeError) as error:  # torch's, for more memory than there is, and for huge integers
            raise UserError(
                f"trainer.rollout_length={steps} with {agents} agents needs {steps * agents * observation_size:.1e} "
                f"bytes for observations alone, which is more than there is: lower it, or train fewer agents."
            ) from error
        self.state: RecurrentState = ()


class EnvSplit:
    """One of the environments of a run, whose agents have the columns `agents` of the buffers.

    Attributes:
        obs: the environment's observations.
        outcome: its rewards, terminals and truncations. All of these share its memory; between `start` and `finish`
            they belong to the environment.
        learning: bool[N], the agents that the policy plays.
    """

    def __init__(self, env: Env, opponents: TrainingOpponents | None, first: int, pool: Executor | None) -> None:
        self.env = env
        self.opponents = opponents
        self.pool = pool
        self.agents = slice(first, first + env.num_agents)
        self.obs = torch.from_numpy(env.observations)
        self.outcome = [torch.from_numpy(x) for x in (env.rewards, env.terminals, env.truncations)]
        self.learning = np.ones(env.num_agents, bool) if opponents is None else ~opponents.agents
        self._step: Future | tuple = ()

    def start(self, actions: np.ndarray, moment: int) -> None:
        """Begin a step: in the pool if there is one, and in this thread otherwise."""
        if self.opponents:
            actions = np.where(self.learning[:, None], actions, self.opponents.act(moment))
        self._step = self.pool.submit(self.env.step, actions) if self.pool else self.env.step(actions)

    def finish(self) -> list[dict[str, float]]:
        """Wait until the step is done, and return its infos."""
        result = self._step.result() if isinstance(self._step, Future) else self._step
        return result[-1]


def check_envs(env: Env | Sequence[Env], policy: Policy) -> list[Env]:
    """Return one environment or several as a list.

    Raises:
        UserError: if there is none, if one is given twice, or if the policy cannot act in one.
    """
    envs = list(env) if isinstance(env, Sequence) else [env]
    if not envs or len({id(env) for env in envs}) < len(envs):
        raise UserError(f"env={env} is invalid: give one environment or several, each of them once.")
    for each in envs:
        agents = each.num_agents
        check_array("observations", each.observations, np.uint8, (agents, policy.observation_size))
        check_array("rewards", each.rewards, np.float32, (agents,))
        check_array("terminals", each.terminals, np.bool_, (agents,))
        check_array("truncations", each.truncations, np.bool_, (agents,))
        if not each.observations.flags.carray:
            raise UserError("observations are read-only or not contiguous: let the environment own a whole array.")
    return envs


def make_splits(envs: Sequence[Env], opponents: Callable[[Any], TrainingOpponents | None], seed: int) -> list[EnvSplit]:
    """Reset each environment with its own seed, and assign columns of the buffers to its agents."""
    pool = similar_thread() if len(envs) > 1 else None
    splits: list[EnvSplit] = []
    first = 0
    for k, env in enumerate(envs):
        env.reset(seed + k * SPLIT_SEED)
        splits.append(EnvSplit(env, opponents(env), first, pool))
        first += env.num_agents
    return splits


class Collector:
    """Fills a buffer with rollouts of a policy.

    With several splits, one is simulated in a thread while the actions of another are computed.

    Attributes:
        starts: bool[N], whether the next observation is the first of an episode.
        state: recurrent state before the next step.
        seconds: time of the last rollout, spent on simulation and on inference.
    """

    def __init__(
        self,
        splits: Sequence[EnvSplit],
        policy: Policy,
        network: Network,
        sample: Sample,
        buffer: RolloutBuffer,
        generator: torch.Generator,
        watch: Callable[[], None],
    ) -> None:
        self.splits = splits
        self.head = policy.head
        self.sample = sample
        self.network = network
        self.buffer = buffer
        self.generator = generator
        self.watch = watch
        self.steps, agents = buffer.logp.shape
        self.device = buffer.obs.device
        self.starts = torch.ones(agents, dtype=torch.bool, device=self.device)
        self.state = policy.initial_state(agents)
        self.seconds = {"simulate": 0.0, "infer": 0.0}

    @torch.no_grad()
    def collect(self, moment: int) -> list[dict[str, float]]:
        """Fill the buffer with one rollout of all agents, and return the infos of the environments.

        Args:
            moment: agent-steps learnt from so far. Opponents derive their randomness from it.
        """
        with frozen(self.network):
            return self._collect(moment)

    def _collect(self, moment: int) -> list[dict[str, float]]:
        begin = perf_counter()
        self.seconds["simulate"] = 0.0
        states = self._begin()
        infos: list[dict[str, float]] = []
        for t in range(self.steps + 1):
            for k, split in enumerate(self.splits):
                if t > 0:
                    infos += self._finish_step(split, t - 1)
                if t < self.steps:
                    states[k] = self._start_step(split, t, states[k], moment + t)
        self._end(states)
        self.seconds["infer"] = perf_counter() - begin - self.seconds["simulate"]
        return infos

    def _begin(self) -> list[RecurrentState]:
        """Record what the agents remember before the first step, and return it for each split."""
        self.buffer.starts[0] = self.starts
        self.buffer.state = self.state
        return [tuple(x[split.agents] for x in self.state) for split in self.splits]

    def _end(self, states: list[RecurrentState]) -> None:
        """Keep what the agents of each split remember, and record the values of the last observations."""
        self.starts = self.buffer.starts[-1].clone()
        self.state = tuple(torch.cat(parts) for parts in zip(*states, strict=True))
        self._bootstrap()

    def _start_step(self, split: EnvSplit, t: int, state: RecurrentState, moment: int) -> RecurrentState:
        """Choose actions for the agents of a split and begin to simulate them. Return the next recurrent state."""
        actions, state = self._act(split, t, state)
        begin = perf_counter()
        split.start(actions, moment)
        self.seconds["simulate"] += perf_counter() - begin
        return state

    def _act(self, split: EnvSplit, t: int, state: RecurrentState) -> tuple[np.ndarray, RecurrentState]:
        """Choose and record the actions of step t of a split, and return them and the next recurrent state."""
        buffer = self.buffer
        here = (slice(t, t + 1), split.agents)
        buffer.obs[here].copy_(split.obs[None], non_blocking=True)  # the `.cpu()` below waits for this copy
        out, buffer.values[here], state = self.network(buffer.obs[here], buffer.starts[here], state)
        sample, logp = self.sample(out[0], self.generator)
        buffer.actions[t, split.agents] = sample
        buffer.logp[t, split.agents] = logp
        return self.head.to_action(buffer.actions[t, split.agents]).cpu().numpy(), state

    def _finish_step(self, split: EnvSplit, t: int) -> list[dict[str, float]]:
        """Wait for step t of a split, record its outcome, and return its infos."""
        begin = perf_counter()
        infos = split.finish()
        if split is self.splits[0]:
            self.watch()
        self._record(split, t)
        self.seconds["simulate"] += perf_counter() - begin
        return infos

    def _record(self, split: EnvSplit, t: int) -> None:
        """Record the outcome of step t of a split."""
        buffer = self.buffer
        for array, new in zip((buffer.rewards, buffer.terminals, buffer.truncations), split.outcome, strict=True):
            array[t, split.agents].copy_(new)
        buffer.starts[t + 1, split.agents] = buffer.terminals[t, split.agents] | buffer.truncations[t, split.agents]

    def _bootstrap(self) -> None:
        """Record the values of the observations after the last step."""
        obs = torch.cat([split.obs for split in self.splits]).to(self.device)
        self.buffer.values[-1:] = self.network(obs[None], self.buffer.starts[-1:], self.state)[1]

    def state_dict(self) -> dict[str, Any]:
        """Return the state of environments, opponents and agents. Tensors are not copied."""
        envs = [split.env.state_dict() for split in self.splits]
        return {
            "envs": [{name: torch.from_numpy(np.array(x)) for name, x in state.items()} for state in envs],
            "opponents": [split.opponents.state_dict() if split.opponents else {} for split in self.splits],
            "starts": self.starts,
            "state": self.state,
        }

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Restore a `state_dict`. Environments and opponents raise ValueError for states they do not accept."""
        for split, state, opponents in zip(self.splits, saved["envs"], saved["opponents"], strict=True):
            split.env.load_state_dict({name: np.asarray(array) for name, array in state.items()})
            if split.opponents:
                split.opponents.load_state_dict(opponents)
        self.starts = saved["starts"].to(self.device)
        self.state = tuple(x.to(self.device) for x in saved["state"])
