"""Speed of other multi-agent simulators compared with this one, in turn, in one process on one core.

Each simulator is driven by its fastest interface with new random actions, and writes observations and rewards: MAgent2
by its C library without the dictionaries around it, VMAS by a batch of worlds, MPE2 (PettingZoo) as it is. The games
differ, so the ratio tells what an agent-step costs a researcher, not which program is written better.

    pip install -e ".[bench]"
    python bench/peers.py                                        # a minute; --seconds 300 for steadier figures
    python bench/peers.py --seconds 60 --json peers.json
"""

import argparse
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import numba
import numpy as np
import torch
from interrupt import until_interrupted
from timing import announced, interleaved, report

from particle_grid.env import ParticleGrid

STEPS = 20  # in a turn of a case
OURS = "particle_grid"
COLUMNS = ["case", "agents", "ns per agent", "M agent-steps/s", "times slower", "quartiles"]
Step = Callable[[], int]  # runs one step of a simulator and returns how many agents acted


def particle_grid(task: str, action: str) -> tuple[str, Step]:
    env, generator = ParticleGrid(task, action), np.random.default_rng(0)
    env.reset(0)

    def step() -> int:
        if env.discrete:
            env.step(generator.integers(0, 3, (env.num_agents, 2), dtype=np.int32))
        else:
            env.step(generator.uniform(-1, 1, (env.num_agents, 2)).astype(np.float32))
        return env.num_agents

    return f"{OURS}: {task} {action}", step


def magent2() -> Iterator[tuple[str, Step]]:
    """Two armies of about 2,500 agents each that see 13 x 13 cells; the battle restarts every 100 steps."""
    from magent2.environments import battle_v4

    battle = battle_v4.parallel_env(map_size=250).unwrapped
    generator = np.random.default_rng(0)
    steps = 0
    battle.reset()
    grid, armies = battle.env, battle.handles

    def step() -> int:
        nonlocal steps
        if steps and steps % 100 == 0:
            battle.reset()
        steps, acted = steps + 1, sum(grid.get_num(army) for army in armies)
        for army in armies:
            actions = generator.integers(0, grid.get_action_space(army)[0], grid.get_num(army), dtype=np.int32)
            grid.set_action(army, actions)
        grid.step()
        for army in armies:
            grid.get_reward(army)
        grid.clear_dead()
        for army in armies:
            grid.get_observation(army)
        return acted

    yield "MAgent2: battle", step


def vmas() -> Iterator[tuple[str, Step]]:
    """Many worlds of 4 agents, on the CPU; in `flocking` agents see their surroundings with a lidar."""
    from vmas import make_env

    # More worlds would be hardly faster per agent.
    for scenario, number in (("dispersion", 65_536), ("flocking", 1024)):
        worlds = make_env(scenario, num_envs=number, device="cpu", continuous_actions=True, seed=0, n_agents=4)
        worlds.reset()

        def step(worlds: Any = worlds) -> int:
            worlds.step([2 * torch.rand(worlds.num_envs, 2) - 1 for _ in worlds.agents])
            return worlds.num_envs * len(worlds.agents)

        yield f"VMAS: {scenario}", step


def mpe2() -> Iterator[tuple[str, Step]]:
    """One world, with three agents that spread out or three that chase a fourth."""
    from mpe2 import simple_spread_v3, simple_tag_v3

    for name, module in (("simple_spread", simple_spread_v3), ("simple_tag", simple_tag_v3)):
        world = module.parallel_env(max_cycles=10**9)
        world.reset(seed=0)

        def step(world: Any = world, generator: np.random.Generator = np.random.default_rng(0)) -> int:  # noqa: B008
            world.step({agent: int(generator.integers(0, 5)) for agent in world.agents})
            return len(world.agents)

        yield f"MPE2: {name}", step


PEERS = {"MAgent2": magent2, "VMAS": vmas, "MPE2": mpe2}


def turn(step: Step) -> Callable[[], float]:
    """Return a case that measures seconds per agent-step, including the time to draw actions, which all need."""

    def one() -> float:
        acted, begin = 0, time.perf_counter()
        for _ in range(STEPS):
            acted += step()
        return (time.perf_counter() - begin) / acted

    return one


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0, help="total measuring time")
    parser.add_argument("--json", help="path for the figures")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"  # for libraries that are imported later
    torch.set_num_threads(1)
    numba.set_num_threads(1)
    ours = announced("Starting particle_grid", (("group", "discrete"), ("group", "continuous")))
    steps = dict(particle_grid(*case) for case in ours)
    agents = {name: step() for name, step in steps.items()}
    reference = next(iter(steps))
    for name in announced("Starting", PEERS):
        try:
            for case, step in PEERS[name]():
                steps[case], agents[case] = step, step()
        except ImportError as error:
            print(f'{name} is skipped ({error}): pip install -e ".[bench]"')
    times = interleaved({name: turn(step) for name, step in steps.items()}, options.seconds)
    rows = []
    for name, seconds in times.items():
        ratio = seconds / times[reference]
        rows.append(
            {
                "case": name,
                "agents": agents[name],
                "ns per agent": float(np.median(seconds) * 1e9),
                "M agent-steps/s": float(1e-6 / np.median(seconds)),
                "times slower": float(np.median(ratio)),
                "quartiles": "{:.2f} to {:.2f}".format(*np.quantile(ratio, [0.25, 0.75])),
            }
        )
    report(f"Simulators, against {reference}", COLUMNS, rows, options.json)


if __name__ == "__main__":
    until_interrupted(main)
