"""Speed of the simulator: whole `env.step` calls compared with a bare copy of the windows, which is the limit.

    python bench/sim.py                                          # every task and action form, 4096 agents, one thread
    python bench/sim.py --agents 1024 4096 32768 --threads 1 2 --json sim.json --plot sim.png
    python bench/sim.py --scale                                  # many worlds, a million agents, 64 agents

Worlds have 1024 x 1024 cells. Every step has new random actions, since repeating a few would drive agents into walls,
where nothing happens. The copy covers the windows of agents all over the world. Cases alternate with it, and ratios
compare measurements close in time. Plots need the extra `bench`.
"""

import argparse
import itertools
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from interrupt import until_interrupted
from timing import announced, interleaved, peak, plot_lines, report, timed, window_copy

from particle_grid.env import ACTIONS, ParticleGrid
from particle_grid.sim import tasks

WARM, STEPS = 5, 20  # unmeasured steps in a case's turn, which fill the caches, and measured ones
COPY = "window copy"
COLUMNS = ["case", "agents", "threads", "ns per agent", "M agent-steps/s", "times the copy", "quartiles"]
# Worlds, agents per world, cells along a side. The windows of the first world in each group are copied.
SCALES = [
    [(1, 64, 64)],
    # Equal numbers of agents at equal density, in fewer or more worlds.
    [(1, 32_768, 2048), (64, 512, 256), (512, 64, 90)],
    [(1, 262_144, 8192), (64, 4096, 1024), (4096, 64, 128)],
    [(1, 1 << 20, 16_384)],
]


def stepping(env: ParticleGrid, generator: np.random.Generator, threads: int) -> Callable[[], float]:
    """Return a case that measures seconds per step of an environment, without the time to draw its actions."""

    def one() -> float:
        if env.discrete:
            actions = generator.integers(0, 3, (env.num_agents, 2), dtype=np.int32)
        else:
            actions = generator.uniform(-1, 1, (env.num_agents, 2)).astype(np.float32)
        return timed(lambda: env.step(actions))

    def turn() -> float:
        numba.set_num_threads(threads)
        return float(np.mean([one() for _ in range(WARM + STEPS)][WARM:]))

    return turn


def copying(env: ParticleGrid, threads: int) -> Callable[[], float]:
    """Return a case that measures seconds per copy of all windows: the limit."""
    copy = window_copy(env)

    def turn() -> float:
        numba.set_num_threads(threads)
        timed(copy, WARM)
        return timed(copy, STEPS)

    return turn


def measure(
    envs: dict[str, ParticleGrid], spread: ParticleGrid, threads: list[int], seconds: float
) -> list[dict[str, Any]]:
    """Return a row of figures for each environment and number of threads, and for the copy of the windows in `spread`.

    Ratios are taken within each round, because the load of the machine varies.
    """
    generator, cases = np.random.default_rng(0), {}
    spread.reset(0)
    for name in announced("Resetting", envs):
        envs[name].reset(0)
    for count in threads:
        cases |= {f"{name}, {count}": stepping(env, generator, count) for name, env in envs.items()}
        cases[f"{COPY}, {count}"] = copying(spread, count)
    rows = []
    for case, times in (measured := interleaved(cases, seconds)).items():
        name, count = case.rsplit(", ", 1)
        ratio, per_agent = times / measured[f"{COPY}, {count}"], np.median(times) / spread.num_agents
        rows.append(
            {
                "case": name,
                "agents": spread.num_agents,
                "threads": int(count),
                "ns per agent": float(per_agent * 1e9),
                "M agent-steps/s": float(1e-6 / per_agent),
                "times the copy": float(np.median(ratio)),
                "quartiles": " to ".join(f"{q:.2f}" for q in np.quantile(ratio, [0.25, 0.75])),
            }
        )
    return rows


def sweep(names: list[str], sizes: list[int], threads: list[int], seconds: float) -> list[dict[str, Any]]:
    """Measure every task and action form for each number of agents."""
    rows = []
    for agents in sizes:
        cases = announced(f"Preparing {agents:,} agents,", itertools.product(names, ACTIONS))
        envs = {" ".join(case): ParticleGrid(*case, 1, agents) for case in cases}
        rows += measure(envs, ParticleGrid("center", "discrete", 1, agents), threads, seconds)
    return rows


def scale(threads: list[int], seconds: float) -> list[dict[str, Any]]:
    """Measure worlds of very different size and number, with the task group and continuous actions."""
    rows = []
    for group in SCALES:
        envs = {
            f"{worlds} x {agents} on {size} x {size}": ParticleGrid("group", "continuous", worlds, agents, size, size)
            for worlds, agents, size in announced("Preparing worlds, agents, size,", group)
        }
        rows += measure(envs, next(iter(envs.values())), threads, seconds)
        print(f"{', '.join(envs)}: peak memory of the process so far {peak() / 1024:.2f} GiB")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", default=tasks.names(), choices=tasks.names())
    parser.add_argument("--agents", type=int, nargs="+", default=[4096])
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    parser.add_argument("--seconds", type=float, default=30.0, help="measuring time for each number of agents")
    parser.add_argument("--scale", action="store_true", help="measure worlds of very different size instead")
    parser.add_argument("--json", help="path for the figures")
    parser.add_argument("--plot", help="path for a plot of the cost against agents and threads")
    options = parser.parse_args()
    if options.scale:
        rows = scale(options.threads, options.seconds)
    else:
        rows = sweep(options.tasks, options.agents, options.threads, options.seconds)
    report("Simulator", COLUMNS, rows, options.json)
    if options.plot:
        axes = {"agents": {"threads": min(options.threads)}, "threads": {"agents": max(options.agents)}}
        plot_lines(rows, axes, "ns per agent", options.plot)


if __name__ == "__main__":
    until_interrupted(main)
