"""Players: random actions, the task's script, and trained policies. Each is made for one environment."""

from collections.abc import Callable

import numpy as np

from particle_grid.env import ParticleGrid
from particle_grid.learn.player import Player
from particle_grid.learn.policy import Policy

ActFn = Callable[[np.ndarray, np.ndarray], np.ndarray]  # observations u8[N, bytes], starts bool[N] -> actions [N, 2]
PlayerFactory = Callable[[ParticleGrid, int], ActFn]  # environment, seed -> a player with its own random numbers


def random_player(env: ParticleGrid, seed: int) -> ActFn:
    """Return a player that draws actions uniformly."""
    generator = np.random.default_rng(seed)
    shape = (env.num_agents, 2)
    if env.discrete:
        return lambda observations, starts: generator.integers(0, 3, shape, dtype=np.int32)
    return lambda observations, starts: generator.uniform(-1, 1, shape).astype(np.float32)


def scripted_player(env: ParticleGrid, seed: int) -> ActFn:
    """Return a player that follows the task's scripted policy."""
    generator = np.array([seed % 2**64], np.uint64)  # seeds may be larger
    return lambda observations, starts: env.scripted_actions(generator)


def policy_player(policy: Policy, greedy: bool = False, team: int | None = None) -> PlayerFactory:
    """Return the factory of players that follow a policy.

    A policy with discrete actions also plays in an environment with continuous ones, which include whole moves.

    Args:
        policy: a trained policy with the environment's vision.
        greedy: whether to take the most probable actions instead of sampling.
        team: the only team to play, which saves computing actions for the other; None for all agents.
    """

    def make(env: ParticleGrid, seed: int) -> ActFn:
        mine = slice(None) if team is None else env.team(team)
        player = Player(policy, len(env.rewards[mine]), seed, greedy)
        actions = np.zeros_like(env.actions)

        def act(observations: np.ndarray, starts: np.ndarray) -> np.ndarray:
            moves = player(observations[mine], starts[mine])
            whole = moves.dtype.kind == "i" and not env.discrete
            actions[mine] = moves - 1 if whole else moves
            return actions

        return act

    return make
