"""What a world is: its cell codes, its settings, and what a task lays out in it.

Coordinates are (row, column) in *grid cells*. The playing field is grid[w, vision : vision + height,
vision : vision + width]; the walls around it form a margin that keeps every window inside the array.
"""

from collections.abc import Container
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np

from particle_grid.sim import observation
from particle_grid.support.errors import UserError, UserTypeError

EMPTY, FOOD, WALL, AGENT_1, AGENT_2, AGENT_3, AGENT_4 = range(7)
CODES = 7  # number of cell codes; every code from AGENT_1 on is an agent
MAX_COLOURS = 4
UNSEEN = -(1 << 15)  # the counts of agents in sight if they are not counted: an impossible count
DYNAMICS = ("kinematic", "inertial")
POSITIONS_PER_MOVE = 8  # least number of float32 positions that a full move passes, so rounding changes it by 1/16
MAX_SIDE = 1 << 20  # cells: float32 positions are too coarse beyond
MAX_VISION, MAX_SPEED = 64, 64
MAX_REPEAT = 64
MAX_CELLS, MAX_ALL_CELLS = 1 << 31, 1 << 40  # cells of one world, and of all worlds
MAX_ALL_AGENTS = 1 << 31

_WHOLE = {"worlds": 1, "agents": 1, "height": 1, "width": 1, "vision": 1, "max_episode_steps": 0}
_WHOLE |= {"action_repeat": 1}  # smallest values
_NUMBERS = ("speed", "lifespan", "walls", "acceleration", "drag", "action_cost", "dead_zone")


@dataclass(frozen=True)
class World:
    """The settings of the worlds of an environment, independent of the task.

    Raises:
        UserError: if such worlds cannot be built.
    """

    worlds: int = 1  # number of independent copies, simulated together
    agents: int = 4096  # number of agents in each world
    height: int = 512  # height in cells; 4096 agents on 512 x 512 cells meet often enough to learn from it
    width: int = 512  # width in cells
    vision: int = 5  # an agent sees (2 * vision + 1)**2 cells; with 5, an observation fills two cache lines
    speed: float = 1.0  # maximum cells per step along each axis
    lifespan: float = 150.0  # expected number of steps until an agent respawns (0: never)
    max_episode_steps: int = 0  # number of steps until a world restarts, each world at a different time (0: never)
    walls: float = 0.0  # share of the field's cells that are walls, placed at random
    dynamics: str = "kinematic"  # kinematic: an action is a displacement; inertial: an action is an acceleration
    acceleration: float = 0.25  # inertial only: velocity in cells per step that a full action adds along each axis
    drag: float = 0.1  # inertial only: share of the velocity that is lost in each step
    action_cost: float = 0.0  # share of the reward that penalises the mean square of an action's components
    action_repeat: int = 1  # number of steps that an action lasts; its reward is their mean
    dead_zone: float = 0.0  # continuous only: components of an action that are smaller than this count as 0

    def __post_init__(self) -> None:
        for setting in fields(self):
            value = getattr(self, setting.name)
            if isinstance(value, np.generic):  # products of NumPy integers might overflow
                object.__setattr__(self, setting.name, value.item())
        for name, least in _WHOLE.items():
            _check_whole(name, getattr(self, name), least)
        for name in _NUMBERS:
            _check_number(name, getattr(self, name))
        self._check_field()
        self._check_time()
        self._check_dynamics()
        self._check_shares()
        self._check_capacity()

    @property
    def observation_size(self) -> int:
        """Return the number of bytes of one observation."""
        return observation.size(self.vision)

    def within(self, height: int, width: int, chosen: Container[str] = ()) -> "World":
        """Return one world of at most `height` x `width` cells, as dense as this one.

        Args:
            height, width: in cells.
            chosen: names of settings that stay as they are.
        """
        height = self.height if "height" in chosen else min(self.height, height)
        width = self.width if "width" in chosen else min(self.width, width)
        share = height * width / (self.height * self.width)
        agents = self.agents if "agents" in chosen else max(1, round(share * self.agents))
        worlds = self.worlds if "worlds" in chosen else 1
        return replace(self, worlds=worlds, agents=agents, height=height, width=width)

    def _check_field(self) -> None:
        side = 2 * self.vision + 1
        for name in ("height", "width"):
            value = getattr(self, name)
            if value < side:
                raise UserError(
                    f"{name}={value} is smaller than the window an agent sees ({side} x {side} cells for "
                    f"vision={self.vision}): use a larger world or a smaller vision."
                )
            if value > MAX_SIDE:
                raise UserError(f"{name}={value} is too large: float32 positions end at {MAX_SIDE} cells.")
        if self.vision > MAX_VISION:
            side = 2 * MAX_VISION + 1
            raise UserError(
                f"vision={self.vision} is too large: windows of more than {side} x {side} cells are not supported."
            )

    def _check_time(self) -> None:
        if self.max_episode_steps >= 1 << 31:
            raise UserError(
                f"max_episode_steps={self.max_episode_steps} is too large: it must be below {1 << 31} steps (0: never)."
            )
        if self.action_repeat > MAX_REPEAT:
            raise UserError(f"action_repeat={self.action_repeat} is too large: give at most {MAX_REPEAT} steps.")
        if not (self.lifespan == 0 or 1 <= self.lifespan < 2**40):
            raise UserError(f"lifespan={self.lifespan} is out of range: expected steps, at least 1 (0: no respawns).")

    def _check_dynamics(self) -> None:
        if self.dynamics not in DYNAMICS:
            raise UserError(f"There are no dynamics {self.dynamics!r}. Choose one of: {', '.join(DYNAMICS)}.")
        for name in ("speed", "acceleration"):
            value = getattr(self, name)
            if not 0 < value <= MAX_SPEED:
                raise UserError(
                    f"{name}={value} is out of range: it is in cells per step, above 0 and at most {MAX_SPEED}."
                )
        spacing = float(np.spacing(np.float32(max(self.height, self.width) + self.vision)))
        least = POSITIONS_PER_MOVE * spacing
        for name in ("speed", "acceleration") if self.dynamics == "inertial" else ("speed",):
            value = getattr(self, name)
            if value < least:  # rounding would remove much of a full action, or all of it
                raise UserError(
                    f"{name}={value} is too small for a {self.height} x {self.width} field: positions are float32, "
                    f"{spacing:.2g} cells apart at its far edge. Use at least {least:.2g}, or a smaller world."
                )

    def _check_shares(self) -> None:
        if not 0 <= self.walls < 1:
            raise UserError(f"walls={self.walls} is out of range: it is a share of the cells, from 0 to below 1.")
        if not 0 <= self.drag <= 1:
            raise UserError(f"drag={self.drag} is out of range: it is a share of the velocity, from 0 to 1.")
        if not 0 <= self.action_cost < 1:
            raise UserError(
                f"action_cost={self.action_cost} is out of range: it is a share of the reward, from 0 to below 1."
            )
        if not 0 <= self.dead_zone < 1:
            raise UserError(
                f"dead_zone={self.dead_zone} is out of range: it is the size of a component, from 0 to below 1."
            )

    def _check_capacity(self) -> None:
        if self.agents > self.height * self.width:  # found before anything is allocated for them
            raise UserError(
                f"agents={self.agents} do not fit: the {self.height} x {self.width} field has "
                f"{self.height * self.width} free cells. Use fewer agents or a larger world."
            )
        _, rows, stride = grid_shape(self)
        if rows * stride >= MAX_CELLS:
            raise UserError(
                f"A world of height={self.height} and width={self.width} is too large: it may have {MAX_CELLS} cells."
            )
        if self.worlds * rows * stride >= MAX_ALL_CELLS or self.worlds * self.agents >= MAX_ALL_AGENTS:
            raise UserError(
                f"worlds={self.worlds} of agents={self.agents}, height={self.height} and width={self.width} are too "
                f"many: together they may have {MAX_ALL_CELLS} cells and {MAX_ALL_AGENTS} agents."
            )


def only_world(world: Any, settings: World) -> World:
    """Return `world`, or raise UserError if it is not a World or settings are given as well."""
    if not isinstance(world, World):
        raise UserTypeError(f"world={world!r} is not a World: give World(...), or its settings one by one.")
    for setting in fields(World):
        value = getattr(settings, setting.name)
        if value != setting.default:
            raise UserError(f"{setting.name}={value!r} and world= exclude each other: set {setting.name} in the World.")
    return world


def _check_whole(name: str, value: Any, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool):
        raise UserTypeError(f"{name}={value!r} is not a whole number.")
    if value < least:
        raise UserError(f"{name}={value} is too small: it must be at least {least}.")


def _check_number(name: str, value: Any) -> None:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise UserTypeError(f"{name}={value!r} is not a number.")


def grid_shape(world: World) -> tuple[int, int, int]:
    """Return the shape [worlds, rows, stride] of the grid.

    A row leaves room for a 16-byte read from its last window. Its stride is not a power of two, because the rows of a
    window would then share a cache set.
    """
    stride = -(-(world.width + 2 * world.vision + 16) // 64) * 64
    if stride & (stride - 1) == 0:
        stride += 64
    return world.worlds, world.height + 2 * world.vision, stride


@dataclass
class Layout:
    """What a task's `init` lays out in every world: agents' colours, where they spawn, walls, food and targets.

    It starts with agents of one colour that spawn anywhere in an empty field. The simulator reads it once, after
    `init`; later only `map` is used, by the task itself.
    """

    world: World
    colour: np.ndarray = field(init=False)  # u8[agents] of AGENT_1..AGENT_4, the same in each world
    spawn: np.ndarray = field(init=False)  # i64[4, 4] per colour: top, left, height, width, in field cells
    walls: np.ndarray = field(init=False)  # bool[height, width] walls in addition to the random ones
    food: float = 0.0  # share of the field's cells that hold food, placed at random; eaten food regrows elsewhere
    targets: np.ndarray | None = None  # bool[height, width] cells shown as food that cannot be eaten
    # Anything that the reward looks up.
    map: np.ndarray = field(default_factory=lambda: np.zeros((1, 1, 1), np.float32))

    def __post_init__(self) -> None:
        w = self.world
        self.colour = np.full(w.agents, AGENT_1, np.uint8)
        self.spawn = np.tile(np.array([0, 0, w.height, w.width], np.int64), (MAX_COLOURS, 1))
        self.walls = np.zeros((w.height, w.width), bool)

    def mix_colours(self, colours: int) -> None:
        """Deal `colours` colours to the agents in equal parts."""
        if not isinstance(colours, int | np.integer):
            raise UserTypeError(f"colours={colours!r} is not a whole number.")
        if not 1 <= colours <= MAX_COLOURS:
            raise UserError(f"colours={colours} is out of range: agents have 1 to {MAX_COLOURS} colours.")
        self.colour[:] = AGENT_1 + np.arange(self.world.agents) % colours

    def blob(self, packing: float, row: float = 0.5, column: float = 0.5) -> None:
        """Let agents of all colours spawn together in a square.

        Args:
            packing: share of the square's cells that hold an agent, above 0 to 1.
            row: where the middle of the square is, as a share of the field's height.
            column: likewise, of its width.
        """
        for name, value in (("packing", packing), ("row", row), ("column", column)):
            if not isinstance(value, int | float | np.number) or not np.isfinite(value):
                raise UserError(f"{name}={value!r} is not a finite number.")
        if not 0 < packing <= 1:
            raise UserError(
                f"packing={packing} is out of range: it is the share of a blob's cells with agents, above 0 to 1."
            )
        w = self.world
        side = np.ceil(np.sqrt(w.agents / packing))  # may be infinite
        height, width = int(min(side, w.height)), int(min(side, w.width))
        top = int(np.clip(row * w.height - height / 2, 0, w.height - height))
        left = int(np.clip(column * w.width - width / 2, 0, w.width - width))
        self.spawn[:] = top, left, height, width

    def check(self) -> None:
        """Raise UserError for a layout that kernels, which trust it, could not run."""
        self._check_arrays()
        w, shape = self.world, (self.world.height, self.world.width)
        first, size = self.spawn[:, :2], self.spawn[:, 2:]  # (row, column) each
        inside = (first >= 0) & (size > 0) & (first <= np.subtract(shape, size))
        if len(wrong := np.flatnonzero(~inside.all(1))):
            raise UserError(
                f"layout.spawn[{wrong[0]}] is {self.spawn[wrong[0]].tolist()}, which is not an area of the {w.height} "
                f"x {w.width} field: give its top, left, height and width."
            )
        if not ((self.colour >= AGENT_1) & (self.colour <= AGENT_4)).all():
            raise UserError(f"layout.colour holds {np.unique(self.colour).tolist()}: use AGENT_1 to AGENT_4 only.")
        if not isinstance(self.food, int | float | np.number):
            raise UserTypeError(f"layout.food is a {type(self.food).__name__}: give a number.")
        if not 0 <= self.food <= 1:
            raise UserError(f"layout.food={self.food} is out of range: it is a share of the cells, from 0 to 1.")

    def _check_arrays(self) -> None:
        field_shape = (self.world.height, self.world.width)
        wanted: dict[str, tuple[type, tuple[int, ...]]] = {
            "colour": (np.uint8, (self.world.agents,)),
            "spawn": (np.int64, (MAX_COLOURS, 4)),
            "walls": (np.bool_, field_shape),
        }
        if self.targets is not None:
            wanted["targets"] = np.bool_, field_shape
        for name, (dtype, shape) in wanted.items():
            array = getattr(self, name)
            if not isinstance(array, np.ndarray) or isinstance(array, np.ma.MaskedArray):
                raise UserTypeError(f"layout.{name} is a {type(array).__name__}: give a plain array.")
            if array.shape != shape or array.dtype != dtype:
                raise UserError(
                    f"layout.{name} is {array.dtype}{list(array.shape)}, but must be {np.dtype(dtype)}{list(shape)}."
                )
