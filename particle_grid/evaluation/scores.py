"""Scores: how well a player plays a task, and where that lies between random actions (0) and the task's script (1)."""

import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from particle_grid.env import ParticleGrid

STORED = Path(__file__).parents[1] / "sim" / "baselines.json"
SEEDS = 1000, 1001, 1002  # of an evaluation, unless one asks for others; away from training's
STEPS, MOST = 256, 16  # of an evaluation, for each 256 that an agent may expect to live, but at most so many times

MOST_EPISODES = 10_000

ActFn = Callable[[np.ndarray, np.ndarray], np.ndarray]  # observations u8[N, row], starts bool[N] -> actions
PlayerFactory = Callable[[ParticleGrid, int], ActFn]  # a player for an environment, with a seed of its own


def steps_for(env: ParticleGrid) -> int:
    """Steps of an evaluation: longer where agents live longer, up to 4096, since they may have far to go. Agents that
    never respawn live until their world starts anew, or for ever."""
    life = env.world.lifespan or env.world.max_episode_steps or math.inf
    return STEPS * math.ceil(min(max(life / 256, 1), MOST))


def seeds(count: int) -> tuple[int, ...]:
    """The seeds of an evaluation of `count` episodes. Raises ValueError for a number that cannot be."""
    if type(count) is not int or not 0 <= count <= MOST_EPISODES:
        raise ValueError(
            f"evaluations={count} is no number of episodes: give a whole number from 0 to {MOST_EPISODES}."
        )
    return tuple(range(SEEDS[0], SEEDS[0] + count))


def random_player(env: ParticleGrid, seed: int) -> ActFn:
    """Uniformly random actions."""
    generator, shape = np.random.default_rng(seed), (env.num_agents, 2)
    if env.discrete:
        return lambda observations, starts: generator.integers(0, 3, shape, dtype=np.int32)
    return lambda observations, starts: generator.uniform(-1, 1, shape).astype(np.float32)


def scripted_player(env: ParticleGrid, seed: int) -> ActFn:
    """The task's scripted policy."""
    generator = np.array([seed % 2**64], np.uint64)  # seeds may be larger
    return lambda observations, starts: env.scripted_actions(generator)


def match(
    env: ParticleGrid, makers: list[PlayerFactory], seed: int, steps: int, watch: Callable[[], None] = lambda: None
) -> np.ndarray:
    """Plays `steps` steps from a reset, agents of side k by makers[k], or all of them by one; calls `watch` after each
    step. Raises ValueError for what is no match.

    Returns the score of each side, f64[teams], averaged over the second half of the steps: the first is for the agents
    to get to where they want to be."""
    if seed is None or type(steps) is not int or steps < 1:
        raise ValueError(f"seed={seed} and steps={steps} make no match: give a seed, and 1 step or more.")
    if len(makers) not in (1, env.task.teams):
        raise ValueError(f"{len(makers)} players cannot play {env.task.teams} team(s): give one for each, or one.")
    env.reset(seed)
    players = [maker(env, seed + k) for k, maker in enumerate(makers)]
    sides = [env.team(k) for k in range(len(makers))]
    starts, scores = np.ones(env.num_agents, bool), []
    for step in range(steps):
        actions = players[0](env.observations, starts)
        for player, side in zip(players[1:], sides[1:], strict=True):
            actions[side] = player(env.observations, starts)[side]
        starts = env.step(actions)[3]
        if step >= steps // 2:
            scores.append(env.score())
        watch()
    return np.mean(scores, axis=0)


def evaluate(
    env: ParticleGrid,
    maker: PlayerFactory,
    seeds: tuple[int, ...] = SEEDS,
    steps: int | None = None,
    watch: Callable[[], None] = lambda: None,
) -> np.ndarray:
    """Scores of a player, f64[seeds, teams]. Where two teams play each other, each side's is against the script.
    steps: None for `steps_for` the environment. Raises ValueError where there is nothing to play."""
    if not seeds:
        raise ValueError("An evaluation of 0 seeds has no score: give one at least.")
    steps = steps or steps_for(env)
    if env.task.teams == 1:
        return np.stack([match(env, [maker], seed, steps, watch) for seed in seeds])
    one = [[match(env, [maker, scripted_player], seed, steps, watch)[0] for seed in seeds]]
    two = [[match(env, [scripted_player, maker], seed, steps, watch)[1] for seed in seeds]]
    return np.array(one + two).T  # [sides, seeds] -> [seeds, teams]


@dataclass(frozen=True)
class Baseline:
    """What random actions and the script score in one setting; lists [seeds][teams]."""

    random: list[list[float]]
    scripted: list[list[float]]

    def normalise(self, scores: np.ndarray) -> np.ndarray:
        """Scores [..., teams] -> [...]: 0 for random actions, 1 for the script, averaged over sides.

        NaN where the two score the same, as nothing lies between them."""
        random, scripted = np.mean(self.random, 0), np.mean(self.scripted, 0)
        span = np.where(np.abs(scripted - random) > 1e-9, scripted - random, np.nan)
        return ((scores - random) / span).mean(-1)


def settings(env: ParticleGrid) -> dict[str, Any]:
    """All that a baseline depends on."""
    action = "discrete" if env.discrete else "continuous"
    return {"task": env.task_name, "action": action, **asdict(env.world), "params": asdict(env.task)}  # type: ignore[call-overload]


def measure(env: ParticleGrid, seeds: tuple[int, ...] = SEEDS, steps: int | None = None) -> Baseline:
    """Plays the setting of an environment with random actions and with the script; some seconds."""
    return Baseline(
        evaluate(env, random_player, seeds, steps).tolist(), evaluate(env, scripted_player, seeds, steps).tolist()
    )


def stored(env: ParticleGrid, seeds: tuple[int, ...] = SEEDS, steps: int | None = None) -> Baseline | None:
    """The baseline that ships with the package for the setting of an environment, if it has one."""
    key = settings(env) | {"seeds": list(seeds), "steps": steps or steps_for(env)}
    for entry in json.loads(STORED.read_text("utf-8")) if STORED.exists() else []:
        if entry["settings"] == key:
            return Baseline(entry["random"], entry["scripted"])
    return None
