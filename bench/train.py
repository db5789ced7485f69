"""Speed of training: the whole loop of each policy and action form, beside what its parts could reach alone.

    python bench/train.py
    python bench/train.py --threads 1 --agents 1024 --seconds 60 --json train.json

Beside it are measured: the simulator alone, the bare copy of the windows, and the product of large matrices, which
bounds a network of so many operations.
"""

import argparse
from collections.abc import Callable

import numba
import numpy as np
import torch
from timing import interleaved, report, timed, window_copy
from torch.utils.flop_counter import FlopCounterMode

from particle_grid.env import ACTIONS, ParticleGrid
from particle_grid.learn.policy import POLICIES, make_policy
from particle_grid.learn.trainer import Trainer, TrainerConfig

SIZE = 1024  # of the matrices whose product is timed
PASSES = 4  # forward when acting; forward, and twice as much backward, when learning


def operations(trainer: Trainer) -> float:
    """Floating-point operations of one agent-step forward, as torch counts them in matrix products and convolutions."""
    obs, starts = trainer.obs[None].to(trainer.device), trainer.starts[None]  # [1, N, ...]
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        trainer.policy(obs, starts, trainer.state)
    return counter.get_total_flops() / len(trainer.starts)


def looping(trainer: Trainer) -> Callable[[], float]:
    """A case: seconds of one iteration, simulate, infer and learn."""

    def iteration() -> None:
        trainer.rollout()
        trainer.update()

    return lambda: timed(iteration)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--agents", type=int, default=4096)
    parser.add_argument("--size", type=int, default=512, help="cells along each side of the world")
    parser.add_argument("--task", default="group")
    parser.add_argument("--threads", type=int, default=numba.config.NUMBA_NUM_THREADS)
    parser.add_argument("--seconds", type=float, default=90.0)
    parser.add_argument("--json", help="path to write the figures to")
    options = parser.parse_args()
    numba.set_num_threads(options.threads)
    torch.set_num_threads(options.threads)
    cases: dict[str, Callable[[], float]] = {}
    trainers: dict[str, Trainer] = {}
    for action in ACTIONS:
        for name in POLICIES:
            env = ParticleGrid(options.task, action, 1, options.agents, options.size, options.size)
            policy = make_policy(name, env.vision, env.single_action_space)
            trainers[f"{name} {action}"] = Trainer(env, policy, TrainerConfig())
            cases[f"{name} {action}"] = looping(trainers[f"{name} {action}"])
    generator = np.random.default_rng(0)
    actions = generator.uniform(-1, 1, (256, options.agents, 2)).astype(np.float32)  # fresh for longer than a case
    steps = iter(range(1 << 62))
    copy, matrix = window_copy(env), torch.randn(SIZE, SIZE)
    cases["simulator alone"] = lambda: timed(lambda: env.step(actions[next(steps) % 256]), 32)
    cases["window copy alone"] = lambda: timed(copy, 32)
    cases["matrix product"] = lambda: timed(lambda: torch.mm(matrix, matrix), 4)
    times = {name: float(np.median(seconds)) for name, seconds in interleaved(cases, options.seconds).items()}
    rate = 2 * SIZE**3 / times.pop("matrix product")
    rows = []
    for name, seconds in times.items():
        row = {"case": name, "k agent-steps/s": options.agents / seconds / 1e3, "bound k/s": "-", "share of bound": "-"}
        if name in trainers:
            trainer = trainers[name]
            bound = rate / (PASSES * operations(trainer))
            row["k agent-steps/s"] = trainer.batch / seconds / 1e3
            row |= {"bound k/s": bound / 1e3, "share of bound": trainer.batch / seconds / bound}
            row["parts"] = ", ".join(
                f"{part} {s / sum(trainer.seconds.values()):.0%}" for part, s in trainer.seconds.items()
            )
        rows.append({"parts": "-"} | row)
    title = (
        f"{options.task}, {options.agents} agents, {options.threads} thread(s), products at {rate / 1e9:.0f} GFLOP/s"
    )
    report(title, ["case", "k agent-steps/s", "bound k/s", "share of bound", "parts"], rows, options.json)


if __name__ == "__main__":
    main()
