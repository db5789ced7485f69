"""Matches: players act in an environment for some steps, and each team gets a score."""

import math
from collections.abc import Callable, Sequence

import numpy as np

from particle_grid.env import ParticleGrid
from particle_grid.evaluation.players import PlayerFactory, scripted_player
from particle_grid.settings.run_config import RunConfig
from particle_grid.support.errors import UserError

SEEDS = tuple(range(1000, 1000 + RunConfig.evaluations))  # by default; far from those used in training
STEPS = 256  # the length of an evaluation is a multiple of this
MAX_MULTIPLE = 16


def steps_for(env: ParticleGrid) -> int:
    """Return the length of an evaluation: the agents' expected life, rounded up to a multiple of 256, at most 4096.

    Agents that never respawn live until their world restarts, or forever.
    """
    life = env.world.lifespan or env.world.max_episode_steps or math.inf
    return STEPS * math.ceil(min(max(life / 256, 1), MAX_MULTIPLE))


def seeds(count: int) -> tuple[int, ...]:
    """Return the seeds of an evaluation of `count` episodes."""
    return tuple(range(SEEDS[0], SEEDS[0] + count))


def match(
    env: ParticleGrid,
    players: Sequence[PlayerFactory],
    seed: int,
    steps: int,
    watch: Callable[[], None] = lambda: None,
) -> np.ndarray:
    """Play one match from a reset, and return the score of each team.

    Args:
        env: the environment, whose state is overwritten.
        players: one for each team, or one for all agents.
        seed: of the environment; team k's player gets seed + k.
        steps: length of the match.
        watch: called after each step.

    Returns:
        f64[teams], averaged over the second half of the steps; in the first, agents get to where they want to be.

    Raises:
        UserError: for a missing seed, no steps, or another number of players.
    """
    if seed is None or type(steps) is not int or steps < 1:
        raise UserError(f"A match with seed={seed} and steps={steps} is impossible: give a seed and at least 1 step.")
    _check_players(env, players)
    env.reset(seed)
    acting = [player(env, seed + k) for k, player in enumerate(players)]
    masks = [env.team(k) for k in range(len(players))]
    starts = np.ones(env.num_agents, bool)
    scores = []
    for step in range(steps):
        actions = acting[0](env.observations, starts)
        for act, mask in zip(acting[1:], masks[1:], strict=True):
            actions[mask] = act(env.observations, starts)[mask]
        starts = env.step(actions)[3]
        if step >= steps // 2:
            scores.append(env.score())
        watch()
    return np.mean(scores, axis=0)


def _check_players(env: ParticleGrid, players: Sequence[PlayerFactory]) -> None:
    teams = env.task.teams
    if len(players) not in (1, teams):
        raise UserError(f"{len(players)} players cannot play {teams} team(s): give one for each team, or one for all.")


def evaluate(
    env: ParticleGrid,
    player: PlayerFactory,
    seeds: Sequence[int] = SEEDS,
    steps: int | None = None,
    watch: Callable[[], None] = lambda: None,
) -> np.ndarray:
    """Return the scores of a player. If a task has two teams, it plays each of them against the script.

    Args:
        env: the environment, whose state is overwritten.
        player: the player to evaluate.
        seeds: one episode is played with each.
        steps: length of an episode; None for `steps_for` the environment.
        watch: called after each step.

    Returns:
        f64[seeds, teams] in the task's unit.

    Raises:
        UserError: if there are no seeds.
    """
    if not seeds:
        raise UserError("An evaluation needs at least one seed.")
    length = steps or steps_for(env)
    if env.task.teams == 1:
        return np.stack([match(env, [player], seed, length, watch) for seed in seeds])
    first = [match(env, [player, scripted_player], seed, length, watch)[0] for seed in seeds]
    second = [match(env, [scripted_player, player], seed, length, watch)[1] for seed in seeds]
    return np.stack([first, second], axis=1)
