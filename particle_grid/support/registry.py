"""Classes of other people: named as `my_package.my_module:MyClass`, or by a name that an installed package registers
as an entry point.

A name is only ever imported, as `import` does it, and the class is looked at before it is called. To import a module is
to run it, so a command imports none that only a checkpoint names: see `only`.
"""

import functools
import importlib
import inspect
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from importlib.metadata import entry_points

OURS = "particle_grid."  # modules of this package may be imported in any case
_asked: ContextVar[frozenset[str] | None] = ContextVar("asked", default=None)  # None: whatever a program names


@contextmanager
def only(places: Iterable[str]) -> Iterator[None]:
    """Import no places within this context but these, those that installed packages register, and our own."""
    token = _asked.set(frozenset(places))
    try:
        yield
    finally:
        _asked.reset(token)


@functools.cache
def registered(kind: str) -> dict[str, str]:
    """The names of a kind ("task", "policy" or "head") that installed packages register, each with its place, from
    their entry points in the group `particle_grid.tasks`, `particle_grid.policies` or `particle_grid.heads`."""
    group = {"task": "tasks", "policy": "policies", "head": "heads"}[kind]
    return {entry.name: entry.value for entry in entry_points(group=f"particle_grid.{group}")}


def is_place(name: object) -> bool:
    """Whether a name says where a class is."""
    return isinstance(name, str) and ":" in name


def load(kind: str, place: str, parts: Sequence[str]) -> type:
    """The class at a place `module:Class`. Raises ValueError, in one sentence, where there is none, or one that lacks
    some of the parts, or where it may not be imported, see `only`."""
    module_name, _, name = place.partition(":")
    if not module_name or module_name.startswith("."):
        raise ValueError(f"The {kind} {place} has no module in front of the colon: write module:Class.")
    asked = _asked.get()
    if not (asked is None or place in asked or place.startswith(OURS) or place in registered(kind).values()):
        raise ValueError(
            f"The {kind} {place} is named only by a checkpoint, and using it would run the module {module_name}: if "
            f"you trust that module, add allow=[{place}] to the command line."
        )
    try:
        module = importlib.import_module(module_name)
    except (ImportError, SyntaxError) as error:
        raise ValueError(
            f"The {kind} {place} cannot be imported ({error}): write module:Class, and run where Python finds it."
        ) from error
    found = getattr(module, name, None)
    if not inspect.isclass(found):
        classes = [key for key, value in vars(module).items() if getattr(value, "__module__", "") == module_name]
        there = ", ".join(key for key in classes if inspect.isclass(vars(module)[key])) or "none"
        raise ValueError(f"The {kind} {place} is no class: {module_name} defines the classes {there}.")
    if missing := [part for part in parts if not hasattr(found, part)]:
        raise ValueError(f"The {kind} {place} lacks {', '.join(missing)}: see docs/own.md for what they are.")
    return found
