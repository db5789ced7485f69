"""The registry of tasks, and the tasks that ship, one in each file of this folder.

A file `my_task.py` here defines the class `MyTask` and is thereby registered as `my_task`. Installed packages register
tasks as entry points of the group `particle_grid.tasks`, and any other class is named by its place, `my_module:MyTask`.
"""

import inspect
from collections.abc import Mapping
from dataclasses import Field, fields, is_dataclass
from typing import Any

import numpy as np

from particle_grid.sim import task_places
from particle_grid.sim.task import METHODS, PARTS, Task, check_settings, check_task
from particle_grid.sim.world import World
from particle_grid.support import registry, renamed
from particle_grid.support.errors import UserError, UserTypeError, nearest

LARGEST = float(np.finfo(np.float32).max)  # kernels take the parameters of tasks as float32
# Keywords of `ParticleGrid` and keys of the command line, which parameters of tasks cannot be named after.
RESERVED = {"name", "task", "action", "seed", "buf", "world", "checked", "render_mode"}
RESERVED |= {field.name for field in fields(World)}


def names() -> list[str]:
    """Return the names of the registered tasks."""
    return sorted(task_places())


def load(name: str) -> type:
    """Return the class of a task.

    Args:
        name: a registered name, or a place `my_package.my_module:MyTask`.

    Raises:
        UserError: if there is no such task, or if its class lacks a part.
    """
    place = name if registry.is_place(name) else task_places().get(str(name))
    if place is None:
        raise registry.unknown_class("task", str(name), names())
    kind = registry.load("task", place, PARTS)
    _check_class(place, kind)
    return kind


def make(task: str | Task, params: Mapping[str, Any]) -> tuple[str, Task]:
    """Return the name of a task, and the task with its parameters set.

    Args:
        task: a name, see `load`; or a task, which has its parameters already.
        params: the parameters that differ from their defaults, if `task` is a name.

    Raises:
        UserError: for an unknown task, or an unknown or invalid parameter.
    """
    for key, value in params.items():
        if new := renamed.successor("world", key):
            raise UserError(f"{key}={value!r} was renamed: use {new}={value!r}.")
    if isinstance(task, type):
        raise UserError(f"task={task.__name__} is a class: give a task of it, as in {task.__name__}().")
    if isinstance(task, str) or not is_dataclass(task):
        name, kind = str(task), load(task)  # type: ignore[arg-type]  # refuses anything but a text
        _check_params(name, kind, params)
        made: Task = kind(**params)
    else:
        name, made = _name_of(type(task)), task
        _check_object(name, task, params)
    check_task(name, made)
    return name, made


def _check_object(name: str, task: Task, params: Mapping[str, Any]) -> None:
    """Raise UserError for an object that is not a task, or that is given with additional parameters."""
    for key, value in params.items():
        raise UserError(f"{key}={value!r} belongs to the task: give it to the {name} object itself.")
    kind = type(task)
    registry.check_parts("task", name, kind, PARTS)
    _check_class(name, kind)
    own = fields(kind)  # type: ignore[arg-type]  # a dataclass, as was just checked
    _check_params(name, kind, {field.name: getattr(task, field.name) for field in own if field.init})


def _name_of(kind: type) -> str:
    """Return the registered name of a task's class, or else its place."""
    place = f"{kind.__module__}:{kind.__qualname__}"
    return next((name for name, registered in task_places().items() if registered == place), place)


def _check_class(place: str, kind: type) -> None:
    if not is_dataclass(kind):
        raise UserError(f"The task {place} is not a dataclass, whose fields are its parameters: decorate it as one.")
    for field in fields(kind):
        if field.init and not isinstance(field.default, int | float | str | None):
            raise UserError(
                f"The parameter {field.name} of the task {place} has no number or text as its default: give it one."
            )
    for method, parameters in METHODS.items():
        _check_method(place, method, getattr(kind, method), parameters)
    check_settings(place, kind)


def _check_method(place: str, name: str, method: Any, parameters: tuple[str, ...]) -> None:
    """Raise UserError if a part of a task is not a method that takes these parameters after itself."""
    try:
        inspect.signature(method).bind(None, *parameters)
    except TypeError:
        words = ", ".join(("self", *parameters))
        raise UserError(f"`{name}` of the task {place} must be a method that takes ({words}): define it so.") from None


def _check_params(name: str, kind: type, params: Mapping[str, Any]) -> None:
    known: dict[str, Field] = {field.name: field for field in fields(kind)}
    if taken := known.keys() & RESERVED:
        raise UserError(f"The parameter {min(taken)} of task {name} is a setting of every task: rename it.")
    for key, value in params.items():
        if key not in known:
            near = nearest(key, [*known, *RESERVED])
            if near in RESERVED:
                raise UserError(f"There is no setting {key!r}. Did you mean {near}?")
            hint = f" Did you mean {near}?" if near else ""
            words = ", ".join(known) or "none"
            raise UserError(f"Task {name} has no parameter {key!r}.{hint} Its parameters are: {words}.")
        _check_value(f"Parameter {key}={value!r} of task {name}", value, known[key].default)


def _check_value(what: str, value: Any, default: Any) -> None:
    """Raise UserError unless a value is of the kind of a parameter's default."""
    kinds = int | float | np.integer | np.floating if isinstance(default, int | float) else str
    fits = isinstance(value, kinds) and (isinstance(default, bool) or not isinstance(value, bool))
    if not fits and not (value is None and default is None):  # a parameter that defaults to None takes None or a text
        raise UserTypeError(f"{what} should be {'a text, or None' if default is None else f'like {default!r}'}.")
    if isinstance(default, int) and not isinstance(value, int | np.integer):
        raise UserTypeError(f"{what} is not a whole number.")
    if isinstance(default, float) and not abs(value) <= LARGEST:
        raise UserError(f"{what} is not a finite float32.")
