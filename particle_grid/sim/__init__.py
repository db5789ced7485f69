"""The simulator: NumPy arrays and Numba kernels, nothing else. This file lists the tasks without importing either."""

import pkgutil
from pathlib import Path

from particle_grid.support import registry

TASKS = [str(Path(__file__).with_name("tasks"))]  # folders whose files are registered as tasks


def task_places() -> dict[str, str]:
    """Return the places of the registered tasks' classes, by name: in TASKS, and where installed packages say."""
    files = [module.name for module in pkgutil.iter_modules(TASKS) if not module.name.startswith("_")]
    here = {name: f"{__name__}.tasks.{name}:{''.join(part.capitalize() for part in name.split('_'))}" for name in files}
    return registry.registered("task") | here
