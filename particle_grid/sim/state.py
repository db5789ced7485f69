"""The arrays that hold worlds, and the rules under which they change. Shapes stand here, once.

N = worlds * agents: all agents of all worlds lie in one flat axis, those of world w at [w * agents, (w + 1) * agents).
"""

import math
from typing import NamedTuple

import numpy as np

from particle_grid.sim import simd
from particle_grid.sim.rng import decay
from particle_grid.sim.world import AGENT_1, CODES, EMPTY, FOOD, WALL, Layout, grid_shape


class Rules(NamedTuple):
    """What the kernels need to know and never changes while the worlds run."""

    ground: np.ndarray  # u8[rows, stride] a world's grid before anything random is placed in it
    spawn: np.ndarray  # i64[4, 4] as in `Layout`
    vision: int
    # An empty array with as many axes as a window has rows, or one axis where vectors do not fit the window: Numba
    # knows the axes of an array when it compiles, so both the choice and the number of rows are settled by then.
    rows: np.ndarray
    height: int
    width: int
    speed: np.float32  # most cells along each axis, a step
    stretches: int  # parts of at most a cell that a step is walked in
    stretch: np.float32  # the share of a step that each is
    keep: np.float32  # share of the last displacement that an agent goes on with
    gain: np.float32  # cells a step that a full action adds
    row_share: np.float32  # 256 / height: position to feature
    column_share: np.float32  # 256 / width
    speed_share: np.float32  # 1 / speed
    centre: np.float32  # the action that means "stay": 1 for the discrete {0, 1, 2}, 0 for the continuous [-1, 1]
    decay: float  # logarithm of the share of agents that survive a step; 0: all
    horizon: int  # steps until a world starts anew; 0: never
    walls: int  # cells
    food: int  # cells
    edible: bool  # food is eaten by walking onto it; else it stays and is covered


class State(NamedTuple):
    """Everything that changes while the worlds run."""

    grid: np.ndarray  # u8[worlds, rows, stride] cell codes
    position: (
        np.ndarray
    )  # f32[2, N] rows, then columns, in grid coordinates: an agent occupies the cell that contains it
    displacement: np.ndarray  # f32[2, N] cells really moved in the last step
    colour: np.ndarray  # u8[N] AGENT_1..AGENT_4
    under: np.ndarray  # u8[N] what the cell holds once its agent has left: EMPTY, or FOOD that cannot be eaten
    eaten: np.ndarray  # u8[N] food eaten in the last step
    own_in_sight: np.ndarray  # i16[N] other agents of one's own colour in the window, for a task that has `sight`
    others_in_sight: np.ndarray  # i16[N] agents of other colours in the window, likewise
    last_reward: np.ndarray  # u8[N] its feature, for a task that has no `sight`
    order: np.ndarray  # i32[N] the order in which a world's agents move, as their numbers within it
    expiry: np.ndarray  # i64[N] the world's tick in which the agent respawns
    born: np.ndarray  # i64[N] the world's tick in which it last spawned
    episode_return: np.ndarray  # f32[N] rewards since then
    tick: np.ndarray  # i64[worlds] steps since the world started
    rng: np.ndarray  # u64[worlds]
    origin: np.ndarray  # u64[worlds] the generator as it was when the world started: its own hidden features' seed
    food_debt: np.ndarray  # i64[worlds] food that was eaten and found no empty cell to regrow in yet
    finished: np.ndarray  # f64[worlds, 3] episodes ended since the last report: their number, returns, lengths
    # From here on: between the stages of a step only.
    wish: np.ndarray  # f32[2, N] cells to move in a stretch
    crossing: np.ndarray  # u64[N] bits 0 to 30: the cell of its world to leave; 31: what is under it; 32 on: to enter
    met: np.ndarray  # u8[N] what was in the cell to enter, or WALL for whom stays within its own
    features: np.ndarray  # u64[N] the features, the first in the lowest byte


def restore(arrays: dict[str, np.ndarray], saved: dict[str, np.ndarray], r: Rules) -> None:
    """Copies saved arrays into those of the same names. Raises ValueError, before it changes anything, for arrays that
    are missing or of another shape or dtype, and for agents, cells or food that kernels would not find their way with:
    they trust theirs."""
    for name, array in arrays.items():
        if name not in saved:
            raise ValueError(f"The saved simulator state has no {name!r}: it was not saved by this version.")
        if saved[name].shape != array.shape or saved[name].dtype != array.dtype:
            raise ValueError(
                f"The saved {name!r} is {saved[name].dtype}{list(saved[name].shape)}, but this world needs "
                f"{array.dtype}{list(array.shape)}: build it with the settings it was saved with."
            )
    if not sound(saved, r) or (saved["colour"] != arrays["colour"]).any():
        raise ValueError("The saved simulator state is damaged: agents are not where the grid has them. Use another.")
    for name, array in arrays.items():
        array[...] = saved[name]


def sound(arrays: dict[str, np.ndarray], r: Rules) -> bool:
    """Whether agents, cells, food and orders agree with one another, as kernels take for granted. arrays: by the names
    of `State`, of its shapes and dtypes."""
    grid, position, colour = arrays["grid"], arrays["position"], arrays["colour"]
    agents, numbers = len(colour) // len(grid), np.arange(len(colour))
    with np.errstate(invalid="ignore"):
        row, column = position.astype(np.int64)
    inside = ((row >= r.vision) & (row < r.vision + r.height) & (column >= r.vision)).all()
    if not (inside and (column < r.vision + r.width).all() and np.isfinite(arrays["displacement"]).all()):
        return False
    cells = np.stack([numbers // agents, row, column])
    alone = np.unique(cells, axis=1).shape == cells.shape and ((grid >= AGENT_1).sum((1, 2)) == agents).all()
    food = np.isin(arrays["under"], (EMPTY, FOOD)).all() and (arrays["food_debt"] >= 0).all()
    food = food and (arrays["food_debt"] <= r.height * r.width).all()
    orders = np.sort(arrays["order"].reshape(-1, agents), 1)  # [N] -> [worlds, agents]
    right = (grid[numbers // agents, row, column] == colour).all() and (orders == numbers[:agents]).all()
    return bool(right and alone and food and grid.max() < CODES)


def make_rules(layout: Layout, discrete: bool) -> Rules:
    """The rules of a layout. Raises ValueError where something is laid out amiss, or agents do not fit the field."""
    layout.check()
    world, v = layout.world, layout.world.vision
    ground = np.full(grid_shape(world)[1:], WALL, np.uint8)
    field_cells = ground[v : v + world.height, v : v + world.width]
    field_cells[:] = EMPTY
    if layout.targets is not None:
        field_cells[layout.targets] = FOOD
    field_cells[layout.walls] = WALL
    walls, food = (round(share * field_cells.size) for share in (world.walls, layout.food))
    free = int((field_cells == EMPTY).sum()) - walls - food
    if world.agents > free:
        raise ValueError(
            f"agents={world.agents} do not fit: the {world.height} x {world.width} field has {max(free, 0)} free cells "
            f"beside its walls, food and targets. Use fewer agents or a larger world."
        )
    return Rules(
        ground=ground,
        spawn=layout.spawn,
        vision=v,
        rows=np.zeros((0,) * (2 * v + 1 if simd.fits(v) else 1), np.uint8),
        height=world.height,
        width=world.width,
        speed=np.float32(world.speed),
        stretches=max(1, math.ceil(world.speed)),
        stretch=np.float32(1 / max(1, math.ceil(world.speed))),
        keep=np.float32(1 - world.drag if world.dynamics == "inertial" else 0),
        gain=np.float32(world.acceleration if world.dynamics == "inertial" else world.speed),
        row_share=np.float32(256 / world.height),
        column_share=np.float32(256 / world.width),
        speed_share=np.float32(1 / world.speed),
        centre=np.float32(1 if discrete else 0),
        decay=decay(world.lifespan),
        horizon=world.horizon,
        walls=walls,
        food=food,
        edible=layout.targets is None,
    )


def allocate(layout: Layout) -> State:
    """Arrays for the worlds of a layout, not yet started."""
    world = layout.world
    n, worlds = world.worlds * world.agents, world.worlds
    return State(
        grid=np.full(grid_shape(world), WALL, np.uint8),
        position=np.zeros((2, n), np.float32),
        displacement=np.zeros((2, n), np.float32),
        colour=np.tile(layout.colour, worlds),
        under=np.zeros(n, np.uint8),
        eaten=np.zeros(n, np.uint8),
        own_in_sight=np.zeros(n, np.int16),
        others_in_sight=np.zeros(n, np.int16),
        last_reward=np.zeros(n, np.uint8),
        order=np.zeros(n, np.int32),
        expiry=np.zeros(n, np.int64),
        born=np.zeros(n, np.int64),
        episode_return=np.zeros(n, np.float32),
        tick=np.zeros(worlds, np.int64),
        rng=np.zeros(worlds, np.uint64),
        origin=np.zeros(worlds, np.uint64),
        food_debt=np.zeros(worlds, np.int64),
        finished=np.zeros((worlds, 3), np.float64),
        wish=np.zeros((2, n), np.float32),
        crossing=np.zeros(n, np.uint64),
        met=np.zeros(n, np.uint8),
        features=np.zeros(n, np.uint64),
    )
