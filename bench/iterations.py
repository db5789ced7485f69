"""Iterations of a trainer, for `bench/train.py` and, in another checkout's process, for `bench/baseline.py`.

This module therefore runs with the trainer of this tree and with those of earlier commits, whose settings have other
names.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import cache
from typing import Any

import numba
import torch

from particle_grid.env import ParticleGrid
from particle_grid.learn.policy import make_policy
from particle_grid.learn.trainer import Trainer, TrainerConfig

SETTLE = 0.3  # seconds until the threads of the previous case have stopped spinning
EARLIER = {"rollout_length": "horizon"}  # names of settings up to commit a89e765


@dataclass(frozen=True)
class Settings:
    """What is trained, how, and on how many threads. Sizes count agent-steps."""

    task: str
    action: str
    agents: int
    size: int  # cells along each side of the world
    policy: str
    head: str
    fast: str
    rollout_length: int
    minibatch: int  # 0: the default of the checkout
    threads: int


@dataclass(frozen=True)
class Iteration:
    """The seconds of an iteration, and of its parts by name."""

    seconds: float
    parts: dict[str, float]


def timed_iteration(run: Callable[[], object], torch_threads: int, numba_threads: int) -> Iteration:
    """Run a function with these numbers of threads, after those of the previous case have stopped spinning."""
    torch.set_num_threads(torch_threads)
    numba.set_num_threads(numba_threads)
    time.sleep(SETTLE)
    begin = time.perf_counter()
    run()
    return Iteration(time.perf_counter() - begin, {})


def make_trainer(settings: Settings) -> tuple[Trainer, int]:
    """Return a trainer and the number of torch threads that it chose: fast networks have threads of their own."""
    torch.set_num_threads(settings.threads)
    torch.manual_seed(0)
    env = ParticleGrid(settings.task, settings.action, 1, settings.agents, settings.size, settings.size)
    policy = make_policy(settings.policy, env.vision, env.single_action_space, head=settings.head)
    known = {field.name for field in fields(TrainerConfig)}
    names = ("rollout_length", "minibatch", "fast", "threads")
    given = {name: getattr(settings, name) for name in names if name != "minibatch" or settings.minibatch}
    config: dict[str, Any] = {name if name in known else EARLIER[name]: value for name, value in given.items()}
    return Trainer(env, policy, TrainerConfig(**config)), torch.get_num_threads()


_known_trainer = cache(make_trainer)


def iterate(settings: Settings) -> Iteration:
    """Run an iteration of the trainer with these settings. The first call makes it."""
    trainer, torch_threads = _known_trainer(settings)

    def run() -> None:
        trainer.rollout()
        trainer.update()

    iteration = timed_iteration(run, torch_threads, settings.threads)
    return replace(iteration, parts=dict(trainer.seconds))
