"""Everything that the author of a task imports.

A task is one file with one class, a frozen dataclass with the parts that `Task` describes. `Layout` is what its `init`
fills in, `State` holds the arrays that its rewards and scores are computed from, and `decode` turns the observations
that its scripted policy sees into numbers. NumPy is fast enough for most tasks; loops over agents compiled with
`parallel_kernel` are faster.

Name the task as `my_module:MyTask`, wherever the name of a task is expected, or pass an instance to `ParticleGrid`.
Shorter names are registered as entry points of the group `particle_grid.tasks`. See docs/own.md for a complete task,
and particle_grid/contrib for others.
"""

from particle_grid.sim.observation import (
    Observation,
    cell_offset,
    decode,
    field_position,
    last_direction,
    last_reward,
    own_colour,
)
from particle_grid.sim.rng import below, hidden, uniform
from particle_grid.sim.scripted import fetch, override, steer, towards, wander
from particle_grid.sim.state import State
from particle_grid.sim.task import Task
from particle_grid.sim.tasks import load, names
from particle_grid.sim.world import (
    AGENT_1,
    AGENT_2,
    AGENT_3,
    AGENT_4,
    EMPTY,
    FOOD,
    UNSEEN,
    WALL,
    Layout,
    World,
)
from particle_grid.support.errors import UserError
from particle_grid.support.jit import kernel, parallel_kernel, prange

__all__ = [
    "AGENT_1",
    "AGENT_2",
    "AGENT_3",
    "AGENT_4",
    "EMPTY",
    "FOOD",
    "UNSEEN",
    "WALL",
    "Layout",
    "Observation",
    "State",
    "Task",
    "UserError",
    "World",
    "below",
    "cell_offset",
    "decode",
    "fetch",
    "field_position",
    "hidden",
    "kernel",
    "last_direction",
    "last_reward",
    "load",
    "names",
    "override",
    "own_colour",
    "parallel_kernel",
    "prange",
    "steer",
    "towards",
    "uniform",
    "wander",
]
