"""Build the environment and the policy of a run from its settings."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

import numpy as np
import torch

from particle_grid.env import ParticleGrid, action_space
from particle_grid.learn.checkpoint import check_weights, load_weights
from particle_grid.learn.config import TrainerConfig
from particle_grid.learn.distributed import choose_device
from particle_grid.learn.gpu.pinned import arrays_in_block
from particle_grid.learn.policy import POLICIES, Policy, make_policy
from particle_grid.runs.load import Checkpoint
from particle_grid.runs.opponents import TeamOpponents
from particle_grid.settings.run_config import RunConfig
from particle_grid.sim.memory import buffer_shapes, check_memory
from particle_grid.support.errors import UserError
from particle_grid.support.registry import check_allowed


def build_env(config: RunConfig, pinned: bool = False) -> ParticleGrid:
    """Return the environment of a run.

    Args:
        config: the settings of the run.
        pinned: whether its buffers belong in one block of page-locked memory, which a GPU copies in the background.

    Raises:
        UserError: if something is invalid, or the run names classes that may not be imported, its policy's included.
    """
    check_allowed(config.places())
    buf = None
    if pinned:
        check_memory(config.world)
        buf = arrays_in_block(buffer_shapes(config.world, np.dtype(action_space(config.action).dtype)))
    return ParticleGrid(config.task, config.action, seed=config.seed, buf=buf, world=config.world, **config.task_params)


def build_env_splits(config: RunConfig, env: ParticleGrid) -> list[ParticleGrid]:
    """Return the environment of a run in as many parts as `trainer.env_splits` says, which divide its worlds.

    For a GPU, even a single part is an environment of its own, in page-locked memory.

    Raises:
        UserError: if the worlds cannot be divided evenly.
    """
    worlds = config.world.worlds
    count = config.trainer.env_splits or _default_splits(config)
    if worlds % count:
        raise UserError(
            f"trainer.env_splits={count} cannot share world.worlds={worlds} out evenly: give a divisor of it, or 1."
        )
    gpu = choose_device(config.trainer.device).type == "cuda"
    if count == 1 and not gpu:
        return [env]
    world = replace(config.world, worlds=worlds // count)
    return [build_env(replace(config, world=world, seed=config.seed + k), pinned=gpu) for k in range(count)]


def _default_splits(config: RunConfig) -> int:
    """Return two splits on a GPU, so that one is simulated while the other is inferred, and else one."""
    trainer = config.trainer
    on_gpu = choose_device(trainer.device).type == "cuda"
    alone = not (trainer.scripted_opponents or trainer.opponent_pool)
    return 2 if on_gpu and config.world.worlds % 2 == 0 and alone else 1


def build_policy(config: RunConfig, weights: Mapping[str, torch.Tensor] | None = None) -> Policy:
    """Return the policy of a run, with the given weights, or fresh ones that depend only on the run's seed.

    Raises:
        UserError: if the weights do not fit, or the run names classes that may not be imported, its task's included.
            Policies of this package are checked before any memory is allocated.
    """
    check_allowed(config.places())
    options = dict(config.policy_options)
    make = partial(make_policy, config.policy, config.world.vision, action_space(config.action))
    if weights is not None and config.policy in POLICIES:
        with torch.device("meta"):
            # Without weights, which the initialisation would compute with.
            check_weights(make(**options | {"init_action_rms": None, "init_actions": "rms"}), weights)
    torch.manual_seed(config.seed)
    policy = make(**options)
    if weights is not None:
        load_weights(policy, weights)
    return policy


def trained_policy(saved: Checkpoint, device: torch.device) -> Policy:
    """Return the policy of a checkpoint on a device.

    Raises:
        UserError: as `build_policy`.
    """
    return build_policy(saved.config, saved.weights).to(device)


def second_team(env: ParticleGrid) -> np.ndarray:
    """Return which agents are in the second team, bool[N]; none if the task has one team."""
    return env.team(1) if env.task.teams > 1 else np.zeros(env.num_agents, bool)


def opponents_for(policy: Policy, settings: TrainerConfig) -> Callable[[ParticleGrid], TeamOpponents | None]:
    """Return a function that makes the opponents for a training environment, or None if there are none.

    The function raises UserError for an environment in which there can be no opponents.
    """
    some = settings.scripted_opponents or settings.opponent_pool
    return lambda env: TeamOpponents(env, policy, settings) if some else None
