"""What a world is: its settings, what a task lays out in it, and the arrays that hold it. Shapes stand here, once.

N = worlds * agents: all agents of all worlds lie in one flat axis, those of world w at [w * agents, (w + 1) * agents).
Coordinates are (row, column) in *grid cells*: the playing field is grid[w, vision : vision + height,
vision : vision + width], and a margin of walls around it keeps every window inside the array.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

EMPTY, FOOD, WALL, AGENT_1, AGENT_2, AGENT_3, AGENT_4 = range(7)
CODES = 7  # cell codes there are; an agent is any code >= AGENT_1
FEATURES = 7  # uint8 behind the window: row, column, place in the cell (2), last displacement (2), last reward
MAX_COLOURS = 4


@dataclass(frozen=True)
class World:
    """The settings of a world, whatever is played in it. Raises ValueError for one that cannot be built."""

    worlds: int = 1
    agents: int = 4096  # in each world
    height: int = 1024  # free field, in cells, without the margin of walls
    width: int = 1024
    vision: int = 5  # an agent sees (2 * vision + 1) squared cells
    speed: float = 1.0  # cells a step, along each axis
    lifespan: float = 150.0  # expected steps until an agent respawns; 0: never
    horizon: int = 0  # steps until a world starts anew; 0: never
    walls: float = 0.0  # share of the field's cells that are walls, placed at random

    def __post_init__(self) -> None:
        for name, least in (("worlds", 1), ("agents", 1), ("height", 1), ("width", 1), ("vision", 1), ("horizon", 0)):
            value = getattr(self, name)
            if not isinstance(value, int | np.integer) or isinstance(value, bool):
                raise TypeError(f"{name}={value!r} is not a whole number.")
            if value < least:
                raise ValueError(f"{name}={value} is too small: it must be at least {least}.")
        for name in ("speed", "lifespan", "walls"):
            if not isinstance(getattr(self, name), int | float | np.number):
                raise TypeError(f"{name}={getattr(self, name)!r} is not a number.")
        side = 2 * self.vision + 1
        for name in ("height", "width"):
            value = getattr(self, name)
            if value < side:
                raise ValueError(
                    f"{name}={value} is smaller than the window an agent sees ({side} x {side} cells for "
                    f"vision={self.vision}): use a larger world or a smaller vision."
                )
            if value > 1 << 20:
                raise ValueError(f"{name}={value} is too large: float32 positions end at {1 << 20} cells.")
        if self.vision > 64:
            raise ValueError(
                f"vision={self.vision} is too large: a window of more than 129 x 129 cells is not supported."
            )
        if not 0 < self.speed <= 64:
            raise ValueError(f"speed={self.speed} is out of range: it is in cells per step, above 0 and at most 64.")
        if not (self.lifespan == 0 or 1 <= self.lifespan < 2**40):
            raise ValueError(f"lifespan={self.lifespan} is out of range: expected steps, at least 1 (0: no respawns).")
        if not 0 <= self.walls < 1:
            raise ValueError(f"walls={self.walls} is out of range: it is a share of the cells, from 0 to below 1.")

    @property
    def row(self) -> int:
        """Bytes of one observation."""
        return (2 * self.vision + 1) ** 2 + FEATURES


@dataclass
class Layout:
    """What a task's `init` lays out. It starts as one colour, everywhere, with nothing else in the field."""

    world: World
    colour: np.ndarray = field(init=False)  # u8[agents] of AGENT_1..AGENT_4, the same in each world
    spawn: np.ndarray = field(init=False)  # i64[4, 4] per colour: top, left, height, width, in field cells
    walls: np.ndarray = field(init=False)  # bool[height, width] walls besides the random ones
    food: float = 0.0  # share of the field's cells that hold food, placed at random, regrowing elsewhere when eaten
    targets: np.ndarray | None = None  # bool[height, width] cells shown as food that cannot be eaten
    map: np.ndarray = field(default_factory=lambda: np.zeros((1, 1, 1), np.float32))  # whatever the reward looks up

    def __post_init__(self) -> None:
        w = self.world
        self.colour = np.full(w.agents, AGENT_1, np.uint8)
        self.spawn = np.tile(np.array([0, 0, w.height, w.width], np.int64), (MAX_COLOURS, 1))
        self.walls = np.zeros((w.height, w.width), bool)

    def mix_colours(self, colours: int) -> None:
        """Deals `colours` colours out in equal parts."""
        if not 1 <= colours <= MAX_COLOURS:
            raise ValueError(f"colours={colours} is out of range: there are 1 to {MAX_COLOURS} colours of agents.")
        self.colour[:] = AGENT_1 + np.arange(self.world.agents) % colours

    def blob(self, packing: float, row: float = 0.5, column: float = 0.5) -> None:
        """Agents of all colours spawn in a square, a share `packing` of it filled, centred on a share of the field."""
        if not 0 < packing <= 1:
            raise ValueError(
                f"packing={packing} is out of range: it is the share of a blob's cells with agents, above 0 to 1."
            )
        w = self.world
        side = int(np.ceil(np.sqrt(w.agents / packing)))
        height, width = min(side, w.height), min(side, w.width)
        top = int(np.clip(row * w.height - height / 2, 0, w.height - height))
        left = int(np.clip(column * w.width - width / 2, 0, w.width - width))
        self.spawn[:] = top, left, height, width


class Rules(NamedTuple):
    """What the kernels need to know and never changes while the worlds run."""

    ground: np.ndarray  # u8[rows, stride] a world's grid before anything random is placed in it
    spawn: np.ndarray  # i64[4, 4] as in `Layout`
    vision: int
    height: int
    width: int
    speed: np.float32  # cells a step
    centre: np.float32  # the action that means "stay": 1 for the discrete {0, 1, 2}, 0 for the continuous [-1, 1]
    lifespan: float  # expected steps until a respawn; 0: never
    horizon: int  # steps until a world starts anew; 0: never
    walls: int  # cells
    food: int  # cells
    edible: bool  # food is eaten by walking onto it; else it stays and is covered


class State(NamedTuple):
    """Everything that changes while the worlds run."""

    grid: np.ndarray  # u8[worlds, rows, stride] cell codes
    position: np.ndarray  # f32[N, 2] in grid coordinates: an agent occupies the cell that contains it
    displacement: np.ndarray  # f32[N, 2] cells really moved in the last step
    colour: np.ndarray  # u8[N] AGENT_1..AGENT_4
    under: np.ndarray  # u8[N] what the cell holds once its agent has left: EMPTY, or FOOD that cannot be eaten
    eaten: np.ndarray  # u8[N] food eaten in the last step
    own_in_sight: np.ndarray  # i16[N] other agents of one's own colour in the window
    others_in_sight: np.ndarray  # i16[N] agents of other colours in the window
    order: np.ndarray  # i32[N] the order in which a world's agents move, as their numbers within it
    expiry: np.ndarray  # i64[N] the world's tick in which the agent respawns
    born: np.ndarray  # i64[N] the world's tick in which it last spawned
    episode_return: np.ndarray  # f32[N] rewards since then
    tick: np.ndarray  # i64[worlds] steps since the world started
    rng: np.ndarray  # u64[worlds]
    food_debt: np.ndarray  # i64[worlds] food that was eaten and found no empty cell to regrow in yet
    finished: np.ndarray  # f64[worlds, 3] episodes ended since the last report: their number, returns, lengths


def restore(arrays: dict[str, np.ndarray], saved: dict[str, np.ndarray]) -> None:
    """Copies saved arrays into those of the same names. Raises ValueError, before it changes anything, for arrays that
    are missing or of another shape or dtype, and for a state that no world can be in: kernels trust theirs."""
    for name, array in arrays.items():
        if name not in saved:
            raise ValueError(f"The saved simulator state has no {name!r}: it was not saved by this version.")
        if saved[name].shape != array.shape or saved[name].dtype != array.dtype:
            raise ValueError(
                f"The saved {name!r} is {saved[name].dtype}{list(saved[name].shape)}, but this world needs "
                f"{array.dtype}{list(array.shape)}: build it with the settings it was saved with."
            )
    grid, position, colour = saved["grid"], saved["position"], saved["colour"]
    agents, numbers = len(position) // len(grid), np.arange(len(position))
    with np.errstate(invalid="ignore"):
        row, column = position.astype(np.int64).T
    inside = (row >= 0).all() and (column >= 0).all() and (row < grid.shape[1]).all() and (column < grid.shape[2]).all()
    orders = np.sort(saved["order"].reshape(-1, agents), 1)  # [N] -> [worlds, agents]
    right = inside and (grid[numbers // agents, row, column] == colour).all() and (colour == arrays["colour"]).all()
    if not right or (orders != numbers[:agents]).any() or grid.max() >= CODES:
        raise ValueError("The saved simulator state is damaged: agents are not where the grid has them. Use another.")
    for name, array in arrays.items():
        array[...] = saved[name]


def grid_shape(world: World) -> tuple[int, int, int]:
    """Shape of the grid. A row has room for a 16-byte read from its last window, and no power of two for a stride:
    the rows of a window would fall into the same cache set."""
    stride = -(-(world.width + 2 * world.vision + 16) // 64) * 64
    if stride & (stride - 1) == 0:
        stride += 64
    return world.worlds, world.height + 2 * world.vision, stride


def make_rules(layout: Layout, discrete: bool) -> Rules:
    """The rules of a layout. Raises ValueError where its agents do not fit into the field."""
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
        height=world.height,
        width=world.width,
        speed=np.float32(world.speed),
        centre=np.float32(1 if discrete else 0),
        lifespan=float(world.lifespan),
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
        position=np.zeros((n, 2), np.float32),
        displacement=np.zeros((n, 2), np.float32),
        colour=np.tile(layout.colour, worlds),
        under=np.zeros(n, np.uint8),
        eaten=np.zeros(n, np.uint8),
        own_in_sight=np.zeros(n, np.int16),
        others_in_sight=np.zeros(n, np.int16),
        order=np.zeros(n, np.int32),
        expiry=np.zeros(n, np.int64),
        born=np.zeros(n, np.int64),
        episode_return=np.zeros(n, np.float32),
        tick=np.zeros(worlds, np.int64),
        rng=np.zeros(worlds, np.uint64),
        food_debt=np.zeros(worlds, np.int64),
        finished=np.zeros((worlds, 3), np.float64),
    )
