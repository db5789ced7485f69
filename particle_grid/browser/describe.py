"""What `engine.js` needs to know of a world or of a policy, as JSON: its records, word by word.

Numbers of a record are given by value. An array has its dtype, its shape and, unless it starts with zeros, its bytes,
deflated and in base64.
"""

import base64
import zlib
from typing import Any

import numpy as np

from particle_grid.browser.entries import shipped_tasks
from particle_grid.browser.records import (
    Continuous,
    Discrete,
    layout_arrays,
    plain_rules,
    session,
    task_numbers,
)
from particle_grid.env import ParticleGrid
from particle_grid.sim.state import allocate
from particle_grid.sim.world import World
from particle_grid.support.errors import UserError

Fields = list[dict[str, Any]]


def record(value: Any, prefix: str = "", half: bool = False) -> Fields:
    """Return the fields of a record.

    Args:
        value: a named tuple or tuple of arrays and numbers, or of such tuples.
        prefix: of the names of the fields.
        half: whether float32 arrays are stored in 16 bits.
    """
    names = getattr(value, "_fields", range(len(value)))
    fields: Fields = []
    for name, each in zip(names, value, strict=True):
        place = f"{prefix}{name}"
        if isinstance(each, tuple):
            fields += record(each, f"{place}.", half)
        elif isinstance(each, np.ndarray):
            fields.append({"name": place, **_array(each, half)})
        else:
            fields.append({"name": place, **_number(each)})
    return fields


def _array(array: np.ndarray, half: bool) -> dict[str, Any]:
    known: dict[str, Any] = {"dtype": array.dtype.str[1:], "shape": list(array.shape)}
    if half and array.dtype == np.float32:
        known["half"] = True
        array = array.astype(np.float16)
    if array.any():
        known["data"] = base64.b64encode(zlib.compress(np.ascontiguousarray(array).tobytes(), 9)).decode()
    return known


def _number(value: Any) -> dict[str, Any]:
    """Return a number as the bits of its word."""
    if isinstance(value, bool | np.bool_ | int | np.integer):
        return {"word": str(int(value))}
    return {"word": str(int(np.array(value).view(f"i{np.array(value).itemsize}")))}


def world(env: ParticleGrid) -> dict[str, Any]:
    """Return the description of an environment's worlds, as they are before a reset.

    Its "stages" are the calls that make a step: names of the module's functions, and of the records that they take. A
    task that is not in the module has no rewards, no scores and no script.

    Raises:
        UserError: for worlds whose actions the module cannot convert.
    """
    _refuse_conversion(env.world)
    buffers = session(env.world, env.task.sight)
    state = allocate(env.layout)._replace(
        own_in_sight=env.state.own_in_sight.copy(), others_in_sight=env.state.others_in_sight.copy()
    )
    form = Discrete if env.discrete else Continuous
    records = {
        "state": record(state),
        "rules": record(plain_rules(env.rules)),
        "session": record(buffers),
        "actions": record(form(np.zeros_like(env.actions))),
    }
    if is_scored(env):
        records |= {"layout": record(layout_arrays(env.layout)), "task": record(task_numbers(env.task))}
    return {
        "task": env.task_name,
        "scored": is_scored(env),
        "action": env.action,
        "teams": env.task.teams,
        "unit": env.unit,
        "vision": env.vision,
        "height": env.world.height,
        "width": env.world.width,
        "worlds": env.world.worlds,
        "agents": env.world.agents,
        "stages": _stages(env),
        "records": records,
    }


def _refuse_conversion(settings: World) -> None:
    """Raise UserError for worlds whose actions the module cannot convert."""
    if settings.action_repeat > 1 or settings.dead_zone:
        raise UserError(
            f"The module has no action_repeat={settings.action_repeat} and no dead_zone={settings.dead_zone}: use 1 "
            f"and 0."
        )


def is_scored(env: ParticleGrid) -> bool:
    """Return whether the module has the task of an environment."""
    return env.task_name in shipped_tasks()


def _stages(env: ParticleGrid) -> list[list[str]]:
    """Return the calls that make a step with the actions that have been chosen, as `ParticleGrid.step` makes it."""
    look = ["look", "state", "rules", "session"]
    reward = [f"reward_{env.task_name}", "state", "session", "layout", "task"]
    return [
        [f"move_{env.action}", "state", "rules", "session", "actions"],
        *([look] if env.task.sight else []),
        *([reward] if is_scored(env) else []),
        [f"settle_{env.action}", "state", "rules", "session", "actions"],
        *([] if env.task.sight else [look]),
    ]
