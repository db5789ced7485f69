"""The training loop: collect a rollout, update the policy, report, save; until the run is complete."""

import math
import threading
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any, Protocol

import numpy as np
import torch

from particle_grid.learn import checkpoint
from particle_grid.learn.collect import (
    Collector,
    Env,
    RolloutBuffer,
    TrainingOpponents,
    check_envs,
    make_splits,
    no_opponents,
    one_team,
)
from particle_grid.learn.config import TrainerConfig
from particle_grid.learn.distributed import ProcessGroup, choose_device
from particle_grid.learn.fast import accelerate, accelerate_head
from particle_grid.learn.gpu.graphs import GraphCollector, GraphUpdater, use_graphs
from particle_grid.learn.interrupt import interrupted_by_signals
from particle_grid.learn.policy import Policy
from particle_grid.learn.update import Updater, minibatch_size
from particle_grid.support.atomic import check_place
from particle_grid.support.errors import UserError, UserRuntimeError
from particle_grid.support.uncopied import Uncopied

ALONE = ProcessGroup()
TAGS = {"episode_return": "episode/return", "episode_length": "episode/length", "moved": "policy/moved"}  # of infos
PROCESS_SEED = 1_000_003  # distance between the seeds of two processes


class Stop(Exception):
    """Raised by a logger to end a run early. Its message is the reason."""


class ScalarLog(Protocol):
    """Receives scalars: TensorBoard, a dashboard, a list in a test."""

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        """Take the scalars of the iteration that ended after `step` agent-steps. May raise Stop."""
        ...


@dataclass(frozen=True)
class Result:
    """How a run ended."""

    steps: int  #: agent-steps learnt from
    interrupted: bool  #: whether a signal or a logger ended the run early
    scalars: dict[str, float]  #: the last value of each scalar
    reason: str = ""  #: why a logger ended the run
    signal: int | None = None  #: number of the signal that ended the run, if this process received one


class Trainer(Uncopied):
    """Trains a policy with PPO.

    Args:
        env: one environment, or several *splits*. While one split is simulated in a thread, the actions of another are
            computed.
        policy: is moved to the device of the config, and trained in place.
        config: the settings.
        loggers: receive the scalars of each iteration.
        path: where to write checkpoints, or None for none.
        run_config: plain nested dict that is stored in checkpoints under "config".
        normalise: maps a score to a normalised score.
        group: the processes that learn together, each in its own environments. The first one writes the checkpoints.
            `run`, `save` and `state_dict` must be called in all of them.
        opponents: returns who plays some of an environment's agents, or None if the policy plays all of them.
        second_team: returns which of an environment's agents are in the second team, bool[N].
        watch: is called after each step of the first split, before its next step starts.

    Raises:
        UserError: for environments in which the policy cannot act, and for a path that cannot be written.

    Attributes:
        steps: agent-steps learnt from so far, excluding those of opponents.
        batch: agent-steps of an iteration.
        how: a sentence that says how the policy is computed.
        interrupted: set this to end `run` after its current iteration.
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
        group: ProcessGroup = ALONE,
        opponents: Callable[[Any], TrainingOpponents | None] = no_opponents,
        second_team: Callable[[Any], np.ndarray] = one_team,
        watch: Callable[[], None] = lambda: None,
    ) -> None:
        envs = check_envs(env, policy)
        self.policy = policy
        self.config = config
        self.loggers = loggers
        self.path = path
        self.run_config = run_config or {}
        self.normalise = normalise
        self.group = group
        self.steps = 0
        self._first_step = 0  # first step of this `run`
        self.interrupted = False
        self.scalars: dict[str, float] = {}
        self._running = threading.Lock()
        self._check_settings()
        self._choose_network()
        self._make_parts(envs, opponents, second_team, watch)

    def _check_settings(self) -> None:
        """Refuse now what would otherwise fail after hours of training."""
        if self.path is not None:
            check_place(Path(self.path))
        check_minibatch(self.config, self.group)

    def _choose_network(self) -> None:
        """Move the policy to the device, and choose how to compute it."""
        if self.config.threads:
            torch.set_num_threads(self.config.threads)
        self.device = choose_device(self.config.device)
        self.policy.to(self.device)
        self.graphs = use_graphs(self.config, self.device, self.group)
        kernels = not self.graphs or self.device.type != "cpu"  # those on a CPU have memory of their own
        fast = self.config.fast if kernels else "off"
        self.network, how = accelerate(self.policy, fast, self.device, self.config.threads, self.graphs)
        self.loss, self.sample, exceptions = accelerate_head(self.policy.head, self.network, self.config.objective)
        self.how = f"{how} {exceptions}".rstrip()

    def _make_parts(
        self,
        envs: list[Env],
        opponents: Callable[[Any], TrainingOpponents | None],
        second_team: Callable[[Any], np.ndarray],
        watch: Callable[[], None],
    ) -> None:
        """Make what collects rollouts and what learns from them, around one buffer."""
        policy = self.policy
        seed = self.config.seed + self.group.rank * PROCESS_SEED  # other worlds and samples in each process
        self.generator = torch.Generator(self.device).manual_seed(seed)
        splits = make_splits(envs, opponents, seed)
        learning = torch.from_numpy(np.concatenate([split.learning for split in splits])).to(self.device)
        second = torch.from_numpy(np.concatenate([second_team(env) for env in envs])).to(self.device)
        self.buffer = RolloutBuffer(
            self.config.rollout_length, len(learning), policy.observation_size, policy.head, self.device
        )
        collector = GraphCollector if self.graphs else Collector
        self.collector = collector(splits, policy, self.network, self.sample, self.buffer, self.generator, watch)
        updater = GraphUpdater if self.graphs else Updater
        self.updater = updater(
            policy, self.network, self.loss, self.buffer, learning, second, self.config, self.generator, self.group
        )
        self.batch = self.updater.batch

    @property
    def seconds(self) -> dict[str, float]:
        """Return the seconds that the last iteration spent on simulation, inference and learning."""
        return self.collector.seconds | {"learn": self.updater.seconds}

    @property
    def idle(self) -> bool:
        """Return whether `run` has learnt nothing yet. Several processes are never idle: they end together."""
        return self.steps == self._first_step and self.group.size == 1

    def run(self) -> Result:
        """Train until total_steps, or until a signal, a logger or `interrupted` ends the run after an iteration.

        An iteration is always finished first: in the middle of a rollout, memory and buffer belong to different steps.

        Checkpoints are saved at intervals, at the end, and before an exception of a logger is passed on.

        Raises:
            KeyboardInterrupt: for a signal during the first iteration, and for a second Ctrl-C.
            UserRuntimeError: if learning becomes NaN or infinite; the last checkpoint is from before. Also if this
                trainer is already running, in another thread or further up the stack.
        """
        if not self._running.acquire(blocking=False):
            raise UserRuntimeError("This trainer is already running: wait until it ends, or make another trainer.")
        try:
            self.interrupted = False
            self._first_step = self.steps
            with interrupted_by_signals(self) as received:
                result = self._run()
            return replace(result, signal=received[0]) if received else result
        finally:
            self._running.release()

    def _run(self) -> Result:
        failure: BaseException | None = None
        last_saved = self.steps
        while self.steps < self.config.total_steps and not self._interrupted_anywhere():
            failure = self._iterate()
            if 0 < self.config.checkpoint_every <= self.steps - last_saved:
                self.save()
                last_saved = self.steps
        if last_saved != self.steps or self._anywhere(self.path is not None and not Path(self.path).exists()):
            self.save()
        if failure and not isinstance(failure, Stop):
            raise failure
        return Result(self.steps, self.interrupted, self.scalars, str(failure or ""))

    def _iterate(self) -> BaseException | None:
        """Run one iteration. Return what a logger raised: the run ends then, but not before it is saved."""
        begin = perf_counter()
        infos = self.rollout()
        statistics = self.update()
        self.steps += self.batch
        try:
            self._report(infos, statistics, perf_counter() - begin)
        except BaseException as error:  # Stop, or for example an OSError because the disk is full
            self.interrupted = True
            return error
        return None

    def rollout(self) -> list[dict[str, float]]:
        """Fill the buffer with a rollout, and return the infos of the environments."""
        return self.collector.collect(self.steps)

    def update(self) -> dict[str, float]:
        """Learn from the buffer, and return statistics.

        Raises:
            UserRuntimeError: if one of them is NaN or infinite.
        """
        statistics = self.updater.update(self.steps)
        self._check_finite(statistics)
        return statistics

    def _interrupted_anywhere(self) -> bool:
        """Return whether this process or another one of the group is interrupted."""
        interrupted = self._anywhere(self.interrupted)
        if interrupted:
            self.interrupted = True
        return interrupted  # not self.interrupted, which a signal may just have set in this process only

    def _anywhere(self, holds: bool) -> bool:
        """Return whether something holds in this process or in another one of the group."""
        return bool(self.group.sum(torch.tensor(float(holds), device=self.device)))

    def _check_finite(self, statistics: dict[str, float]) -> None:
        broken = [name for name, value in statistics.items() if not math.isfinite(value)]
        if broken:
            cause = "episode/reward" if "episode/reward" in broken else ", ".join(broken)
            saved = self.path is not None and Path(self.path).exists()
            raise UserRuntimeError(
                f"Learning broke down between steps {self.steps} and {self.steps + self.batch}: {cause} became NaN or "
                f"infinite{', and the last checkpoint is from before' if saved else ''}; correct the reward, or lower "
                f"trainer.learning_rate."
            )

    def _report(self, infos: list[dict[str, float]], statistics: dict[str, float], seconds: float) -> None:
        """Pass the scalars of an iteration that took `seconds` to the loggers."""
        scalars = _means(infos) | statistics
        if self.normalise and "env/score" in scalars:
            scalars["env/normalised_score"] = self.normalise(scalars["env/score"])
        scalars |= {f"perf/{name}": part / seconds for name, part in self.seconds.items()}
        scalars["perf/steps_per_second"] = self.batch / seconds
        self.scalars |= scalars
        for logger in self.loggers:
            logger.log(self.steps, scalars)

    def save(self) -> None:
        """Write a checkpoint, if there is a path.

        Raises:
            OSError: in one sentence, if it cannot be written.
        """
        if self.path is None and self.group.size == 1:
            return
        state = self.state_dict()  # in every process, since all of them contribute
        if self.path is not None and self.group.rank == 0:
            checkpoint.save(self.path, state)

    def state_dict(self) -> dict[str, Any]:
        """Return everything that a run needs to resume bit for bit, and its config.

        Tensors are not copied, so save them before training continues. "others" holds what differs in the other
        processes of a group, by rank; only the first process receives it.
        """
        own = {"generator": self.generator.get_state(), **self.collector.state_dict()}
        return {
            "config": self.run_config,
            "steps": self.steps,
            "policy": self.policy.state_dict(),
            "optimiser": self.updater.optimiser.state_dict(),
            **own,
            "others": self.group.gather(own, self.device),
        }

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Resume from a `state_dict` or a loaded checkpoint.

        Raises:
            UserError: if it belongs to another kind of run. Nothing has changed then, except that environments and
                opponents may have been restored before a later one refused its state.
        """
        size = checkpoint.RunSize(self.group.size, len(self.collector.starts), len(self.collector.splits))
        own = checkpoint.process_state(saved, self.group.rank, size)
        self._check_state(saved, own)
        self.collector.load_state_dict(own)
        self.policy.load_state_dict(saved["policy"])
        self.updater.optimiser.load_moments(saved["optimiser"]["state"])
        self.generator.set_state(own["generator"])
        self.steps = saved["steps"]

    def _check_state(self, saved: Mapping[str, Any], own: Mapping[str, Any]) -> None:
        """Check what the network and the agents of this run would load."""
        memory = [self.collector.starts, *self.collector.state]
        optimiser = self.updater.optimiser.state_dict()
        checkpoint.check_optimiser(optimiser["name"], saved["optimiser"])
        try:
            checkpoint.check_weights(self.policy, saved["policy"])
            checkpoint.check_moments(optimiser["state"], saved["optimiser"]["state"])
            checkpoint.check_memory([own["starts"], *own["state"]], memory)
            torch.Generator(self.device).set_state(own["generator"])
        except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(
                "The checkpoint's policy or device differs from this run's: resume with the settings it was saved with."
            ) from error


def check_minibatch(config: TrainerConfig, group: ProcessGroup) -> None:
    """Raise UserError for a minibatch that is too small for a group of processes."""
    least = config.rollout_length * group.size
    if minibatch_size(config, group) < least:
        raise UserError(
            f"trainer.minibatch={config.minibatch} is too small to share among {group.size} processes: give {least} or "
            f"more, a rollout_length for each, or set trainer.minibatch_per_process=true."
        )


def _means(infos: list[dict[str, float]]) -> dict[str, float]:
    """Return the mean of each value in the infos, under its tag."""
    collected = defaultdict(list)
    for info in infos:
        for name, value in info.items():
            collected[TAGS.get(name, f"env/{name}")].append(float(value))
    return {name: sum(values) / len(values) for name, values in collected.items()}
