"""particle_grid: thousands of particles on a grid, with discrete or continuous actions.

>>> import particle_grid
>>> policy = particle_grid.load_policy("group", action="continuous")
>>> particle_grid.record(policy, "group.gif")  # doctest: +SKIP
"""

import importlib
from typing import TYPE_CHECKING, Any

from particle_grid.support import lifeline, renamed, startup

if TYPE_CHECKING:
    from particle_grid.api import TrainedPolicy, evaluate, export_policy, load_policy, make_config, record, train_policy
    from particle_grid.env import ParticleGrid
    from particle_grid.runs.results import Results
    from particle_grid.settings.run_config import RunConfig
    from particle_grid.support.errors import UserError
    from particle_grid.tasks import Task, World

__version__ = "0.1.0"
__all__ = [
    "ParticleGrid",
    "Results",
    "RunConfig",
    "Task",
    "TrainedPolicy",
    "UserError",
    "World",
    "evaluate",
    "export_policy",
    "load_policy",
    "make_config",
    "record",
    "train_policy",
]
HOMES = {  # where each name is defined; imported when it is first used, since some of these modules take seconds
    "ParticleGrid": "env",
    "Results": "runs.results",
    "RunConfig": "settings.run_config",
    "Task": "tasks",
    "TrainedPolicy": "api",
    "UserError": "support.errors",
    "World": "tasks",
    "evaluate": "api",
    "export_policy": "api",
    "load_policy": "api",
    "make_config": "api",
    "record": "api",
    "train_policy": "api",
}

startup.quiet()
lifeline.follow()  # before slow imports, during which the command that started this process may end
renamed.refuse_old_modules()
importlib.import_module(f"{__name__}.adapters")  # registers the tasks with Gymnasium, which is not slow


def __getattr__(name: str) -> Any:
    """Import a public name. The simulator alone needs neither PyTorch nor PufferLib."""
    if name not in HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
