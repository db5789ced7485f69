"""Long run that checks for leaks, slowdowns and errors: half of the time simulating, half of it training.

    python bench/soak.py                    # an hour
    python bench/soak.py --minutes 2

Simulation cycles through every task, action form and dynamics with random actions, some of them NaN. After each turn
the whole state is checked, and observations are compared with a plain reading of the grid. Training cycles through
every task, with a checkpoint after each iteration. Both run at least five rounds, which may take longer than requested.
If something is wrong, the program says what and exits with code 1. Peak memory must not grow once every case has had a
few turns; glibc is told to return freed memory, since otherwise the peak would measure fragmentation rather than use.
Speed is only reported: the last third of the rounds compared with the first, and likewise for the bare copy of
windows, which shows how the machine itself varies.
"""

import argparse
import ctypes
import itertools
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
from interrupt import until_interrupted
from timing import announced, machine, peak, timed, window_copy

from particle_grid.env import ACTIONS, ParticleGrid
from particle_grid.learn.config import TrainerConfig
from particle_grid.learn.policy import make_policy
from particle_grid.learn.trainer import Trainer
from particle_grid.sim import tasks
from particle_grid.sim.snapshot import flaw
from particle_grid.sim.world import AGENT_1, DYNAMICS, FOOD, WALL

WORLDS = 4
AGENTS = 1024
SIDE = 192
# Parameter of glibc's mallopt: blocks of at least this many bytes are returned to the system when freed.
MMAP_THRESHOLD = -3
WARM, MEGABYTES = 2, 16  # rounds after which memory should be constant, and the growth in MB that is tolerated
Case = Callable[[], tuple[int, float, str]]  # returns agent-steps, the seconds they took, and what was wrong after them
TURN = 64  # steps in a turn of a case


def build(task: str, action: str, dynamics: str) -> ParticleGrid:
    params = {"text": "PUF"} if task == "puffer" else {}  # the default word is wider than the field
    settings = {"walls": 0.02, "lifespan": 100.0, "max_episode_steps": 500, "dynamics": dynamics}
    return ParticleGrid(task, action, WORLDS, AGENTS, SIDE, SIDE, **settings, **params)


def actions_of(env: ParticleGrid, generator: np.random.Generator) -> np.ndarray:
    """Return random actions, a few of which are NaN or out of range."""
    if env.discrete:
        return generator.integers(-1, 4, (env.num_agents, 2), dtype=np.int32)
    actions = generator.uniform(-1.2, 1.2, (env.num_agents, 2)).astype(np.float32)
    actions[:: AGENTS // 8, 0] = np.nan
    return actions


def fixed(env: ParticleGrid) -> dict[str, int]:
    """Count what no step may change: walls, and food in the field, under agents, and due to regrow."""
    v, state = env.vision, env.state
    cells = state.grid[:, v : v + SIDE, v : v + SIDE]
    food = (cells == FOOD).sum() + (state.under == FOOD).sum() + state.food_debt.sum()
    return {"walls": int((state.grid == WALL).sum()), "food": int(food)}


def seen(env: ParticleGrid) -> np.ndarray:
    """Return the windows of all agents by a plain reading of the grid, u8[N, side, side]."""
    v, (row, column) = env.vision, env.state.position.astype(np.int64)
    windows = np.lib.stride_tricks.sliding_window_view(env.state.grid, (2 * v + 1, 2 * v + 1), (1, 2))
    return windows[np.arange(env.num_agents) // AGENTS, row - v, column - v]


def wrong(env: ParticleGrid, before: dict[str, int]) -> str:
    """Return what is wrong with an environment that has stepped, or an empty string."""
    state = env.state
    if found := flaw(env.state_dict(), env.rules, env.task.sight):
        return f"no run reaches this state: {found}"
    windows = seen(env).reshape(env.num_agents, -1)
    own, every = (windows == state.colour[:, None]).sum(1), (windows >= AGENT_1).sum(1)
    counted = (state.own_in_sight == own - 1).all() and (state.others_in_sight == every - own).all()
    reach = np.float32(env.world.speed) + np.float32(1e-4)
    holds = {
        "walls and food are conserved": fixed(env) == before,
        "agents see the cells around them": (env.observations[:, : windows.shape[1]] == windows).all(),
        "neighbours are counted": counted or not env.task.sight,
        "no agent exceeds the speed": (np.abs(state.displacement) <= reach).all(),
        "rewards are within [-1, 1]": (np.abs(env.rewards) <= 1).all(),
        "agents that spawned have no reward": not env.rewards[env.truncations].any(),
        "lives end in the future": (state.expiry.reshape(WORLDS, AGENTS) > state.tick[:, None]).all(),
        "worlds end at their max_episode_steps": (state.tick < env.world.max_episode_steps).all(),
    }
    return ", ".join(f"no longer: {what}" for what, true in holds.items() if not true)


def simulating(env: ParticleGrid, generator: np.random.Generator) -> Case:
    """Return a case that takes some steps with random actions."""
    env.reset(0)
    before = fixed(env)

    def turn() -> tuple[int, float, str]:
        seconds = 0.0
        for _ in range(TURN):
            actions = actions_of(env, generator)
            seconds += timed(lambda actions=actions: env.step(actions))
        return TURN * env.num_agents, seconds, wrong(env, before)

    return turn


def training(env: ParticleGrid, path: Path) -> Case:
    """Return a case that runs one iteration of PPO, which raises for non-finite values, and saves a checkpoint."""
    policy = make_policy("conv_lstm", env.vision, env.single_action_space)
    trainer = Trainer(env, policy, TrainerConfig(total_steps=1 << 60, anneal=False), path=path)
    before = fixed(env)

    def turn() -> tuple[int, float, str]:
        trainer.config = TrainerConfig(total_steps=trainer.steps + 1, anneal=False)  # one more iteration
        begin = time.monotonic()
        result = trainer.run()
        seconds = time.monotonic() - begin
        if result.interrupted:  # it handles Ctrl-C and SIGTERM itself
            raise KeyboardInterrupt(result.signal or signal.SIGINT)
        return trainer.batch, seconds, wrong(env, before)

    return turn


def rounds(cases: dict[str, Case], seconds: float) -> Iterator[tuple[int, float]]:
    """Give each case a turn, repeatedly, and yield the agent-steps and seconds of each round.

    The program exits if something is wrong.
    """
    begin = time.monotonic()
    for k in itertools.count():
        if time.monotonic() - begin > seconds and k > WARM + 2:
            return
        steps, took = 0, 0.0
        for name, case in cases.items():
            count, lasted, bad = case()
            steps, took = steps + count, took + lasted
            if bad:
                sys.exit(f"{name}, round {k}: {bad}")
        yield steps, took


def soak(what: str, cases: dict[str, Case], seconds: float) -> None:
    """Run the cases and print the results. Exit if something is wrong or memory grows."""
    still = build("center", "discrete", DYNAMICS[0])
    still.reset(0)  # until then agents have no position, and their windows lie outside the grid
    copy = window_copy(still)
    speeds = list[float]()
    copies = list[float]()
    total = 0
    memory = 0.0
    for k, (steps, took) in enumerate(rounds(cases, seconds)):
        total, memory = total + steps, peak() if k == WARM else memory
        speeds.append(steps / took)
        copies.append(1 / timed(copy, 100))
        if k & (k - 1) == 0:  # at every power of two
            done = f"{total:,} agent-steps, {speeds[-1] / 1e3:,.0f}k per second, {peak():.0f} MB"
            print(f"{what}: round {k}, {done}", flush=True)
    third = len(speeds) // 3
    slower, mood = (np.median(x[:third]) / np.median(x[-third:]) for x in (speeds[WARM:], copies[WARM:]))
    print(
        f"{what}: {total:,} agent-steps in {len(speeds)} rounds of {len(cases)} cases, all of it right; "
        f"{peak() - memory:+.1f} MB since round {WARM}; time of a step, last third against first: {slower:.2f} "
        f"(window copy: {mood:.2f})."
    )
    if peak() - memory > MEGABYTES:
        sys.exit(f"{what}: peak memory grew from {memory:.0f} MB to {peak():.0f} MB")


def give_back() -> None:
    """Make glibc return freed blocks of 128 KiB and more to the system.

    By default it raises this limit after a larger block was freed, and keeps fragmented heaps.
    """
    with suppress(AttributeError):  # a C library other than glibc
        ctypes.CDLL(None).mallopt(MMAP_THRESHOLD, 128 << 10)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0)
    seconds = parser.parse_args().minutes * 60
    print(f"On {machine()['processor']}, {machine()['numba_threads']} threads")
    give_back()
    generator = np.random.default_rng(0)
    names = announced("Preparing to simulate", itertools.product(tasks.names(), ACTIONS, DYNAMICS))
    soak("Simulating", {" ".join(name): simulating(build(*name), generator) for name in names}, seconds / 2)
    with tempfile.TemporaryDirectory() as folder:
        names = announced(
            "Preparing to train", zip(tasks.names(), itertools.cycle(ACTIONS), itertools.repeat(DYNAMICS[0]))
        )
        cases = {" ".join(name): training(build(*name), Path(folder) / f"{name[0]}.pt") for name in names}
        soak("Training", cases, seconds / 2)


if __name__ == "__main__":
    until_interrupted(main)
