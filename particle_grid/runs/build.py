"""What a run's config builds: its environment and its policy. The config is a nested dict, as in checkpoints."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from particle_grid.env import ParticleGrid
from particle_grid.evaluation.scores import ActFn, PlayerFactory
from particle_grid.learn import checkpoint
from particle_grid.learn.checkpoint import check_weights, load_weights
from particle_grid.learn.player import Player
from particle_grid.learn.policy import POLICIES, Policy, make_policy
from particle_grid.learn.trainer import TrainerConfig, choose_device
from particle_grid.runs import schema
from particle_grid.runs.opponents import Opponents
from particle_grid.support import registry

SAVED = ("config", "steps", "policy", "optimiser", "generator", "envs", "opponents", "starts", "state")


def load_run(path: str | Path, parts: tuple[str, ...] = SAVED) -> dict[str, Any]:
    """Return the checkpoint of a run. Raise ValueError, in one sentence, for a file that is none, that lacks one of the
    parts, or in which one is of another kind."""
    state = checkpoint.load(path)
    try:
        schema.check(state, parts)
    except ValueError as error:
        raise ValueError(f"{path} {error}. Use one that train has saved.") from error
    return state


def places(config: Mapping[str, Any]) -> list[str]:
    """Return the classes of the user's own, as module:Class, that the config of a run names."""
    names = config["task"]["name"], config["policy"]["name"], config["policy"].get("head")
    return [name for name in names if registry.is_place(name)]


def build_env(config: Mapping[str, Any]) -> ParticleGrid:
    """The environment of a config with `task` (name and parameters), `action` (name), `world` and `seed`."""
    task = dict(config["task"])
    return ParticleGrid(
        task.pop("name", None), config["action"]["name"], seed=config["seed"], **config["world"], **task
    )


def build_env_splits(config: dict[str, Any], env: ParticleGrid, settings: TrainerConfig) -> list[ParticleGrid]:
    """The environment of a config, `env`, in as many parts as the trainer's `splits` says, with its worlds shared out.

    Raises ValueError where they cannot be shared out evenly."""
    worlds, count = env.world.worlds, settings.env_splits
    if not count:
        on_gpu = choose_device(settings.device).type == "cuda"
        alone = not (settings.scripted_opponents or settings.opponent_pool)
        count = 2 if on_gpu and worlds % 2 == 0 and alone else 1
    if worlds % count:
        raise ValueError(
            f"trainer.env_splits={count} cannot share world.worlds={worlds} out evenly: give a divisor of it, or 1."
        )
    if count == 1:
        return [env]
    world = config["world"] | {"worlds": worlds // count}
    return [build_env(config | {"world": world, "seed": config["seed"] + k}) for k in range(count)]


def build_policy(
    config: Mapping[str, Any], env: ParticleGrid, weights: Mapping[str, torch.Tensor] | None = None
) -> Policy:
    """Return the policy of a config, with the weights of a checkpoint, or fresh ones that depend on its seed only.

    Raises ValueError for weights of another policy. Of the policies here, no memory is spent before."""
    options = dict(config["policy"])
    make = partial(make_policy, options.pop("name", None), env.vision, env.single_action_space)
    if weights is not None and config["policy"]["name"] in POLICIES:
        with torch.device("meta"):
            check_weights(make(**options | {"init_action_rms": None}), weights)  # it would compute with weights
    torch.manual_seed(config["seed"])
    policy = make(**options)
    if weights is not None:
        load_weights(policy, weights)
    return policy


def policy_player(policy: Policy, greedy: bool = False, side: int | None = None) -> PlayerFactory:
    """A policy as a player to score; side: to play this one only, which spares what others would have done.

    A policy with discrete actions also plays in an environment with continuous ones, where whole moves are possible."""

    def make(env: ParticleGrid, seed: int) -> ActFn:
        mine = slice(None) if side is None else env.team(side)
        player = Player(policy, len(env.rewards[mine]), seed, greedy)
        actions = np.zeros_like(env.actions)

        def act(observations: np.ndarray, starts: np.ndarray) -> np.ndarray:
            moves = player(observations[mine], starts[mine])
            actions[mine] = moves - 1 if moves.dtype.kind == "i" and not env.discrete else moves
            return actions

        return act

    return make


def opponents_for(policy: Policy, settings: TrainerConfig) -> Callable[[ParticleGrid], Opponents | None]:
    """Who else plays in an environment that is trained in; raises ValueError when asked for one where nobody can."""
    some = settings.scripted_opponents or settings.opponent_pool
    return lambda env: Opponents(env, policy, settings) if some else None
