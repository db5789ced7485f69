"""Checks of single values of the command line."""

from collections.abc import Iterable

from omegaconf import DictConfig

from particle_grid.learn.loggers import LOGGERS
from particle_grid.support import registry
from particle_grid.support.errors import UserError, unknown
from particle_grid.support.text import as_written, printable

MOST_EPISODES = 10_000  # of an evaluation
LONGEST_NAME = 200  # bytes; a folder's name may have 255, and the time precedes this one


def check_whole_number(key: str, value: object, least: int, most: int = (1 << 63) - 1) -> int:
    """Return a whole number of the config.

    Raises:
        UserError: for anything else, or a number that is out of range.
    """
    if type(value) is not int or value < least:
        raise UserError(f"{key}={as_written(value)} is invalid: give a whole number, {least} or more.")
    if value > most:
        raise UserError(f"{key}={value} is invalid: give at most {most}.")
    return value


def check_paths(config: DictConfig, *keys: str) -> None:
    """Raise UserError if one of these keys is neither null nor text, such as a path from an empty variable."""
    for key in keys:
        value = config[key]
        if value is not None and not (value and isinstance(value, str)):
            raise UserError(f"{key}={as_written(value)} is not a path: give one, or leave it out.")


def check_switch(config: DictConfig, key: str) -> None:
    """Raise UserError if a key is neither true nor false."""
    if not isinstance(config[key], bool):
        raise UserError(f"{key}={as_written(config[key])} is invalid: give true or false.")


def check_overrides(overrides: Iterable[object]) -> None:
    """Raise UserError for an override that is not a text, or that is none of the settings of a run."""
    for override in overrides:
        if not isinstance(override, str):
            raise UserError(f"{override!r} is not an override: give texts such as 'task=group'.")
        if override.lstrip("+~").startswith(("resume=", "allow=", "watch=", "hydra.", "hydra/")):
            raise UserError(f"{override} is not a setting of a run, but of the command train: leave it out.")


def check_places(value: object) -> tuple[str, ...]:
    """Return the classes that `allow` names: those of a list, or a single one; none for None.

    Raises:
        UserError: for anything but places, module:Class.
    """
    single = value is None or isinstance(value, str)
    places = ([] if value is None else [value]) if single else value
    if not isinstance(places, list | tuple | set | frozenset) or not all(map(registry.is_place, places)):
        raise UserError(f"allow={as_written(value)} does not name classes: give module:Class, or a list of them.")
    return tuple(places)


def check_loggers(value: object) -> tuple[str, ...]:
    """Return the names of loggers: those of a list, or a single one.

    Raises:
        UserError: for one that does not exist, and for anything but names.
    """
    names = value if isinstance(value, list) else [value]
    for name in names:
        if not (name and isinstance(name, str)):
            raise UserError(
                f"logger={as_written(value)} does not name loggers: choose from {', '.join(LOGGERS)}, several as in "
                f"logger=[tensorboard,csv]; logger=[] for none."
            )
        if name not in LOGGERS:
            raise UserError(unknown(f"logger {name!r}", name, LOGGERS))
    return tuple(dict.fromkeys(names))


def check_name(name: object) -> str:
    """Return the name of a run as text.

    Raises:
        UserError: for a name that cannot be part of a folder's name, or that leads to another folder.
    """
    text = "" if name is None else str(name)
    if not text.isprintable() or {"/", "\\"} & set(text) or text.strip(" .") == "" or len(text.encode()) > LONGEST_NAME:
        raise UserError(
            f"name={printable(text)[:80]} cannot be part of a folder's name: give up to {LONGEST_NAME} letters, digits "
            f"and signs except / and \\, or choose any folder with hydra.run.dir=PATH on the command line."
        )
    return text
