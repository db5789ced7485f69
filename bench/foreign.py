"""Do the arms of the study also differ elsewhere? One environment of Gymnasium, the same trainer, other observations.

    python bench/foreign.py                                      # LunarLander, which the extra `bench` installs; hours
    python bench/foreign.py --env Pendulum-v1 --steps 300000     # any environment with a Box of actions

LunarLander comes with both action forms: four discrete actions, or a Box of two engines. The arm `discrete` uses the
former, if an environment has them; the others act in the Box with the heads of particle_grid. The discrete actions
cannot fire two engines at once, so arms are compared with `bins3`, three choices for each engine. The policy is two
layers of 64 units on normalised numbers, and the trainer is PPO with Adam, as usual for these environments. Each arm
gets the learning rate with the best mean score over the tuning seeds, and is tested with new seeds.

The score of a run is the mean return of the episodes that end in the last tenth of its steps. Runs use one thread, one
after the other, and each arm has a file of its own: to use more cores, start commands with other --arms.
"""

import argparse
import itertools
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.spaces import Box, MultiDiscrete
from gymnasium.wrappers import vector
from interrupt import until_interrupted
from resumable import completed
from torch import Tensor, nn

from particle_grid.experiments import stats
from particle_grid.experiments.study.summary import with_interval
from particle_grid.learn.config import TrainerConfig
from particle_grid.learn.heads import Head, make_head
from particle_grid.learn.policy import Policy, RecurrentState, orthogonal
from particle_grid.learn.trainer import Trainer
from particle_grid.support.errors import UserError

ARMS: dict[str, dict[str, Any]] = {
    "bins3": {"head": "bins", "bins": 3},
    "discrete": {},
    "bins9": {"head": "bins", "bins": 9},
    "hurdle": {"head": "hurdle"},
    "beta": {"head": "beta"},
    "gaussian": {"head": "gaussian"},
    "capg": {"head": "capg"},
}
BOTH_FORMS = {"LunarLander-v3": "continuous"}  # environments with both action forms, and the option that chooses
RATES = (1e-3, 3e-4, 3e-3)
TUNING_SEEDS = (100, 101)
COPIES = 32  # of the environment, each an agent
GAMMA = 0.99
LAST = 0.1  # share of the steps whose episodes count


class Gym:
    """Copies of an environment of Gymnasium, as the trainer wants them: observations are the bytes of float32 numbers.

    After an episode, Gymnasium resets a copy in an extra step that ignores the action. That step is the truncation.
    """

    def __init__(self, name: str, discrete: bool) -> None:
        form = {BOTH_FORMS[name]: not discrete} if name in BOTH_FORMS else {}
        envs = gymnasium.make_vec(name, num_envs=COPIES, vectorization_mode="sync", **form)
        envs = vector.RecordEpisodeStatistics(envs)
        self.envs = vector.NormalizeReward(vector.NormalizeObservation(envs), gamma=GAMMA)
        space = envs.single_action_space
        self.discrete = discrete
        self.num_agents = COPIES
        self.numbers = int(np.prod(envs.single_observation_space.shape))
        if discrete:
            self.single_action_space: Box | MultiDiscrete = MultiDiscrete([space.n])
        elif not isinstance(space, Box):
            raise UserError(f"The actions of {name} are {space}, not a Box: choose another --env.")
        else:
            self.centre, self.reach = (space.high + space.low) / 2, (space.high - space.low) / 2
            self.single_action_space = Box(-1.0, 1.0, space.shape)
        self.observations = np.zeros((COPIES, 4 * self.numbers), np.uint8)
        self.rewards = np.zeros(COPIES, np.float32)
        self.terminals = np.zeros(COPIES, bool)
        self.truncations = np.zeros(COPIES, bool)
        self.ended = np.zeros(COPIES, bool)
        self.steps = 0  # of all copies
        self.returns: list[tuple[int, float]] = []  # of each episode, and the step at which it ended

    def observe(self, numbers: np.ndarray) -> None:
        self.observations.view(np.float32)[:] = np.clip(numbers, -10, 10).reshape(COPIES, -1)

    def reset(self, seed: int | None = None) -> tuple[np.ndarray, list]:
        self.observe(self.envs.reset(seed=seed)[0])
        self.truncations[:] = True
        self.ended[:] = False
        return self.observations, []

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, list]:
        own = actions[:, 0] if self.discrete else self.centre + self.reach * np.clip(actions, -1, 1)
        numbers, rewards, terminals, truncations, infos = self.envs.step(own)
        self.observe(numbers)
        self.truncations[:] = self.ended
        self.rewards[:] = np.where(self.ended, 0, rewards)
        self.terminals[:] = terminals
        self.ended = terminals | truncations
        self.steps += COPIES
        if self.ended.any():
            self.returns += [(self.steps, float(each)) for each in infos["episode"]["r"][self.ended]]
        return self.observations, self.rewards, self.terminals, self.truncations, []


class FloatMLP(Policy):
    """Two layers on observations that are the bytes of float32 numbers."""

    def __init__(self, numbers: int, head: Head, hidden: int = 64) -> None:
        super().__init__(0, head, hidden)
        self.observation_size = 4 * numbers
        self.layers = nn.Sequential(nn.Linear(numbers, hidden), nn.Tanh(), nn.Linear(hidden, hidden), nn.Tanh())
        orthogonal(self.layers[0], 2**0.5)
        orthogonal(self.layers[2], 2**0.5)

    def forward(self, obs: Tensor, starts: Tensor, state: RecurrentState) -> tuple[Tensor, Tensor, RecurrentState]:
        return *self.decide(self.layers(obs.view(torch.float32))), state


def trained(name: str, steps: int, arm: str, rate: float, seed: int) -> dict[str, Any]:
    """Train an arm on one thread, and return its row."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    env = Gym(name, arm == "discrete")
    policy = FloatMLP(env.numbers, make_head(env.single_action_space, **ARMS[arm]))
    config = TrainerConfig(
        total_steps=steps, rollout_length=128, minibatch=1024, epochs=4, learning_rate=rate, gamma=GAMMA,
        gae_lambda=0.95, reward_scale=1.0, optimiser="adam", anneal_power=1.0, device="cpu", threads=1, seed=seed,
        checkpoint_every=0,
    )  # fmt: skip
    Trainer(env, policy, config).run()
    last = [score for step, score in env.returns if step > (1 - LAST) * steps]
    if not last:
        raise UserError(f"No episode of {name} ended in the last tenth of {steps} steps: give more --steps.")
    return {"env": name, "steps": steps, "arm": arm, "rate": rate, "seed": seed, "score": float(np.mean(last))}


def run_missing(arm: str, pairs: list[tuple[float, int]], args: argparse.Namespace) -> dict[tuple[float, int], float]:
    """Train the runs of an arm that are not in its file yet; return the scores of all by learning rate and seed."""
    path = args.out / f"{args.env}-{args.steps}" / f"{arm}.csv"
    train = partial(trained, args.env, args.steps, arm)
    rows = completed(f"Training {arm}", path, ("rate", "seed"), pairs, train)
    return {(float(row["rate"]), int(row["seed"])): float(row["score"]) for row in rows}


def tested(arm: str, args: argparse.Namespace) -> tuple[float, np.ndarray]:
    """Return the best learning rate of an arm, and its scores with that over the test seeds, f64[1, seeds]."""
    tuning = run_missing(arm, list(itertools.product(RATES, TUNING_SEEDS)), args)
    best = max(RATES, key=lambda rate: np.mean([tuning[rate, seed] for seed in TUNING_SEEDS]))
    found = run_missing(arm, [(best, seed) for seed in range(args.seeds)], args)
    return best, np.array([[found[best, seed] for seed in range(args.seeds)]])


def table(found: dict[str, tuple[float, np.ndarray]]) -> str:
    """Return a Markdown table: the interquartile mean of each arm, and its difference from the first one."""
    first, (_, reference) = next(iter(found.items()))
    lines = [f"| arm | learning rate | interquartile mean return | difference from `{first}` |", "|---|---|---|---|"]
    for arm, (rate, scores) in found.items():
        cells = [f"`{arm}`", f"{rate:g}", interval_text(stats.interquartile_mean, scores)]
        lines.append("| " + " | ".join([*cells, interval_text(stats.mean_difference, scores, reference)]) + " |")
    return "\n".join(lines) + "\n"


def interval_text(statistic: Callable[..., np.ndarray], *values: np.ndarray) -> str:
    """Return a statistic with its 95% interval, as text."""
    value, low, high = with_interval(statistic, *values)
    return f"{value:.1f} [{low:.1f}, {high:.1f}]"


def check_env(name: str, arms: list[str]) -> None:
    """Raise UserError for an environment that does not exist, lacks a library, or cannot be played by an arm."""
    if "discrete" in arms and name not in BOTH_FORMS:
        raise UserError(f"{name} has no discrete actions: leave the arm discrete out.")
    try:
        Gym(name, discrete=False)
    except (gymnasium.error.Error, ImportError) as error:
        raise UserError(f"{name} cannot be used: {' '.join(str(error).split())}") from error


def options() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", default="LunarLander-v3", help="name of an environment of Gymnasium")
    parser.add_argument("--steps", type=int, default=1_000_000, help="of each run, over all copies")
    parser.add_argument("--seeds", type=int, default=10, help="of the test, five or more")
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), help="(default: all that the environment has)")
    parser.add_argument("--out", type=Path, default=Path("outputs/foreign"), help="folder for the results")
    args = parser.parse_args()
    for name, least in (("seeds", 5), ("steps", 1)):
        if getattr(args, name) < least:
            parser.error(f"--{name} {getattr(args, name)}: give {least} or more")
    return args


def main() -> None:
    """Train what is missing, and print the table."""
    args = options()
    arms = args.arms or [arm for arm in ARMS if arm != "discrete" or args.env in BOTH_FORMS]
    check_env(args.env, arms)
    print(table({arm: tested(arm, args) for arm in arms}))


if __name__ == "__main__":
    until_interrupted(main)
