"""Classes from outside the package: named `my_package.my_module:MyClass`, or as entry points of installed packages.

A named class is imported like any other, and checked before it is called. Importing a module runs it, so a command does
not import modules that only a checkpoint names: see `only`.
"""

import ast
import functools
import importlib
import inspect
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType

from particle_grid.support.errors import UserError, UserRuntimeError, refusing_exit, unknown

GROUPS = {"task": "particle_grid.tasks", "policy": "particle_grid.policies", "head": "particle_grid.heads"}
OURS = "particle_grid."  # modules of this package may always be imported
_allowed: ContextVar[frozenset[str] | None] = ContextVar("allowed", default=None)  # None: everything


@contextmanager
def only(places: Iterable[str]) -> Iterator[None]:
    """Import, within this context, only these places, those that installed packages register, and our own."""
    token = _allowed.set(frozenset(places))
    try:
        yield
    finally:
        _allowed.reset(token)


@functools.cache
def registered(kind: str) -> dict[str, str]:
    """Return the places of the classes that installed packages register as entry points, by name.

    Args:
        kind: "task", "policy" or "head".
    """
    return {entry.name: entry.value for entry in entry_points(group=GROUPS[kind])}


def is_place(name: object) -> bool:
    """Return whether a name says where a class is, as `module:Class`."""
    return isinstance(name, str) and ":" in name


def unknown_class(kind: str, name: str, known: Iterable[str]) -> UserError:
    """Return the error about a name that no class has: how to name one's own, such as those in a file of this name.

    Args:
        kind: "task", "policy" or "head", or several of them in words.
        name: which is none of `known`.
        known: the names of classes that are registered.
    """
    module = name.removesuffix(".py")
    own = [f"{module}:{found}" for found in _classes_in(module)]
    remedy = f"A class in {module}.py is named with its module: {' or '.join(own)}." if own else ""
    return UserError(unknown(f"{kind} {name!r}", name, known), remedy or "Name a class of your own as module:Class.")


def _classes_in(module: str) -> list[str]:
    """Return the names of the classes in a module of the current folder, which is not imported; none without one."""
    if not module.isidentifier():
        return []
    try:
        nodes = ast.parse(Path(f"{module}.py").read_bytes()).body
    except (OSError, SyntaxError, ValueError):
        return []
    return [node.name for node in nodes if isinstance(node, ast.ClassDef)]


def check_constructor(kind: str, place: str, found: type, remedy: str, *arguments: object, **options: object) -> None:
    """Raise UserError if the constructor of a class does not take these arguments."""
    try:
        inspect.signature(found).bind(*arguments, **options)
    except TypeError:
        raise UserError(f"The constructor of {kind} {place} takes other arguments: {remedy}.") from None


def load(kind: str, place: str, parts: Sequence[str]) -> type:
    """Import a class.

    Args:
        kind: "task", "policy" or "head".
        place: `module:Class`.
        parts: names of the attributes that the class must have.

    Raises:
        UserError: if there is no such class, if it lacks parts, or if it may not be imported (see `only`).
    """
    module_name, _, name = place.partition(":")
    module = _import(kind, place, module_name)
    found = getattr(module, name, None)
    if not inspect.isclass(found):
        own = (value for value in vars(module).values() if getattr(value, "__module__", "") == module_name)
        classes = ", ".join(value.__name__ for value in own if inspect.isclass(value)) or "none"
        raise UserError(f"The {kind} {place} is not a class: {module_name} defines the classes {classes}.")
    check_parts(kind, place, found, parts)
    return found


def check_parts(kind: str, place: str, found: type, parts: Sequence[str]) -> None:
    """Raise UserError if a class lacks some of the attributes that its kind must have."""
    if missing := [part for part in parts if not hasattr(found, part)]:
        raise UserError(f"The {kind} {place} lacks {', '.join(missing)}: see docs/own.md for what they are.")


def check_allowed(places: Iterable[str]) -> None:
    """Raise UserError if some of these places may not be imported (see `only`), and name all of those."""
    allowed = _allowed.get()
    if allowed is None:
        return
    trusted = allowed.union(*(registered(kind).values() for kind in GROUPS))
    if refused := [place for place in places if place not in trusted and not place.startswith(OURS)]:
        raise UserError(
            f"Only a checkpoint names {' and '.join(refused)}, and using a class runs its module: if you trust it, "
            f"add allow=[{','.join(refused)}] to the command line, or allow={refused} to the call in Python."
        )


def _import(kind: str, place: str, module_name: str) -> ModuleType:
    if not module_name or module_name.startswith("."):
        raise UserError(f"The {kind} {place} has no module before the colon: write module:Class.")
    check_allowed([place])
    try:
        with refusing_exit():
            return importlib.import_module(module_name)
    except UserRuntimeError as error:
        raise UserRuntimeError(f"The {kind} {place} cannot be imported: {error}") from error
    except (ImportError, SyntaxError) as error:
        raise UserError(f"The {kind} {place} cannot be imported ({error}): {_remedy(error, module_name)}.") from error


def _remedy(error: ImportError | SyntaxError, module_name: str) -> str:
    """Return what to do about an error that importing a module raised."""
    if isinstance(error, SyntaxError):
        return "correct the syntax there"
    if isinstance(error, ModuleNotFoundError) and f"{module_name}.".startswith(f"{error.name}."):
        return "write module:Class, and run where Python finds the module"
    return f"correct that import in {module_name}, or install what it needs"
