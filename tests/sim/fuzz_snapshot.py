"""Change saved states at random: an accepted state must run without errors.

    python -m tests.sim.fuzz_snapshot CASES SEED

This is a separate program, because a damaged state that is accepted may crash the process.
"""

import sys

import numpy as np

from particle_grid.sim.world import AGENT_1, FOOD, WALL
from tests.cases import field, random_actions, small

STEPS = 50
TASKS = ("forage", "group", "puffer", "predator_prey", "herd", "optimize")
ODD = (0, 1, 2, 3, 7, 120, 127, 128, 255, -1, 2**31 - 1, 2**62, 2**63 - 1, -(2**63), 0.5, 1e30, -1e30, np.nan, np.inf)


def bits(array, generator):
    """Flip some bits."""
    raw = array.reshape(-1).view(np.uint8)
    places = generator.integers(len(raw), size=generator.choice([1, 3, 100]))
    raw[places] ^= np.uint8(1) << generator.integers(8, size=len(places), dtype=np.uint8)


def odd_values(array, generator):
    """Set some elements to numbers at the edge of a range."""
    places = generator.integers(array.size, size=generator.choice([1, 1, 10]))
    with np.errstate(all="ignore"):
        array.reshape(-1)[places] = np.array(generator.choice(ODD)).astype(array.dtype)


def all_alike(array, generator):
    with np.errstate(all="ignore"):
        array[...] = np.array(generator.choice(ODD)).astype(array.dtype)


def swapped(array, generator):
    """Swap two elements."""
    i, j = generator.integers(array.size, size=2)
    flat = array.reshape(-1)
    flat[i], flat[j] = flat[j], flat[i]


def shifted(array, generator):
    array[...] = np.roll(array, generator.integers(1, 5), axis=generator.integers(array.ndim))


def nearly_the_same(array, generator):
    """Add one to an element."""
    with np.errstate(all="ignore"):
        array.reshape(-1)[generator.integers(array.size)] += array.dtype.type(1)


def open_margin(saved, generator):
    """Remove all walls, including those of the margin."""
    saved["grid"][saved["grid"] == WALL] = 0


def step_outside(saved, generator):
    """Move an agent into the margin, in the grid too."""
    i = generator.integers(len(saved["colour"]))
    w = i * len(saved["grid"]) // len(saved["colour"])
    row, column = saved["position"][:, i].astype(int)
    saved["grid"][w, row, column], saved["grid"][w, 1, 1] = WALL, saved["colour"][i]
    saved["position"][:, i] = 1.5


def moved_wall(saved, generator):
    """Move a wall from the margin into the field, so that the number of walls stays right."""
    saved["grid"][0, 2, 2] = 0
    empty = np.argwhere(saved["grid"][0] == 0)
    saved["grid"][(0, *empty[generator.integers(1, len(empty))])] = WALL


CHANGES = (bits, odd_values, all_alike, swapped, shifted, nearly_the_same)
ATTACKS = (open_margin, step_outside, moved_wall)


def damage(saved, other, generator):
    """Change a saved state, or take an array from another one."""
    kind = generator.integers(10)
    if kind == 0:
        generator.choice(ATTACKS)(saved, generator)
        return
    for name in generator.choice(list(saved), size=generator.choice([1, 1, 2])):
        if kind == 1:
            saved[name] = other[name].copy()
        else:
            array = saved[name].view(np.uint8) if saved[name].dtype == bool else saved[name]
            generator.choice(CHANGES)(array, generator)


def meals(env):
    return (field(env) == FOOD).sum() + (env.state.under == FOOD).sum() + env.state.food_debt.sum()


def check(env, walls, food, colours):
    """Check what holds after every step of any run, reading the arrays plainly."""
    world, (row, column) = np.arange(env.num_agents) // env.world.agents, env.state.position.astype(int)
    assert ((env.state.grid == WALL) == walls).all()
    assert (env.state.colour == colours).all()
    assert (env.state.grid[world, row, column] == colours).all()
    assert (env.state.grid >= AGENT_1).sum() == env.num_agents
    assert len({*zip(world, row, column, strict=True)}) == env.num_agents
    assert meals(env) == food
    assert np.isfinite(env.rewards).all()
    assert np.abs(env.rewards).max() <= 1
    assert np.abs(env.state.displacement).max() <= env.world.speed + 1e-4
    assert (env.state.expiry.reshape(env.world.worlds, -1) > env.state.tick[:, None]).all()
    assert np.isfinite(env.score()).all()
    v, i = env.vision, env.num_agents // 2
    window = env.state.grid[world[i], row[i] - v : row[i] + v + 1, column[i] - v : column[i] + v + 1]
    assert (env.observations[i, : window.size] == window.reshape(-1)).all()


def episode(env, twin, generator):
    """Damage the state of `env` and load it into `twin`. Return whether it was accepted."""
    saved = env.state_dict()
    for _ in range(3):
        env.step(random_actions(env, generator))
    damage(saved, env.state_dict(), generator)
    twin.reset(1)
    walls, food = env.state.grid == WALL, meals(env)
    try:
        twin.load_state_dict(saved)
    except ValueError:
        return False
    for _ in range(STEPS):
        twin.scripted_actions(np.zeros(1, np.uint64))
        twin.step(random_actions(twin, generator))
        check(twin, walls, food, env.state.colour)
    return True


def main():
    cases, seed = map(int, sys.argv[1:])
    generator, taken = np.random.default_rng(seed), 0
    for task in TASKS:
        for form in ("discrete", "continuous"):
            env, twin = (small(task, form, lifespan=30.0, agents=24, speed=1.5) for _ in range(2))
            for case in range(cases // len(TASKS) // 2):
                if case % 20 == 0:
                    env.reset(int(generator.integers(1 << 30)))
                env.step(random_actions(env, generator))
                taken += episode(env, twin, generator)
    print(f"{cases} cases, {taken} taken")


if __name__ == "__main__":
    main()
