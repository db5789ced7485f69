"""ParticleGrid with the interfaces of other libraries. Importing this package registers its tasks with Gymnasium."""

from gymnasium.envs.registration import register, registry

from particle_grid.sim import tasks


def environment_id(task: str) -> str:
    """Return a task's id in Gymnasium: `predator_prey` is ParticleGrid/PredatorPrey-v0."""
    return f"ParticleGrid/{''.join(part.capitalize() for part in task.split('_'))}-v0"


def register_tasks() -> None:
    """Register every task for `gymnasium.make_vec`, unless it is already."""
    for task in tasks.names():
        if environment_id(task) not in registry:
            entry = "particle_grid.adapters.gymnasium:ParticleGridVectorEnv"
            register(environment_id(task), vector_entry_point=entry, kwargs={"task": task})


register_tasks()
