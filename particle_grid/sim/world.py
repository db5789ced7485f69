"""What a world is: its cell codes, its settings, and what a task lays out in it.

Coordinates are (row, column) in *grid cells*: the playing field is grid[w, vision : vision + height,
vision : vision + width], and a margin of walls around it keeps every window inside the array.
"""

from dataclasses import dataclass, field

import numpy as np

EMPTY, FOOD, WALL, AGENT_1, AGENT_2, AGENT_3, AGENT_4 = range(7)
CODES = 7  # cell codes there are; an agent is any code >= AGENT_1
FEATURES = 7  # uint8 behind the window: row, column, place in the cell (2), last displacement (2), last reward
MAX_COLOURS = 4
UNSEEN = -(1 << 15)  # how many agents are in sight where nobody counts: no number that could be mistaken for one
DYNAMICS = ("kinematic", "inertial")
STEPS_OF_FLOAT = 8  # least number of positions that an agent passes at full speed: rounding changes it by a sixteenth


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
    max_episode_steps: int = 0  # steps until a world starts anew, each at another time; 0: never
    walls: float = 0.0  # share of the field's cells that are walls, placed at random
    dynamics: str = "kinematic"  # an action is a displacement; "inertial": an acceleration
    acceleration: float = 0.25  # inertial: cells a step that a full action adds to the velocity, along each axis
    drag: float = 0.1  # inertial: share of the velocity that is lost in a step
    action_cost: float = 0.0  # share of the reward that is minus the effort, the mean square of an action's components

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if isinstance(value, np.generic):  # else their products might overflow
                object.__setattr__(self, name, value.item())
        for name, least in (
            ("worlds", 1),
            ("agents", 1),
            ("height", 1),
            ("width", 1),
            ("vision", 1),
            ("max_episode_steps", 0),
        ):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool):
                raise TypeError(f"{name}={value!r} is not a whole number.")
            if value < least:
                raise ValueError(f"{name}={value} is too small: it must be at least {least}.")
        if self.max_episode_steps >= 1 << 31:
            raise ValueError(
                f"max_episode_steps={self.max_episode_steps} is too large: it must be below {1 << 31} steps (0: never)."
            )
        for name in ("speed", "lifespan", "walls", "acceleration", "drag", "action_cost"):
            value = getattr(self, name)
            if not isinstance(value, int | float) or isinstance(value, bool):
                raise TypeError(f"{name}={value!r} is not a number.")
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
        if self.dynamics not in DYNAMICS:
            raise ValueError(f"There are no dynamics {self.dynamics!r}. There are: {', '.join(DYNAMICS)}.")
        if not 0 < self.acceleration <= 64:
            raise ValueError(
                f"acceleration={self.acceleration} is out of range: cells per step, above 0 and at most 64."
            )
        self._check_resolution()
        if not 0 <= self.drag <= 1:
            raise ValueError(f"drag={self.drag} is out of range: a share of the velocity, from 0 to 1.")
        if not 0 <= self.action_cost < 1:
            raise ValueError(
                f"action_cost={self.action_cost} is out of range: a share of the reward, from 0 to below 1."
            )
        if self.agents > self.height * self.width:  # before anything is made for each of them
            raise ValueError(
                f"agents={self.agents} do not fit: the {self.height} x {self.width} field has "
                f"{self.height * self.width} free cells. Use fewer agents or a larger world."
            )
        _, rows, stride = grid_shape(self)
        if rows * stride >= 1 << 31:
            raise ValueError(
                f"A world of height={self.height} and width={self.width} is too large: it may have {1 << 31} cells."
            )
        if self.worlds * rows * stride >= 1 << 40 or self.worlds * self.agents >= 1 << 31:
            raise ValueError(
                f"worlds={self.worlds} of agents={self.agents}, height={self.height} and width={self.width} are too "
                f"many: all of them may have {1 << 40} cells and {1 << 31} agents."
            )

    def _check_resolution(self) -> None:
        """Raises ValueError where float32 positions would round away much of a full action, or all of it."""
        spacing = float(np.spacing(np.float32(max(self.height, self.width) + self.vision)))
        least = STEPS_OF_FLOAT * spacing
        for name in ("speed", "acceleration") if self.dynamics == "inertial" else ("speed",):
            value = getattr(self, name)
            if value < least:
                raise ValueError(
                    f"{name}={value} is too small for a {self.height} x {self.width} field: positions are float32, "
                    f"{spacing:.2g} cells apart at its far edge. Use at least {least:.2g}, or a smaller world."
                )

    @property
    def row(self) -> int:
        """Bytes of one observation."""
        return (2 * self.vision + 1) ** 2 + FEATURES


@dataclass
class Layout:
    """What a task's `init` lays out: only `map` counts later on. It starts as one colour, everywhere, with nothing else
    in the field."""

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
        if not isinstance(colours, int | np.integer):
            raise TypeError(f"colours={colours!r} is not a whole number.")
        if not 1 <= colours <= MAX_COLOURS:
            raise ValueError(f"colours={colours} is out of range: there are 1 to {MAX_COLOURS} colours of agents.")
        self.colour[:] = AGENT_1 + np.arange(self.world.agents) % colours

    def blob(self, packing: float, row: float = 0.5, column: float = 0.5) -> None:
        """Agents of all colours spawn in a square, a share `packing` of it filled, centred on a share of the field."""
        for name, value in (("packing", packing), ("row", row), ("column", column)):
            if not isinstance(value, int | float | np.number) or not np.isfinite(value):
                raise ValueError(f"{name}={value!r} is not a finite number.")
        if not 0 < packing <= 1:
            raise ValueError(
                f"packing={packing} is out of range: it is the share of a blob's cells with agents, above 0 to 1."
            )
        w = self.world
        side = np.ceil(np.sqrt(w.agents / packing))  # infinite, perhaps
        height, width = int(min(side, w.height)), int(min(side, w.width))
        top = int(np.clip(row * w.height - height / 2, 0, w.height - height))
        left = int(np.clip(column * w.width - width / 2, 0, w.width - width))
        self.spawn[:] = top, left, height, width

    def check(self) -> None:
        """Raises ValueError or TypeError for what is laid out amiss: kernels trust it, and would write beyond."""
        w, field = self.world, (self.world.height, self.world.width)
        wanted: dict[str, tuple[type, tuple[int, ...]]] = {
            "colour": (np.uint8, (w.agents,)),
            "spawn": (np.int64, (MAX_COLOURS, 4)),
            "walls": (np.bool_, field),
        }
        if self.targets is not None:
            wanted["targets"] = np.bool_, field
        for name, (dtype, shape) in wanted.items():
            array = getattr(self, name)
            if not isinstance(array, np.ndarray) or isinstance(array, np.ma.MaskedArray):
                raise TypeError(f"layout.{name} is a {type(array).__name__}: give a plain array.")
            if array.shape != shape or array.dtype != dtype:
                raise ValueError(
                    f"layout.{name} is {array.dtype}{list(array.shape)}, but must be {np.dtype(dtype)}{list(shape)}."
                )
        first, size = self.spawn[:, :2], self.spawn[:, 2:]  # (row, column) each
        inside = (first >= 0) & (size > 0) & (first <= np.subtract(field, size))
        if len(wrong := np.flatnonzero(~inside.all(1))):
            raise ValueError(
                f"layout.spawn[{wrong[0]}] is {self.spawn[wrong[0]].tolist()}, no area of the {w.height} x {w.width} "
                f"field: give its top, left, height and width."
            )
        if not ((self.colour >= AGENT_1) & (self.colour <= AGENT_4)).all():
            raise ValueError(f"layout.colour holds {np.unique(self.colour).tolist()}: use AGENT_1 to AGENT_4 only.")
        if not isinstance(self.food, int | float | np.number):
            raise TypeError(f"layout.food is a {type(self.food).__name__}: give a number.")
        if not 0 <= self.food <= 1:
            raise ValueError(f"layout.food={self.food} is out of range: it is a share of the cells, from 0 to 1.")


def grid_shape(world: World) -> tuple[int, int, int]:
    """Shape of the grid. A row has room for a 16-byte read from its last window, and no power of two for a stride:
    the rows of a window would fall into the same cache set."""
    stride = -(-(world.width + 2 * world.vision + 16) // 64) * 64
    if stride & (stride - 1) == 0:
        stride += 64
    return world.worlds, world.height + 2 * world.vision, stride
