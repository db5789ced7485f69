"""Speed of the simulator: whole `env.step`s beside the bare copy of the windows, which is the limit.

    python bench/sim.py                                          # every task and action form, 4096 agents, one thread
    python bench/sim.py --agents 1024 4096 32768 --threads 1 2 --json sim.json --plot sim.png
    python bench/sim.py --scale                                  # many worlds, a million agents, 64 agents

Worlds have 1024 x 1024 cells. Actions are random and fresh in each step: cycling a few would drive agents into the
walls, where nothing happens. The copy is that of windows of agents all over the world; cases take turns with it, and
ratios are between neighbours in time. Plots need the extra `bench`.
"""

import argparse
import resource
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from timing import interleaved, plot_lines, report, timed, window_copy

from particle_grid.env import ACTIONS, ParticleGrid
from particle_grid.sim import tasks

WARM, STEPS = 5, 20  # a case's turn: steps that do not count, for the caches, and steps that do
COPY = "window copy"
COLUMNS = ["case", "agents", "threads", "ns per agent", "M agent-steps/s", "times the copy", "quartiles"]


def stepping(env: ParticleGrid, generator: np.random.Generator) -> Callable[[], float]:
    """A case: seconds of one step of an environment, the drawing of its actions not counted."""
    env.reset(0)

    def one() -> float:
        if env.discrete:
            actions = generator.integers(0, 3, (env.num_agents, 2), dtype=np.int32)
        else:
            actions = generator.uniform(-1, 1, (env.num_agents, 2)).astype(np.float32)
        return timed(lambda: env.step(actions))

    return lambda: [one() for _ in range(WARM)] and float(np.mean([one() for _ in range(STEPS)]))


def copying(env: ParticleGrid) -> Callable[[], float]:
    """The case of the limit: seconds of one copy of all windows."""
    copy = window_copy(env)
    return lambda: timed(copy, WARM) and timed(copy, STEPS)


def rows_of(times: dict[str, np.ndarray], agents: int, threads: int) -> list[dict[str, Any]]:
    """A row of figures for each case; the ratios are of each round by itself, since load comes and goes."""
    rows = []
    for name, seconds in times.items():
        ratio, per_agent = seconds / times[COPY], np.median(seconds) / agents
        rows.append(
            {
                "case": name,
                "agents": agents,
                "threads": threads,
                "ns per agent": float(per_agent * 1e9),
                "M agent-steps/s": float(1e-6 / per_agent),
                "times the copy": float(np.median(ratio)),
                "quartiles": " to ".join(f"{q:.2f}" for q in np.quantile(ratio, [0.25, 0.75])),
            }
        )
    return rows


def sweep(names: list[str], sizes: list[int], threads: list[int], seconds: float) -> list[dict[str, Any]]:
    """Every task and action form, for each number of agents and threads."""
    rows, generator = [], np.random.default_rng(0)
    for agents in sizes:
        envs = {f"{task} {action}": ParticleGrid(task, action, 1, agents) for task in names for action in ACTIONS}
        spread = ParticleGrid("center", "discrete", 1, agents)
        spread.reset(0)
        cases = {name: stepping(env, generator) for name, env in envs.items()} | {COPY: copying(spread)}
        for count in threads:
            numba.set_num_threads(count)
            rows += rows_of(interleaved(cases, seconds), agents, count)
    return rows


def scale(threads: list[int], seconds: float) -> list[dict[str, Any]]:
    """One big world beside many small ones with as many agents, and as dense; a million agents; and very few."""
    rows, generator = [], np.random.default_rng(0)
    settings = {"1 world": (1, 262_144, 8192), "4096 worlds": (4096, 64, 128), "a million": (1, 1 << 20, 16_384)}
    for count in threads:
        numba.set_num_threads(count)
        for names in (["1 world", "4096 worlds"], ["a million"], ["64 agents"]):
            envs = {}
            for name in names:
                worlds, agents, size = settings.get(name, (1, 64, 64))
                envs[name] = ParticleGrid("group", "continuous", worlds, agents, size, size)
            cases = {name: stepping(env, generator) for name, env in envs.items()}
            times = interleaved(cases | {COPY: copying(next(iter(envs.values())))}, seconds / 3)
            rows += rows_of(times, next(iter(envs.values())).num_agents, count)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"The process has needed {peak:.1f} GiB at most.")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", default=tasks.names(), choices=tasks.names())
    parser.add_argument("--agents", type=int, nargs="+", default=[4096])
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    parser.add_argument("--seconds", type=float, default=30.0, help="of each number of agents and threads")
    parser.add_argument("--scale", action="store_true", help="measure worlds of very different size instead")
    parser.add_argument("--json", help="path to write the figures to")
    parser.add_argument("--plot", help="path to write a picture to: cost against agents and against threads")
    options = parser.parse_args()
    if options.scale:
        rows = scale(options.threads, options.seconds)
    else:
        rows = sweep(options.tasks, options.agents, options.threads, options.seconds)
    report("Simulator", COLUMNS, rows, options.json)
    if options.plot:
        plot_lines(rows, ["agents", "threads"], "ns per agent", options.plot)


if __name__ == "__main__":
    main()
