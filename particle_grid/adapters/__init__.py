"""ParticleGrid with the interfaces of other libraries. Importing this package registers its tasks with Gymnasium."""

from typing import TYPE_CHECKING, Any, NoReturn

from gymnasium.envs.registration import register, registry

from particle_grid import sim
from particle_grid.support.errors import UserError

if TYPE_CHECKING:  # imports Numba, which takes long
    from particle_grid.env import ParticleGrid
    from particle_grid.sim.world import World

# The version of every id. An id promises its bytes: if the golden hashes change, raise the version.
# tests/test_golden.py holds the hashes of each id.
VERSION = 0
LIFETIME: dict[str, Any] = {"lifespan": 0.0, "max_episode_steps": 150}  # defaults of adapters whose agents end together


def environment_id(task: str) -> str:
    """Return a task's id in Gymnasium: `predator_prey` is ParticleGrid/PredatorPrey-v0."""
    return f"ParticleGrid/{''.join(part.capitalize() for part in task.split('_'))}-v{VERSION}"


def register_tasks() -> None:
    """Register every task for `gymnasium.make_vec`, unless it is already."""
    for task in sim.task_places():
        if environment_id(task) not in registry:
            register(
                environment_id(task),
                entry_point="particle_grid.adapters:refuse_single_agent",
                vector_entry_point="particle_grid.adapters.gymnasium:make_registered",
                kwargs={"registered": task},
            )


def refuse_single_agent(registered: str, **_: Any) -> NoReturn:
    """Raise UserError for `gymnasium.make`, and for `make_vec` in the modes that call it: each agent would be alone."""
    name = environment_id(registered)
    raise UserError(
        f"{name} holds many agents and is a vector environment itself: use gymnasium.make_vec({name!r}, num_envs=...) "
        f"without vectorization_mode."
    )


def with_lifetime(settings: dict[str, Any]) -> dict[str, Any]:
    """Return settings of `ParticleGrid` with the defaults of LIFETIME, unless they have a `world`."""
    return settings if settings.get("world") is not None else LIFETIME | settings


def check_episodes(world: "World") -> None:
    """Raise UserError if the episodes of a world have no step to act in."""
    if world.max_episode_steps == 1:
        raise UserError(
            "max_episode_steps=1 leaves no step to act in: choose at least 2, or 0 for a world without an end."
        )


def show_in_window(native: "ParticleGrid") -> None:
    """Show the first world if `render_mode` is "human", for libraries that expect it of every reset and step."""
    if native.render_mode == "human":
        native.render()


register_tasks()
