"""Speed of training: the whole loop of simulation, inference and learning, compared with other loops and a limit.

    python bench/train.py
    python bench/train.py --threads 1 --minibatch 8192 --seconds 300 --json train.json

Cases take turns, one iteration each, on the same threads, in the same environment and with the same network: conv_lstm
on its fast path in bf16 and fp32, in plain torch, in a loop in the style of CleanRL, and in sb3-contrib's RecurrentPPO
(pip install -e ".[bench]"). The limit is the time of the matrix products of an iteration alone.
"""

import argparse
import itertools
import time
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
import torch
from interrupt import until_interrupted
from loops import clean_loop, recurrent_ppo
from timing import announced, interleaved, report, timed

from particle_grid.env import ACTIONS, ParticleGrid
from particle_grid.learn.config import TrainerConfig
from particle_grid.learn.fast import cores
from particle_grid.learn.fast.conv_lstm import FastConvLSTM
from particle_grid.learn.policy import CHANNELS, POLICIES, make_policy
from particle_grid.learn.trainer import Trainer

COLUMNS = ["case", "k agent-steps/s", "times slower", "quartiles", "parts"]
REFERENCE = "conv_lstm discrete, bf16"
SETTLE = 0.3  # seconds until the threads of the previous case have stopped spinning
ACTING_CHUNK = 1024  # agents
LEARNING_CHUNK = 512

Case = Callable[[], float]  # runs once and returns the seconds it took


def products(network: FastConvLSTM, n: int, config: TrainerConfig) -> Callable[[], None]:
    """Return a function that computes the matrix products of one iteration of n agents, in the fast path's chunks."""
    steps = config.rollout_length
    acting = [multiplication(network, ACTING_CHUNK, steps, False) for _ in range(n // ACTING_CHUNK)]
    learning = [multiplication(network, LEARNING_CHUNK, steps, True) for _ in range(n // LEARNING_CHUNK)]

    def multiply() -> None:
        for runs in (acting, learning):
            list(network.pool.map(lambda run: run(), runs))

    return multiply


def multiplication(network: FastConvLSTM, chunk: int, steps: int, learning: bool) -> Callable[[], None]:
    """Return a function that computes the matrix products of a chunk of agents."""

    def rows(*shape: int) -> torch.Tensor:
        return torch.randn(shape).to(network.dtype)

    buffers = [rows(chunk, width) for width in network.widths]
    hidden, joint, gates, x = buffers
    joint_matrix = rows(network.widths[1], network.widths[2])
    conv = rows(network.widths[0], CHANNELS)
    recurrent = joint_matrix[-network.size :].t()
    into = joint_matrix[:CHANNELS].t()
    d_h = rows(chunk, network.size)

    def run() -> None:
        for _ in range(steps):
            torch.mm(hidden, conv, out=x)
            torch.mm(joint, joint_matrix, out=gates)
            if learning:
                torch.mm(gates, recurrent, out=d_h)
                torch.mm(gates, into, out=x)
                torch.mm(x, conv.t(), out=hidden)
                torch.mm(joint.t(), gates)
                torch.mm(hidden.t(), x)

    return run


def iterating(trainer: Trainer) -> Callable[[], None]:
    """Return a function that runs one iteration of a trainer."""

    def iteration() -> None:
        trainer.rollout()
        trainer.update()

    return iteration


def turn(run: Callable[[], None], threads: int) -> Case:
    """Return a case that runs a function with this number of torch threads."""

    def one() -> float:
        torch.set_num_threads(threads)
        time.sleep(SETTLE)
        return timed(run)

    return one


class Bench:
    """The cases of the benchmark by name."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.config = {
            "rollout_length": options.rollout_length,
            "minibatch": options.minibatch,
            "threads": options.threads,
        }
        self.cases: dict[str, Case] = {}
        self.trainers: dict[str, Trainer] = {}

    def add_all(self) -> None:
        """Add every case."""
        for action, fast in announced("Preparing conv_lstm", itertools.product(ACTIONS, ("bf16", "fp32", "off"))):
            self.add_trainer("conv_lstm", action, fast)
        for policy in sorted(POLICIES.keys() - {"conv_lstm"}):
            self.add_trainer(policy, "discrete", "off")
        for fast in ("bf16", "fp32"):
            self.add_products(fast)
        self.add_loop("CleanRL's manner", clean_loop)
        self.add_loop("sb3-contrib RecurrentPPO", recurrent_ppo)

    def add_trainer(self, policy: str, action: str, fast: str) -> None:
        """Add the trainer of this package."""
        env = self.world(action)
        network = make_policy(policy, env.vision, env.single_action_space)
        trainer = Trainer(env, network, TrainerConfig(fast=fast, **self.config))
        name = f"{policy} {action}, {fast if fast != 'off' else 'plain torch'}"
        self.trainers[name] = trainer
        self.cases[name] = turn(iterating(trainer), self.options.threads if trainer.network is network else 1)

    def add_products(self, fast: str) -> None:
        """Add the matrix products of the discrete conv_lstm."""
        network = self.trainers[f"conv_lstm discrete, {fast}"].network
        assert isinstance(network, FastConvLSTM)
        run = products(network, self.options.agents, TrainerConfig(**self.config))
        self.cases[f"products alone, {fast}"] = turn(run, 1)

    def add_loop(self, name: str, loop: Callable[[ParticleGrid, TrainerConfig], Callable[[], None]]) -> None:
        """Add the loop of another library, if it is installed."""
        try:
            run = loop(self.world("discrete"), TrainerConfig(**self.config))
        except ImportError as error:
            print(f'{name} is skipped ({error}): pip install -e ".[bench]"')
            return
        self.cases[f"{name}, discrete"] = turn(run, self.options.threads)

    def world(self, action: str) -> ParticleGrid:
        """Return an environment."""
        options = self.options
        return ParticleGrid(options.task, action, 1, options.agents, options.size, options.size)

    def row(self, name: str, seconds: np.ndarray, reference: np.ndarray) -> dict[str, Any]:
        """Return the table row of a case from its times and those of the reference case."""
        batch = self.options.agents * self.options.rollout_length
        parts = self.trainers[name].seconds if name in self.trainers else {}
        return {
            "case": name,
            "k agent-steps/s": float(batch / np.median(seconds) / 1e3),
            "times slower": float(np.median(seconds / reference)),
            "quartiles": "{:.2f} to {:.2f}".format(*np.quantile(seconds / reference, [0.25, 0.75])),
            "parts": ", ".join(f"{part} {s / sum(parts.values()):.0%}" for part, s in parts.items()) or "-",
        }


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--agents", type=int, default=4096)
    parser.add_argument("--size", type=int, default=512, help="cells along each side of the world")
    parser.add_argument("--task", default="group")
    parser.add_argument("--threads", type=int, default=cores())
    parser.add_argument("--rollout-length", type=int, default=32)
    parser.add_argument("--minibatch", type=int, default=32_768)
    parser.add_argument("--seconds", type=float, default=240.0)
    parser.add_argument("--json", help="path for the figures")
    return parser.parse_args()


def main() -> None:
    """Measure all cases and print a table."""
    options = arguments()
    numba.set_num_threads(options.threads)
    bench = Bench(options)
    bench.add_all()
    times = interleaved(bench.cases, options.seconds)
    rows = [bench.row(name, seconds, times[REFERENCE]) for name, seconds in times.items()]
    batch = options.agents * options.rollout_length
    title = f"{options.task}, {options.agents} agents, batch {batch}, minibatch {options.minibatch}"
    report(f"{title}, {options.threads} thread(s)", COLUMNS, rows, options.json)


if __name__ == "__main__":
    until_interrupted(main)
