"""Speed of the simulator: a whole env.step of every task and action form, beside the bare copy of the windows.

    python bench/sim.py                                  # one thread, 4096 agents on 1024 x 1024
    python bench/sim.py --threads 2 --agents 32768 --json sim.json

Actions are random and fresh in each step: cycling a few would drive agents into the walls, where nothing happens.
"""

import argparse
from collections.abc import Callable

import numba
import numpy as np
from timing import interleaved, report, timed, window_copy

from particle_grid.env import ACTIONS, ParticleGrid
from particle_grid.sim import tasks

STEPS = 20  # of a case, each time it is its turn


def stepping(env: ParticleGrid, generator: np.random.Generator) -> Callable[[], float]:
    """A case: seconds of one step of an environment, the drawing of its actions not counted."""
    env.reset(0)

    def case() -> float:
        total = 0.0
        for _ in range(STEPS):
            if env.discrete:
                actions = generator.integers(0, 3, (env.num_agents, 2), dtype=np.int32)
            else:
                actions = generator.uniform(-1, 1, (env.num_agents, 2)).astype(np.float32)
            total += timed(lambda: env.step(actions))  # noqa: B023  (called at once)
        return total / STEPS

    return case


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--agents", type=int, default=4096)
    parser.add_argument("--worlds", type=int, default=1, help="worlds that share the agents out")
    parser.add_argument("--size", type=int, default=1024, help="cells along each side of a world")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=20.0, help="of measuring, compilation not counted")
    parser.add_argument("--json", help="path to write the figures to")
    options = parser.parse_args()
    numba.set_num_threads(options.threads)
    generator, cases = np.random.default_rng(0), {}
    world = {"worlds": options.worlds, "agents": options.agents // options.worlds}
    for task in tasks.names():
        for action in ACTIONS:
            env = ParticleGrid(task=task, action=action, height=options.size, width=options.size, **world)
            cases[f"{task} {action}"] = stepping(env, generator)
    copy = window_copy(env)  # of the last one, whose agents have scattered like any other's
    cases["window copy"] = lambda: timed(copy, STEPS)
    times = interleaved(cases, options.seconds)
    rows = []
    for name, seconds in times.items():
        ratio = seconds / times["window copy"]  # of each round by itself: load comes and goes
        per_agent = np.median(seconds) / env.num_agents
        rows.append(
            {
                "case": name,
                "ns per agent": float(per_agent * 1e9),
                "M agent-steps/s": float(1e-6 / per_agent),
                "times the copy": float(np.median(ratio)),
                "quartiles": " to ".join(f"{q:.2f}" for q in np.quantile(ratio, [0.25, 0.75])),
            }
        )
    place = f"{options.worlds} world(s) of {options.size} x {options.size}"
    title = f"{options.agents} agents, {place}, {options.threads} thread(s)"
    report(title, list(rows[0]), rows, options.json)


if __name__ == "__main__":
    main()
