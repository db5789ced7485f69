"""The arrays that hold worlds, and the rules under which they change. Their shapes are defined here and nowhere else.

N = worlds * agents. The agents of all worlds lie in one flat axis; those of world w are [w * agents, (w + 1) * agents).
"""

import math
from typing import NamedTuple

import numpy as np

from particle_grid.sim import simd
from particle_grid.sim.rng import decay
from particle_grid.sim.world import EMPTY, FOOD, WALL, Layout, World, grid_shape
from particle_grid.support.errors import UserError


class Rules(NamedTuple):
    """What kernels need to know and what never changes while the worlds run."""

    ground: np.ndarray  # u8[rows, stride] a world's grid before anything random is placed in it
    spawn: np.ndarray  # i64[4, 4] as in `Layout`
    vision: int
    # An empty array with as many axes as a window has rows, or with one axis where windows are copied by plain loops.
    # Numba knows the number of axes when it compiles, so it unrolls the rows and drops the path that is not taken.
    window_rows: np.ndarray
    height: int
    width: int
    speed: np.float32  # largest move per step along each axis, in cells
    substeps: int  # parts of at most one cell in which a step is walked
    substep_share: np.float32  # share of a step that each of them is
    momentum: np.float32  # share of the last displacement that carries over into the next step
    gain: np.float32  # cells per step that a full action adds
    row_share: np.float32  # 256 / height: position to feature
    column_share: np.float32  # 256 / width
    speed_share: np.float32  # 1 / speed
    centre: np.float32  # the action that means "stay": 1 for the discrete {0, 1, 2}, 0 for the continuous [-1, 1]
    decay: float  # logarithm of the share of agents that survive a step; 0: all
    max_episode_steps: int  # steps until a world restarts; 0: never
    walls: int  # cells
    food: int  # cells
    edible: bool  # food is eaten when an agent walks onto it; otherwise it stays and is covered


class State(NamedTuple):
    """Everything that changes while the worlds run."""

    grid: np.ndarray  # u8[worlds, rows, stride] cell codes
    # f32[2, N] rows, then columns, in grid coordinates; an agent occupies the cell that contains its position.
    position: np.ndarray
    displacement: np.ndarray  # f32[2, N] cells actually moved in the last step
    colour: np.ndarray  # u8[N] AGENT_1..AGENT_4
    under: np.ndarray  # u8[N] what remains in the cell when its agent leaves: EMPTY, or FOOD that cannot be eaten
    eaten: np.ndarray  # u8[N] food eaten in the last step
    own_in_sight: np.ndarray  # i16[N] other agents of one's own colour in the window, for tasks that set `sight`
    others_in_sight: np.ndarray  # i16[N] agents of other colours in the window, likewise
    last_reward: np.ndarray  # u8[N] its feature, for tasks that do not set `sight`
    order: np.ndarray  # i32[N] the order in which a world's agents move, as their numbers within the world
    expiry: np.ndarray  # i64[N] the world's tick in which the agent respawns
    born: np.ndarray  # i64[N] the world's tick in which it last spawned
    episode_return: np.ndarray  # f32[N] sum of its rewards since then
    tick: np.ndarray  # i64[worlds] steps since the world started
    rng: np.ndarray  # u64[worlds] generators
    origin: np.ndarray  # u64[worlds] the generator as it was when the world started: the seed of `hidden` numbers
    food_debt: np.ndarray  # i64[worlds] eaten food that has not found an empty cell to regrow in yet
    finished: np.ndarray  # f64[worlds, 3] episodes ended since the last report: their number, returns and lengths
    # The arrays below are used between the stages of a step only.
    desired_move: np.ndarray  # f32[2, N] cells to move in a substep
    crossing: np.ndarray  # u64[N] bits 0-30: the cell of its world to leave; 31: what is under it; 32-63: cell to enter
    entered_cell: np.ndarray  # u8[N] what was in the cell to enter, or WALL for agents that stay within their own
    features: np.ndarray  # u64[N] the features of the observation, the first in the lowest byte


def window_rows(vision: int) -> np.ndarray:
    """Return `Rules.window_rows` for the processor that this runs on."""
    return np.zeros((0,) * (2 * vision + 1 if simd.fits(vision) else 1), np.uint8)


def make_rules(layout: Layout, discrete: bool) -> Rules:
    """Return the rules of a layout.

    Raises:
        UserError: if the layout is invalid, or if its agents do not fit into the field.
    """
    layout.check()
    world = layout.world
    walls, food = (round(share * world.height * world.width) for share in (world.walls, layout.food))
    inertial = world.dynamics == "inertial"
    substeps = max(1, math.ceil(world.speed))
    return Rules(
        ground=_ground(layout, walls + food),
        spawn=layout.spawn.copy(),  # as checked, even if a task changes its own array later
        vision=world.vision,
        window_rows=window_rows(world.vision),
        height=world.height,
        width=world.width,
        speed=np.float32(world.speed),
        substeps=substeps,
        substep_share=np.float32(1 / substeps),
        momentum=np.float32(1 - world.drag if inertial else 0),
        gain=np.float32(world.acceleration if inertial else world.speed),
        row_share=np.float32(256 / world.height),
        column_share=np.float32(256 / world.width),
        speed_share=np.float32(1 / world.speed),
        centre=np.float32(1 if discrete else 0),
        decay=decay(world.lifespan),
        max_episode_steps=world.max_episode_steps,
        walls=walls,
        food=food,
        edible=layout.targets is None,
    )


def _ground(layout: Layout, random_cells: int) -> np.ndarray:
    """Return the ground plan u8[rows, stride] of a world in which `random_cells` walls and food are still to come."""
    world, v = layout.world, layout.world.vision
    ground = np.full(grid_shape(world)[1:], WALL, np.uint8)
    field_cells = ground[v : v + world.height, v : v + world.width]
    field_cells[:] = EMPTY
    if layout.targets is not None:
        field_cells[layout.targets] = FOOD
    field_cells[layout.walls] = WALL
    free = int((field_cells == EMPTY).sum()) - random_cells
    if world.agents > free:
        raise UserError(
            f"agents={world.agents} do not fit: the {world.height} x {world.width} field has {max(free, 0)} free cells "
            f"besides its walls, food and targets. Use fewer agents or a larger world."
        )
    return ground


Shapes = dict[str, tuple[tuple[int, ...], type | np.dtype]]  # shape and dtype of arrays, by name


def state_shapes(world: World) -> Shapes:
    """Return the shapes and dtypes of the arrays of a `State`."""
    n, worlds = world.worlds * world.agents, world.worlds
    return {
        "grid": (grid_shape(world), np.uint8),
        "position": ((2, n), np.float32),
        "displacement": ((2, n), np.float32),
        "colour": ((n,), np.uint8),
        "under": ((n,), np.uint8),
        "eaten": ((n,), np.uint8),
        "own_in_sight": ((n,), np.int16),
        "others_in_sight": ((n,), np.int16),
        "last_reward": ((n,), np.uint8),
        "order": ((n,), np.int32),
        "expiry": ((n,), np.int64),
        "born": ((n,), np.int64),
        "episode_return": ((n,), np.float32),
        "tick": ((worlds,), np.int64),
        "rng": ((worlds,), np.uint64),
        "origin": ((worlds,), np.uint64),
        "food_debt": ((worlds,), np.int64),
        "finished": ((worlds, 3), np.float64),
        "desired_move": ((2, n), np.float32),
        "crossing": ((n,), np.uint64),
        "entered_cell": ((n,), np.uint8),
        "features": ((n,), np.uint64),
    }


def allocate(layout: Layout) -> State:
    """Return the arrays for the worlds of a layout, which have not started yet."""
    shapes = state_shapes(layout.world)
    state = State(**{name: np.zeros(shape, dtype) for name, (shape, dtype) in shapes.items()})
    state.grid[:] = WALL
    state.colour[:] = np.tile(layout.colour, layout.world.worlds)
    return state
