"""The training loop: collect T steps of N agents, learn from them, report, save, again."""

import math
import signal
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from time import perf_counter
from types import FrameType
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from particle_grid.learn import checkpoint
from particle_grid.learn.device import choose_device
from particle_grid.learn.distributed import Group
from particle_grid.learn.env_split import Env, EnvSplit, Opponents, environments, no_opponents
from particle_grid.learn.fast import accelerate
from particle_grid.learn.heads import GaussianHead
from particle_grid.learn.policy import Policy, State
from particle_grid.learn.ppo import advantages, explained_variance, masked_mean, ppo_loss
from particle_grid.learn.restore import check_memory, check_moments, check_weights, part_of, restore_moments
from particle_grid.learn.rollout import Rollout
from particle_grid.support.atomic import check_place
from particle_grid.support.jit import similar_thread
from particle_grid.support.uncopied import Uncopied

ALONE = Group()
MOST_THREADS = 1024  # a mistake beyond, at which OpenMP would end the process without a word


class Stop(Exception):
    """Raised by a logger to end a run early, for the reason it gives."""


class ScalarLog(Protocol):
    """Where scalars go: TensorBoard, a dashboard, a list in a test. May raise Stop."""

    def log(self, step: int, scalars: Mapping[str, float]) -> None: ...


@dataclass(frozen=True)
class TrainerConfig:
    """Settings of the trainer. Raises ValueError, in one sentence, for a value that is out of range.

    total_steps: agent-steps in all; the last iteration may overshoot by less than one batch. rollout_length: steps of a
    rollout, and of backpropagation through time. minibatch: agent-steps at most, whole rollouts of some agents.
    epochs: passes over a batch. anneal: lower the learning rate and the entropy bonus linearly to 0 over total_steps.
    clip: of the ratio.
    reward_scale: rewards are multiplied by it for learning, never in what is logged. device: auto, cpu, cuda.
    scripted_opponents, opponent_pool: shares of the worlds in which the task's script, or earlier selves of the policy,
    play one of two teams. splits: parts of the worlds that are simulated in turn, 0 for two on a GPU where that can be.
    threads: of the processor, 0 for all cores. fast: auto, off, fp32 or bf16, see
    `particle_grid.learn.fast.accelerate`. checkpoint_every: agent-steps; 0 saves at the end only.
    """

    total_steps: int = 6_000_000
    rollout_length: int = 32
    minibatch: int = 2048
    epochs: int = 1
    learning_rate: float = 2e-3
    anneal: bool = True
    gamma: float = 0.9
    gae_lambda: float = 0.8
    clip: float = 0.2
    value_coef: float = 0.5
    entropy_coef: float = 0.01
    max_grad_norm: float = 0.5
    reward_scale: float = 0.1
    adam_eps: float = 1e-5
    scripted_opponents: float = 0.0
    opponent_pool: float = 0.0
    env_splits: int = 0
    device: str = "auto"
    threads: int = 0
    fast: str = "auto"
    checkpoint_every: int = 2_000_000
    seed: int = 0

    def __post_init__(self) -> None:
        for field in fields(self):
            value, kind = getattr(self, field.name), type(field.default)
            if type(value) is not kind and (kind, type(value)) != (float, int):
                raise TypeError(
                    f"trainer.{field.name}={value!r} is no {kind.__name__}: give one, such as {field.default}."
                )
        for name in (
            "total_steps",
            "rollout_length",
            "minibatch",
            "epochs",
            "clip",
            "max_grad_norm",
            "reward_scale",
            "adam_eps",
        ):
            self._require(name, 0 < getattr(self, name) < math.inf, "positive")
        for name in (
            "learning_rate",
            "value_coef",
            "entropy_coef",
            "env_splits",
            "threads",
            "checkpoint_every",
            "seed",
        ):
            self._require(name, 0 <= getattr(self, name) < math.inf, "0 or more")
        for name in ("gamma", "gae_lambda", "scripted_opponents", "opponent_pool"):
            self._require(name, 0 <= getattr(self, name) <= 1, "between 0 and 1")
        self._require("threads", self.threads <= MOST_THREADS, f"at most {MOST_THREADS}")
        self._require("seed", self.seed < 1 << 63, "below 2**63")
        room = 1 - self.scripted_opponents
        self._require("opponent_pool", self.opponent_pool <= room, f"at most {room:g}, what scripted_opponents leaves")
        self._require(
            "minibatch",
            self.minibatch % self.rollout_length == 0,
            f"a multiple of trainer.rollout_length={self.rollout_length}",
        )
        self._require("device", self.device.partition(":")[0] in ("auto", "cpu", "cuda"), "auto, cpu or cuda")

    def _require(self, name: str, holds: bool, what: str) -> None:
        if not holds:
            raise ValueError(f"trainer.{name}={getattr(self, name)!r} cannot be: choose a value that is {what}.")


@dataclass(frozen=True)
class Result:
    """How a run ended: agent-steps done, whether Ctrl-C or a logger ended it early, the last scalars of each name, and
    the logger's reason."""

    steps: int
    interrupted: bool
    scalars: dict[str, float]
    reason: str = ""


class Trainer(Uncopied):
    """Trains `policy` in `env` with PPO. `steps` counts the agent-steps done, without those of opponents.

    env: one, or several *splits*: while the actions of one are computed, another one is simulated, in a thread.

    loggers get the scalars of each iteration. path: where checkpoints go, None for none. run_config: plain nested dict
    that is stored with them, under "config". normalise: from score to normalised score. `how` says in a sentence how
    the policy is computed. group: the processes that learn together, each with environments of its own; the first one
    saves for all, and `run`, `save` and `state_dict` are to be called in all of them. opponents: who plays some of an
    environment's agents.
    watch: called after each step of the first split, whose environment stands still then.
    Raises ValueError for environments that the policy cannot learn in, and for a path that cannot be written.
    """

    instead = "make another one, and use state_dict and load_state_dict"

    def __init__(
        self,
        env: Env | Sequence[Env],
        policy: Policy,
        config: TrainerConfig,
        loggers: Sequence[ScalarLog] = (),
        path: str | Path | None = None,
        run_config: dict[str, Any] | None = None,
        normalise: Callable[[float], float] | None = None,
        group: Group = ALONE,
        opponents: Callable[[Any], Opponents | None] = no_opponents,
        watch: Callable[[], None] = lambda: None,
    ) -> None:
        self.policy, self.config, self.loggers = policy, config, loggers
        self.path, self.run_config, self.normalise, self.group = path, run_config or {}, normalise, group
        self.watch = watch
        envs = environments(env, policy)
        if path is not None:
            check_place(Path(path))  # not after hours
        if config.minibatch < config.rollout_length * group.size:
            raise ValueError(
                f"trainer.minibatch={config.minibatch} is too small to share among {group.size} processes: give "
                f"{config.rollout_length * group.size} or more, a rollout_length for each."
            )
        if config.threads:
            torch.set_num_threads(config.threads)
        self.device = choose_device(config.device)
        policy.to(self.device)
        self.network, self.how = accelerate(policy, config.fast, self.device, config.threads)
        self.optimiser = torch.optim.Adam(policy.parameters(), lr=config.learning_rate, eps=config.adam_eps, fused=True)
        seed = config.seed + group.rank * 1_000_003  # other worlds and other samples in each process
        self.generator = torch.Generator(self.device).manual_seed(seed)
        pool, n, self.splits = similar_thread() if len(envs) > 1 else None, 0, []
        for k, each in enumerate(envs):
            each.reset(seed + k * 15_485_863)
            self.splits.append(EnvSplit(each, opponents(each), n, pool, self.device))
            n += each.num_agents
        self.buffer = Rollout(config.rollout_length, n, policy.row, policy.head, self.device)
        self.starts, self.state = torch.ones(n, dtype=torch.bool, device=self.device), policy.initial_state(n)
        self.learning = torch.from_numpy(np.concatenate([split.learning for split in self.splits])).to(self.device)
        self.learners = self.learning.nonzero().squeeze(1)
        self.batch, self.steps, self.interrupted = len(self.learners) * config.rollout_length * group.size, 0, False
        self.seconds = {"simulate": 0.0, "infer": 0.0, "learn": 0.0}  # of this iteration
        self.scalars: dict[str, float] = {}

    def run(self) -> Result:
        """Trains until total_steps, Ctrl-C or a signal to end, or a logger's Stop: the iteration is finished first.
        Saves at the end, and before it raises what a logger has failed with.

        Raises RuntimeError when learning becomes NaN or infinite; the last checkpoint is from before.
        """
        saved, reason = self.steps, ""
        failure: BaseException | None = None
        self.interrupted = False
        with self._interruptible():
            while self.steps < self.config.total_steps and not self._stops():
                begin = perf_counter()
                infos = self.rollout()
                statistics = self.update()
                self.steps += self.batch
                try:
                    self._report(infos, statistics, perf_counter() - begin)
                except Stop as stop:
                    self.interrupted, reason = True, str(stop)
                except BaseException as error:  # such as a disk that is full: what was learnt is not lost with it
                    self.interrupted, failure = True, error
                if self.config.checkpoint_every and self.steps - saved >= self.config.checkpoint_every:
                    self.save()
                    saved = self.steps
            if saved != self.steps or self._anywhere(self.path is not None and not Path(self.path).exists()):
                self.save()
        if failure:
            raise failure
        return Result(self.steps, self.interrupted, self.scalars, reason)

    def _stops(self) -> bool:
        """Return whether this process or another one of the group is interrupted."""
        stops = self._anywhere(self.interrupted)
        if stops:
            self.interrupted = True
        return stops  # not `interrupted`, which a signal may have set by now in this process only

    def _anywhere(self, holds: bool) -> bool:
        """Return whether something holds in this process or another one of the group."""
        return bool(self.group.sum(torch.tensor(float(holds), device=self.device)))

    @torch.no_grad()
    def rollout(self) -> list[dict[str, float]]:
        """Fills the buffer with `rollout_length` steps of all agents and return the infos."""
        r, infos, begin = self.buffer, [], perf_counter()
        r.starts[0], r.state = self.starts, self.state
        self.seconds["simulate"] = 0.0
        states = [tuple(x[split.agents] for x in self.state) for split in self.splits]
        for t in range(self.config.rollout_length + 1):
            for k, split in enumerate(self.splits):
                if t > 0:
                    infos += self._collect(split, t - 1)
                if t < self.config.rollout_length:
                    states[k] = self._act(split, t, states[k])
        self.starts, self.state = r.starts[-1].clone(), tuple(torch.cat(parts) for parts in zip(*states, strict=True))
        obs = torch.cat([split.obs for split in self.splits]).to(self.device)
        r.values[-1:] = self.network(obs[None], r.starts[-1:], self.state)[1]
        self.seconds["infer"] = perf_counter() - begin - self.seconds["simulate"]
        return infos

    def _act(self, split: EnvSplit, t: int, state: State) -> State:
        """Computes the actions of a split's agents in step t, and begins to simulate it. Returns the state behind."""
        r, here = self.buffer, (slice(t, t + 1), split.agents)
        r.obs[here].copy_(split.obs[None], non_blocking=True)  # done before the actions are, which are waited for
        out, r.values[here], state = self.network(r.obs[here], r.starts[here], state)
        r.actions[t, split.agents], r.logp[t, split.agents] = self.policy.head.sample(out[0], self.generator)
        actions = self.policy.head.to_action(r.actions[t, split.agents]).cpu().numpy()
        begin = perf_counter()
        split.start(actions, self.steps + t)
        self.seconds["simulate"] += perf_counter() - begin
        return state

    def _collect(self, split: EnvSplit, t: int) -> list[dict[str, float]]:
        """Takes over what step t of a split gave, once it is done. Returns the infos."""
        begin, r = perf_counter(), self.buffer
        infos = split.finish()
        if split is self.splits[0]:
            self.watch()
        for buffer, new in zip((r.rewards, r.terminals, r.truncations), split.outcome, strict=True):
            buffer[t, split.agents].copy_(new)
        r.starts[t + 1, split.agents] = r.terminals[t, split.agents] | r.truncations[t, split.agents]
        self.seconds["simulate"] += perf_counter() - begin
        return infos

    def update(self) -> dict[str, float]:
        """Learns from the buffer and returns statistics, means over the minibatches. Raises RuntimeError at NaN."""
        begin, config, r = perf_counter(), self.config, self.buffer
        rate = config.learning_rate * self._left()
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        advantage = advantages(
            r.rewards * config.reward_scale, r.values, r.terminals, r.truncations, config.gamma, config.gae_lambda
        )
        returns, collected = advantage + r.values[:-1], defaultdict(list)
        parts = math.ceil(self.batch / config.minibatch)  # of a minibatch that the processes share
        for _ in range(config.epochs):
            order = torch.randperm(len(self.learners), generator=self.generator, device=self.device)
            for agents in self.learners[order].tensor_split(parts):  # of equal size, or nearly
                for name, value in self._minibatch(agents, advantage, returns).items():
                    collected[name].append(value)
        statistics = {name: torch.stack(values).mean() for name, values in collected.items()}
        statistics |= self._statistics(returns)
        mean = self.group.sum(torch.stack(list(statistics.values()))) / self.group.size
        numbers = mean.tolist()  # the one moment that waits for a GPU
        self.seconds["learn"] = perf_counter() - begin
        scalars = dict(zip(statistics, numbers, strict=True))
        self._check(scalars)
        return scalars | {"optim/learning_rate": rate}

    def _left(self) -> float:
        """Share of the run that is left, if it anneals."""
        return 1 - self.steps / self.config.total_steps if self.config.anneal else 1

    def _minibatch(self, agents: Tensor, advantage: Tensor, returns: Tensor) -> dict[str, Tensor]:
        """One optimiser step on the whole sequences of some agents, from the state each really started with."""
        r, config, policy = self.buffer, self.config, self.policy
        obs, starts, actions, logp, truncations, advantage, returns = (
            x.index_select(1, agents)  # many times faster than x[:, agents]
            for x in (r.obs, r.starts[:-1], r.actions, r.logp, r.truncations, advantage, returns)
        )
        out, value, _ = self.network(obs, starts, tuple(x[agents] for x in r.state))
        loss, statistics = ppo_loss(
            *policy.head.log_prob_and_entropy(out, actions),
            value,
            logp,
            advantage,
            returns,
            ~truncations,
            clip=config.clip,
            value_coef=config.value_coef,
            entropy_coef=config.entropy_coef * self._left(),
            total=self.group.sum,
        )
        self.optimiser.zero_grad()
        loss.backward()
        self.group.sum_gradients(policy)
        norm = nn.utils.clip_grad_norm_(policy.parameters(), config.max_grad_norm)
        self.optimiser.step()
        shares = statistics | {"loss/total": loss.detach()}
        return {name: share * self.group.size for name, share in shares.items()} | {"optim/grad_norm": norm}

    @torch.no_grad()
    def _statistics(self, returns: Tensor) -> dict[str, Tensor]:
        """What is known once an iteration."""
        r, head = self.buffer, self.policy.head
        valid = ~r.truncations & self.learning
        statistics = {
            "env/reward": masked_mean(r.rewards, valid),
            "value/explained_variance": explained_variance(r.values[:-1], returns, valid),
            "optim/weight_norm": nn.utils.get_total_norm(self.policy.parameters()),
        }
        return statistics | ({"policy/log_std": head.log_std.mean()} if isinstance(head, GaussianHead) else {})

    def _check(self, scalars: dict[str, float]) -> None:
        if broken := [name for name, value in scalars.items() if not math.isfinite(value)]:
            cause = "env/reward" if "env/reward" in broken else ", ".join(broken)
            saved = self.path is not None and Path(self.path).exists()
            raise RuntimeError(
                f"Learning broke down between steps {self.steps} and {self.steps + self.batch}: {cause} became NaN or "
                f"infinite{', and the last checkpoint is from before' if saved else ''}; mend the reward, or lower "
                f"trainer.learning_rate."
            )

    def _report(self, infos: list[dict[str, float]], statistics: dict[str, float], seconds: float) -> None:
        """Hands the scalars of an iteration that took `seconds` to the loggers."""
        collected = defaultdict(list)
        for info in infos:
            for name, value in info.items():
                collected["score" if name == "score" else f"env/{name}"].append(float(value))
        scalars = {name: sum(values) / len(values) for name, values in collected.items()} | statistics
        if self.normalise and "score" in scalars:
            scalars["normalised_score"] = self.normalise(scalars["score"])
        scalars |= {f"perf/{name}": part / seconds for name, part in self.seconds.items()}
        scalars["perf/steps_per_second"] = self.batch / seconds
        self.scalars |= scalars
        for logger in self.loggers:
            logger.log(self.steps, scalars)

    @contextmanager
    def _interruptible(self) -> Iterator[None]:
        """The first Ctrl-C sets `interrupted`, a second one raises KeyboardInterrupt. A request to end and the end of
        the terminal only ever set it, unless somebody has said what these do: they may follow each other, and Ctrl-C,
        without anybody's impatience. Only in the main thread."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def interrupt(number: int, frame: FrameType | None) -> None:
            if self.interrupted and number == signal.SIGINT:
                raise KeyboardInterrupt
            self.interrupted = True

        ends = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]  # Windows lacks one
        unclaimed = [number for number in ends if signal.getsignal(number) is signal.SIG_DFL]
        previous = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, *unclaimed)}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def save(self) -> None:
        """Writes a checkpoint, if there is a path. Raises OSError, in one sentence, if it cannot be written."""
        if self.path is None and self.group.size == 1:
            return
        state = self.state_dict()  # of all processes, so that each of them gets here
        if self.path is not None and self.group.rank == 0:
            checkpoint.save(self.path, state)

    def state_dict(self) -> dict[str, Any]:
        """Everything a run needs to go on bit for bit, and the run's config. Not a copy: save it before training on.

        others: what differs in the other processes of a group, by rank; the first process gets it."""
        own = self._own_state()
        return {
            "config": self.run_config,
            "steps": self.steps,
            "policy": self.policy.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            **own,
            "others": self.group.gather(own, self.device),
        }

    def _own_state(self) -> dict[str, Any]:
        """What no other process of the group has: environments, samples, memory."""
        return {
            "generator": self.generator.get_state(),
            "envs": [
                {k: torch.from_numpy(np.array(x)) for k, x in split.env.state_dict().items()} for split in self.splits
            ],
            "opponents": [split.opponents.state_dict() if split.opponents else {} for split in self.splits],
            "starts": self.starts,
            "state": self.state,
        }

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Goes on from a `state_dict` or a loaded checkpoint. Raises ValueError if it is of another kind of run, and
        changes nothing then, but for environments and opponents in front of some that refuse theirs."""
        own = part_of(saved, self.group.rank, (self.group.size, len(self.starts), len(self.splits)))
        try:
            check_weights(self.policy, saved["policy"])
            check_moments(self.optimiser, saved["optimiser"]["state"])
            check_memory([own["starts"], *own["state"]], [self.starts, *self.state])
            torch.Generator(self.device).set_state(own["generator"])
        except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                "The checkpoint's policy or device differs from this run's: resume with the settings it was saved with."
            ) from error
        for split, state, others in zip(self.splits, own["envs"], own["opponents"], strict=True):
            split.env.load_state_dict({name: np.asarray(array) for name, array in state.items()})
            if split.opponents:
                split.opponents.load_state_dict(others)
        self.policy.load_state_dict(saved["policy"])
        restore_moments(self.optimiser, saved["optimiser"]["state"])
        self.generator.set_state(own["generator"])
        self.starts = own["starts"].to(self.device)
        self.state = tuple(x.to(self.device) for x in own["state"])
        self.steps = saved["steps"]
