"""Speed of training: the whole loop, simulate, infer and learn, beside others' loops and beside its own limit.

    python bench/train.py
    python bench/train.py --threads 1 --minibatch 8192 --seconds 300 --json train.json

Each case runs whole iterations in turn with the others, on the same threads, in the same environment, with the same
network: conv_lstm on its fast path in bf16 and in fp32, in plain torch, in the manner of CleanRL and in sb3-contrib's
RecurrentPPO (pip install -e ".[bench]"). The limit is what the matrix products of an iteration take by themselves.
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
from particle_grid.learn.fast import cores
from particle_grid.learn.fast.conv_lstm import FastConvLSTM
from particle_grid.learn.policy import CHANNELS, POLICIES, make_policy
from particle_grid.learn.trainer import Trainer, TrainerConfig

COLUMNS = ["case", "k agent-steps/s", "times slower", "quartiles", "parts"]


def products(network: FastConvLSTM, n: int, config: TrainerConfig) -> Callable[[], None]:
    """The matrix products of one iteration of n agents, shared out as the fast path does, and nothing else."""

    def rows(*shape: int) -> torch.Tensor:
        return torch.randn(shape).to(network.dtype)

    def multiply(chunk: int, steps: int, learning: bool) -> Callable[[], None]:
        hidden, joint, gates, x = (rows(chunk, width) for width in network.widths)
        joint_matrix, conv = rows(network.widths[1], network.widths[2]), rows(network.widths[0], CHANNELS)
        recurrent, into = joint_matrix[-network.size :].t(), joint_matrix[:CHANNELS].t()
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

    steps = config.rollout_length
    act = [multiply(1024, steps, False) for _ in range(n // 1024)]
    learn = [multiply(512, steps, True) for _ in range(n // 512)]
    return lambda: [list(network.pool.map(lambda run: run(), runs)) for runs in (act, learn)] and None


def iterating(trainer: Trainer) -> Callable[[], None]:
    def iteration() -> None:
        trainer.rollout()
        trainer.update()

    return iteration


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--agents", type=int, default=4096)
    parser.add_argument("--size", type=int, default=512, help="cells along each side of the world")
    parser.add_argument("--task", default="group")
    parser.add_argument("--threads", type=int, default=cores())
    parser.add_argument("--rollout-length", type=int, default=32)
    parser.add_argument("--minibatch", type=int, default=32_768)
    parser.add_argument("--seconds", type=float, default=240.0)
    parser.add_argument("--json", help="path to write the figures to")
    options = parser.parse_args()
    numba.set_num_threads(options.threads)
    settings: dict[str, Any] = {
        "rollout_length": options.rollout_length,
        "minibatch": options.minibatch,
        "threads": options.threads,
    }
    cases: dict[str, Callable[[], float]] = {}
    trainers: dict[str, Trainer] = {}

    def world(action: str) -> ParticleGrid:
        return ParticleGrid(options.task, action, 1, options.agents, options.size, options.size)

    def turn(run: Callable[[], None], threads: int) -> Callable[[], float]:
        def one() -> float:
            torch.set_num_threads(threads)
            time.sleep(0.3)  # until the threads of the case before have stopped spinning
            return timed(run)

        return one

    def train(name: str, policy: str, action: str, fast: str) -> None:
        env = world(action)
        network = make_policy(policy, env.vision, env.single_action_space)
        trainers[name] = trainer = Trainer(env, network, TrainerConfig(fast=fast, **settings))
        cases[name] = turn(iterating(trainer), options.threads if trainer.network is network else 1)

    for action, fast in announced("Preparing conv_lstm", itertools.product(ACTIONS, ("bf16", "fp32", "off"))):
        train(f"conv_lstm {action}, {fast if fast != 'off' else 'plain torch'}", "conv_lstm", action, fast)
    for policy in sorted(POLICIES.keys() - {"conv_lstm"}):
        train(f"{policy} discrete, plain torch", policy, "discrete", "off")
    for fast in ("bf16", "fp32"):
        network = trainers[f"conv_lstm discrete, {fast}"].network
        assert isinstance(network, FastConvLSTM)
        cases[f"products alone, {fast}"] = turn(products(network, options.agents, TrainerConfig(**settings)), 1)
    for name, loop in (("CleanRL's manner", clean_loop), ("sb3-contrib RecurrentPPO", recurrent_ppo)):
        try:
            cases[f"{name}, discrete"] = turn(loop(world("discrete"), TrainerConfig(**settings)), options.threads)
        except ImportError as error:
            print(f'{name} is left out ({error}): pip install -e ".[bench]"')
    times, batch, rows = interleaved(cases, options.seconds), options.agents * options.rollout_length, []
    reference = times["conv_lstm discrete, bf16"]
    for name, seconds in times.items():
        parts = trainers[name].seconds if name in trainers else {}
        rows.append(
            {
                "case": name,
                "k agent-steps/s": float(batch / np.median(seconds) / 1e3),
                "times slower": float(np.median(seconds / reference)),
                "quartiles": "{:.2f} to {:.2f}".format(*np.quantile(seconds / reference, [0.25, 0.75])),
                "parts": ", ".join(f"{part} {s / sum(parts.values()):.0%}" for part, s in parts.items()) or "-",
            }
        )
    title = f"{options.task}, {options.agents} agents, batch {batch}, minibatch {options.minibatch}"
    report(f"{title}, {options.threads} thread(s)", COLUMNS, rows, options.json)


if __name__ == "__main__":
    until_interrupted(main)
