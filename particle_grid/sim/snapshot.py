"""Restoring a saved state, once every check says that a run with these settings could have reached it.

Kernels trust their arrays: a missing wall, for example, would let agents walk out of the grid. Generators are not
checked, because any value is valid, nor are arrays that each step writes before it reads them.
"""

import itertools
from collections.abc import Iterator, Mapping

import numpy as np

from particle_grid.sim.observation import decode
from particle_grid.sim.rng import FOREVER
from particle_grid.sim.state import Rules
from particle_grid.sim.world import AGENT_1, CODES, EMPTY, FOOD, UNSEEN, WALL
from particle_grid.support import renamed
from particle_grid.support.errors import UserError

Arrays = dict[str, np.ndarray]  # those of a `State`, `observations`, `rewards`, `terminals`, `truncations` and `steps`
LONGEST_LIFE = 37.0  # times the expected life: more than minus the logarithm of the smallest 1 - `uniform`
WINDOW_BYTES = 1 << 24  # bytes of the windows that are compared at a time


def restore(arrays: Arrays, saved: Mapping[str, np.ndarray], r: Rules, sight: bool) -> None:
    """Copy saved arrays into those of the same names. States saved by earlier versions are accepted.

    Raises:
        UserError: before anything is changed, if an array is missing, has another shape or dtype, or if no run could
            have reached the state.
    """
    saved = _checked_arrays(arrays, saved)
    problem = flaw(saved, r, sight)
    if not problem and (saved["colour"] != arrays["colour"]).any():
        problem = "agents have other colours than the task gives them"
    if problem:
        raise UserError(
            f"The saved simulator state does not fit this environment: {problem}. Build the environment with the task "
            f"and the settings it was saved with; if these agree, it is damaged: use another checkpoint."
        )
    for name, array in arrays.items():
        array[...] = saved[name]


def _checked_arrays(arrays: Arrays, saved: Mapping[str, np.ndarray]) -> Arrays:
    """Return the saved arrays under their current names, once their shapes and dtypes are right."""
    if not isinstance(saved, Mapping):
        raise UserError(f"A saved simulator state is a dict of arrays, but this is a {type(saved).__name__}.")
    saved = {renamed.ARRAYS.get(name, name): array for name, array in saved.items()}
    for name, array in arrays.items():
        if name not in saved:
            raise UserError(f"The saved simulator state has no {name!r}: it was not saved by this version.")
        given = np.asarray(saved[name])
        if given.shape != array.shape or given.dtype != array.dtype:
            raise UserError(
                f"The saved {name!r} is {given.dtype}{list(given.shape)}, but this world needs "
                f"{array.dtype}{list(array.shape)}: build it with the settings it was saved with."
            )
    return {name: np.asarray(saved[name]) for name in arrays}


def flaw(a: Arrays, r: Rules, sight: bool) -> str:
    """Return what is wrong with arrays of the right shapes and dtypes; an empty text if nothing is."""
    groups = (_outcome(a), _clocks(a, r), _lives(a, r), _agents(a, r), _cells(a, r), _sights(a, r, sight))
    with np.errstate(invalid="ignore"):  # each check relies on those before it
        return next((problem for problem, found in itertools.chain.from_iterable(groups) if found), "")


Checks = Iterator[tuple[str, bool]]  # a possible flaw, and whether it is there


def _clocks(a: Arrays, r: Rules) -> Checks:
    tick = a["tick"]
    episodes, returns, lengths = list(a["finished"].T)
    yield "a world's clock is out of range", _any((tick < 0) | (tick >= (r.max_episode_steps or FOREVER)))
    yield "the number of steps is out of range", _any((a["steps"] < 0) | (a["steps"] >= FOREVER))
    counted = (episodes >= 0) & (episodes < FOREVER) & (lengths < FOREVER) & (np.abs(returns) <= lengths)
    yield "the sums over episodes are out of range", not counted.all()


def _lives(a: Arrays, r: Rules) -> Checks:
    tick = np.repeat(a["tick"], len(a["born"]) // len(a["tick"]))  # [worlds] -> [N]
    born, expiry = a["born"], a["expiry"]
    yield "an agent has spawned in the future", _any((born < 0) | (born > tick))
    yield "an agent has outlived its expiry", _any(expiry <= tick)
    least, most = (1, 2 + int(LONGEST_LIFE / -r.decay)) if r.decay else (FOREVER, FOREVER)
    yield "the length of an agent's life is out of range", _any((expiry - born < least) | (expiry - born > most))
    yield "an agent's return is out of range", not (np.abs(a["episode_return"]) <= tick - born).all()
    yield "an agent is flagged but has not just spawned", _any(a["truncations"] & (born != tick))


def _agents(a: Arrays, r: Rules) -> Checks:
    worlds, agents = len(a["grid"]), len(a["colour"]) // len(a["grid"])
    yield (
        "an order of moving is not a permutation",
        _any(np.sort(a["order"].reshape(worlds, agents)) != np.arange(agents)),
    )
    first, beyond = np.array([[r.vision]]), np.array([[r.vision + r.height], [r.vision + r.width]])
    inside = (a["position"] >= first) & (a["position"] < beyond)  # NaN is neither
    yield "an agent is outside the field", not inside.all()
    rounding = r.substeps * np.spacing(np.float32(beyond.max())) + 1e-5
    yield "an agent has moved too far", not (np.abs(a["displacement"]) <= r.speed + rounding).all()
    cells = _flat_cells(a)
    standing = a["grid"].reshape(-1)[cells] == a["colour"]
    yield "agents are not where the grid has them", not standing.all()
    yield "two agents are in one cell", len(np.unique(cells)) < len(cells)
    yield "the grid shows agents that do not exist", _any(_count(a["grid"] >= AGENT_1) != agents)
    yield "an agent's colour is not an agent's", _any(a["colour"] < AGENT_1)
    most = r.substeps if r.edible else 0
    yield "an agent has eaten more than it could", _any(a["eaten"] > most)


def _cells(a: Arrays, r: Rules) -> Checks:
    grid, under = a["grid"], a["under"]
    debt = a["food_debt"]
    yield "a cell has an unknown code", grid.max() >= CODES
    walls = grid == WALL
    yield "a wall around or inside the field is missing", _any(walls < (r.ground == WALL))
    yield "the number of walls is wrong", _any(_count(walls) != (r.ground == WALL).sum() + r.walls)
    on_target = r.ground.reshape(-1)[_flat_cells(a) % r.ground.size] == FOOD
    covered = (under == EMPTY) if r.edible else (under == FOOD) | ((under == EMPTY) & ~on_target)
    yield "what is under an agent is wrong", not covered.all()
    food = grid == FOOD
    yield "a target is missing", _any((food | (grid >= AGENT_1)) < (r.ground == FOOD))
    yield "the food debt is out of range", _any((debt < 0) | (debt > r.food))
    all_food = _count(food) + _count((under == FOOD).reshape(len(grid), -1)) + debt
    yield "the amount of food is wrong", _any(all_food != (r.ground == FOOD).sum() + r.food)


def _outcome(a: Arrays) -> Checks:
    flags = np.stack([a["terminals"].view(np.uint8), a["truncations"].view(np.uint8)])
    yield "a flag is neither 0 nor 1", _any(flags > 1)
    yield "an agent has terminated", _any(a["terminals"])
    yield "a reward is not within [-1, 1]", not (np.abs(a["rewards"]) <= 1).all()
    yield "an agent that has just spawned has a reward", _any(a["rewards"][a["truncations"]])


def _sights(a: Arrays, r: Rules, sight: bool) -> Checks:
    side, agents = 2 * r.vision + 1, len(a["colour"]) // len(a["grid"])
    windows = np.lib.stride_tricks.sliding_window_view(a["grid"], (side, side), (1, 2))
    row, column = a["position"].astype(np.int64) - r.vision
    seen = decode(a["observations"], r).window  # [N, side, side]
    counts = np.full((2, len(row)), UNSEEN)
    wrong = False
    step = max(1, WINDOW_BYTES // side**2)
    for lo in range(0, len(row), step):
        some = slice(lo, lo + step)
        world = np.arange(lo, min(lo + step, len(row))) // agents
        cells = windows[world, row[some], column[some]]  # [some, side, side]
        wrong |= _any(seen[some] != cells)
        if sight:
            own = np.count_nonzero(cells == a["colour"][some, None, None], axis=(1, 2))
            counts[:, some] = own - 1, np.count_nonzero(cells >= AGENT_1, axis=(1, 2)) - own
    yield "an observation differs from the cells around its agent", wrong
    counted = np.stack([a["own_in_sight"], a["others_in_sight"]])
    yield "the agents in sight are miscounted", _any(counted != counts)


def _flat_cells(a: Arrays) -> np.ndarray:
    """Return the cell of each agent, as an index into the flat grid, i64[N]."""
    worlds, rows, stride = np.shape(a["grid"])
    row, column = a["position"].astype(np.int64)
    world = np.arange(len(row)) // (len(row) // worlds)
    return (world * rows + row) * stride + column


def _count(cells: np.ndarray) -> np.ndarray:
    """Return how many cells are set in each world, i64[worlds]."""
    return np.count_nonzero(cells.reshape(len(cells), -1), axis=1)


def _any(wrong: np.ndarray) -> bool:
    return bool(wrong.any())
