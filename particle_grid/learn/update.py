"""Update a policy with PPO: minibatches of whole sequences, the loss, and one optimiser step for each."""

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from time import perf_counter
from typing import TYPE_CHECKING, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor, nn

from particle_grid.learn import ppo
from particle_grid.learn.collect import RolloutBuffer
from particle_grid.learn.config import TrainerConfig
from particle_grid.learn.distributed import ProcessGroup
from particle_grid.learn.fast import thread_count
from particle_grid.learn.fast.denormals import denormals_as_zero
from particle_grid.learn.heads import GaussianHead
from particle_grid.learn.optimiser import Optimiser
from particle_grid.learn.policy import Network, Policy
from particle_grid.learn.ppo import advantages, explained_variance, masked_mean

if TYPE_CHECKING:  # kernels are loaded only if they are used
    from particle_grid.learn.fast.loss import FusedLoss
    from particle_grid.learn.fast.network import FastNetwork


class Batch(NamedTuple):
    """What the loss needs of a rollout."""

    samples: Tensor  # [T, N, A] in the head's dtype
    old_logp: Tensor  # f32[T, N]
    advantage: Tensor  # f32[T, N]
    returns: Tensor  # f32[T, N]
    truncations: Tensor  # bool[T, N]


def minibatch_size(config: TrainerConfig, group: ProcessGroup) -> int:
    """Return the maximum number of agent-steps per optimiser step, of all processes together."""
    return config.minibatch * group.size if config.minibatch_per_process else config.minibatch


class Updater:
    """Updates a policy from the rollout in a buffer.

    Args:
        policy: holds the parameters and the head.
        network: computes the policy, see `particle_grid.learn.fast`.
        loss: the loss in kernels, beside a `FastNetwork`; or None for the definition, see `_gradients`.
        buffer: holds the rollout.
        learning: bool[N], the agents to learn from.
        second: bool[N], the agents of the second team.
        config: the settings of PPO.
        generator: draws the order of the agents.
        group: the processes that share each minibatch.

    Attributes:
        optimiser: clips the gradients and updates the parameters.
        batch: agent-steps that all processes learn from in an update.
        seconds: time of the last update.
    """

    def __init__(
        self,
        policy: Policy,
        network: Network,
        loss: "FusedLoss | None",
        buffer: RolloutBuffer,
        learning: Tensor,
        second: Tensor,
        config: TrainerConfig,
        generator: torch.Generator,
        group: ProcessGroup,
    ) -> None:
        self.policy = policy
        self.network = network
        self.loss = loss
        self.inputs: tuple[np.ndarray, ...] = ()  # inputs of the network in kernels: the rollout
        self.buffer = buffer
        self.learning = learning
        self.second = second
        self.learners = learning.nonzero().squeeze(1)
        self.config = config
        self.generator = generator
        self.group = group
        self.batch = len(self.learners) * config.rollout_length * group.size
        self.optimiser = Optimiser(policy.parameters(), config, thread_count(config.threads))
        self.seconds = 0.0

    def update(self, steps: int) -> dict[str, float]:
        """Learn from the buffer, and return statistics: means over minibatches and processes.

        Args:
            steps: agent-steps learnt from before, which decide how far the schedules have come.
        """
        begin = perf_counter()
        factor = self.schedule(steps)
        self.optimiser.learning_rate = self.config.learning_rate * factor
        batch = self._batch()
        means = self._learn(batch, self.config.entropy_coef * factor)
        scalars = self._across_processes(means | self._iteration_statistics(batch.returns))
        self.seconds = perf_counter() - begin
        return scalars | {"optim/learning_rate": self.config.learning_rate * factor}

    def _learn(self, batch: Batch, entropy_coef: float) -> dict[str, Tensor]:
        """Take all optimiser steps, and return the means of their statistics."""
        collected = defaultdict(list)
        with denormals_as_zero():
            for _ in range(self.config.epochs):
                for agents in self._minibatches():
                    for name, value in self._minibatch(agents, batch, entropy_coef).items():
                        collected[name].append(value)
        return {name: torch.stack(list(map(torch.as_tensor, values))).mean() for name, values in collected.items()}

    def schedule(self, steps: int) -> float:
        """Return the factor of the learning rate and of the entropy bonus after some agent-steps."""
        return (1 - steps / self.config.total_steps) ** self.config.anneal_power if self.config.anneal else 1

    def _batch(self) -> Batch:
        """Return the rollout with its advantages."""
        buffer = self.buffer
        rewards = buffer.rewards * self.config.reward_scale
        advantage = advantages(
            rewards, buffer.values, buffer.terminals, buffer.truncations, self.config.gamma, self.config.gae_lambda
        )
        returns = advantage + buffer.values[:-1]
        if weight := self.config.second_team_weight:
            valid = ~buffer.truncations & self.learning
            advantage = ppo.normalised_by_team(advantage, valid, self.second, weight, self.group.sum)
        batch = Batch(buffer.actions, buffer.logp, advantage, returns, buffer.truncations)
        if not self.loss:
            return batch
        self.inputs = self.fast.arrays_of(buffer.obs, buffer.starts[:-1], buffer.state)
        return Batch(*map(self.loss.by_agent, batch))

    def _minibatches(self) -> Iterator[Tensor]:
        """Yield the agents of each minibatch, in random order and in parts of equal size, or nearly."""
        count = math.ceil(self.batch / minibatch_size(self.config, self.group))
        order = torch.randperm(len(self.learners), generator=self.generator, device=self.learners.device)
        yield from self.learners[order].tensor_split(count)

    def _minibatch(self, agents: Tensor, batch: Batch, entropy_coef: float | Tensor) -> dict[str, Tensor | float]:
        """Take one optimiser step on the whole sequences of some agents, and return statistics."""
        gradients = self._kernel_gradients if self.loss else self._gradients
        loss, statistics = gradients(agents, batch, entropy_coef)
        norm = self.optimiser.step(self.group.sum)
        shares = {**statistics, "loss/total": loss}
        return {name: share * self.group.size for name, share in shares.items()} | {"optim/grad_norm": norm}

    def _gradients(
        self, agents: Tensor, batch: Batch, entropy_coef: float | Tensor
    ) -> tuple[Tensor | float, Mapping[str, Tensor | float]]:
        """Set the gradients of the parameters, and return the loss of some agents' sequences and its statistics.

        Sequences start from the recurrent state with which they really started.
        """
        buffer = self.buffer

        def select(x: Tensor) -> Tensor:
            return x.index_select(1, agents)  # many times faster than x[:, agents]

        state = tuple(x[agents] for x in buffer.state)
        out, value, _ = self.network(select(buffer.obs), select(buffer.starts[:-1]), state)
        logp, entropy = self.policy.head.log_prob_and_entropy(out, select(batch.samples))
        loss, statistics = ppo.ppo_loss(  # looked up here, as the check of the kernel does
            logp,
            entropy,
            value,
            select(batch.old_logp),
            select(batch.advantage),
            select(batch.returns),
            ~select(batch.truncations),
            clip=self.config.clip,
            value_coef=self.config.value_coef,
            entropy_coef=entropy_coef,
            objective=self.config.objective,
            awr_temperature=self.config.awr_temperature,
            total=self.group.sum,
        )
        self.optimiser.zero_grad()
        loss.backward()
        return loss.detach(), statistics

    def _kernel_gradients(
        self, agents: Tensor, batch: Batch, entropy_coef: float | Tensor
    ) -> tuple[Tensor | float, Mapping[str, Tensor | float]]:
        """Do the same as `_gradients` in kernels."""
        assert self.loss
        self.optimiser.attach()
        loss = self.loss.minibatch(
            agents.numpy(),
            *(x.numpy() for x in batch),
            clip=self.config.clip,
            value_coef=self.config.value_coef,
            entropy_coef=float(entropy_coef),
            total=self.group.sum,
        )
        sums = self.fast.learn(self.inputs, agents, loss.chunk)
        return loss.finish(sums)

    @property
    def fast(self) -> "FastNetwork":
        """Return the network in kernels that belongs to a loss in kernels."""
        return cast("FastNetwork", self.network)

    @torch.no_grad()
    def _iteration_statistics(self, returns: Tensor) -> dict[str, Tensor]:
        """Return statistics that are computed once per iteration."""
        buffer = self.buffer
        valid = ~buffer.truncations & self.learning
        statistics = {
            "episode/reward": masked_mean(buffer.rewards, valid),
            "value/explained_variance": explained_variance(buffer.values[:-1], returns, valid),
            "optim/weight_norm": nn.utils.get_total_norm(self.policy.parameters()),
        }
        if isinstance(self.policy.head, GaussianHead):
            statistics["policy/log_std"] = self.policy.head.log_std.mean()
        return statistics

    def _across_processes(self, statistics: dict[str, Tensor]) -> dict[str, float]:
        """Return the means over the processes. This is the only place that waits for a GPU."""
        means = self.group.sum(torch.stack(list(statistics.values()))) / self.group.size
        return dict(zip(statistics, means.tolist(), strict=True))
