"""Hydra's groups, and typed settings from what Hydra composes of them."""

import contextlib
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, asdict, fields
from functools import partial
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, TypeVar, cast, get_args, get_origin, get_type_hints

import hydra
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from particle_grid.learn.config import TrainerConfig
from particle_grid.settings import resolvers as resolvers  # registers them
from particle_grid.settings.arguments import plain_setting
from particle_grid.settings.checks import check_loggers, check_name, check_whole_number
from particle_grid.settings.errors import unknown_key
from particle_grid.settings.run_config import GROUPS, RunConfig
from particle_grid.sim import tasks
from particle_grid.sim.world import World
from particle_grid.support import registry
from particle_grid.support.errors import UserError, refusing_exit
from particle_grid.support.text import as_written

T = TypeVar("T")
PACKAGE = Path(__file__).parents[1]
# Hydra 1.4 warns if it is told a version to imitate, and if a config is registered again without `replace`.
HYDRA_1_3 = hydra.__version__.startswith("1.3.")
VERSION_BASE: dict[str, Any] = {"version_base": "1.3"} if HYDRA_1_3 else {}
REPLACE: dict[str, Any] = {} if HYDRA_1_3 else {"replace": True}
PLACE = re.compile(r"[\w.]*:\w*")  # place of a class: my_package.my_module:MyClass
KINDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a word", NoneType: "null"}
UNCHANGED = [field.name for field in fields(World) if field.name != "vision"]  # what eval and play can set of a world


def config_folder() -> Path:
    """Return the folder of the configs. In a checkout it is a link, which systems without links lack."""
    packaged = PACKAGE / "conf"
    return packaged if packaged.is_dir() else PACKAGE.parent / "conf"


def register_groups(arguments: Iterable[str] = (), training: bool = True) -> None:
    """Register the choices of Hydra's groups that are defined by classes instead of files.

    These are world, trainer, tasks and policies, with the defaults of their classes.

    Args:
        arguments: of the command line; tasks and policies that it names as module:Class are registered, too.
        training: whether the config has settings of the trainer, some of which tasks change.

    Raises:
        UserError: if there is no such class, or if an argument chooses several.
    """
    arguments = list(arguments)
    _check_choices(arguments)
    store = partial(ConfigStore.instance().store, **REPLACE)
    run = {key: getattr(RunConfig, key) for key in ("seed", "clips", "evaluations")}
    store(name="run", node=run | {"logger": list(RunConfig.logger)})  # Hydra 1.4 tells tuples from lists
    store(group="world", name="default", node=asdict(World()))
    store(group="world", name="unchanged", node=dict.fromkeys(UNCHANGED))
    store(group="trainer", name="default", node=asdict(TrainerConfig()) | {"seed": "${seed}"})
    named = _named_places(arguments)
    for group, defaults in DEFAULTS.items():
        known = tasks.names() if group == "task" else policies()
        for name in [*known, *named[group]]:
            # A registered name whose class is missing matters only once it is chosen.
            with contextlib.nullcontext() if name in named[group] else contextlib.suppress(ValueError):
                with refusing_exit():
                    node = defaults(name)
                if not training:
                    node.pop("trainer", None)
                store(group=group, name=name, node=node, package="_global_")


def _check_choices(arguments: Iterable[str]) -> None:
    """Raise UserError for an argument such as task=[group]: Hydra would merge the choices of a list."""
    for argument in arguments:
        key, _, value = argument.partition("=")
        if key.lstrip("+") in GROUPS and value.lstrip().startswith("["):
            raise UserError(f"{argument} is a list: choose one, as in {key}=NAME.")


def policies() -> list[str]:
    """Return the names of all policies."""
    from particle_grid.learn.policy import POLICIES

    return [*POLICIES, *registry.registered("policy")]


def _named_places(arguments: Iterable[str]) -> dict[str, list[str]]:
    """Return the places of classes that arguments such as task=module:Class name, by group."""
    named: dict[str, list[str]] = {group: [] for group in DEFAULTS}
    for key, _, value in (argument.partition("=") for argument in arguments):
        if key in named:
            named[key] += PLACE.findall(value)
    return named


def _task_defaults(name: str) -> dict[str, Any]:
    """Return the parameters of a task, and the settings of the world and the trainer that it needs."""
    kind = tasks.load(name)
    settings = dict(getattr(kind, "settings", {}))
    parameters = {"name": name} | asdict(kind()) | settings.pop("task", {})
    return {"task": parameters} | settings


def _policy_defaults(name: str) -> dict[str, Any]:
    from particle_grid.learn.policy import options_of, policy_class

    return {"policy": {"name": name} | options_of(policy_class(name))}


DEFAULTS: dict[str, Callable[[str], dict[str, Any]]] = {"task": _task_defaults, "policy": _policy_defaults}


def run_config(config: DictConfig) -> RunConfig:
    """Return the settings of a run that Hydra has composed.

    Raises:
        UserError: for a value that is invalid, or a name that cannot be part of a folder's name.
    """
    check_whole_number("seed", config.seed, 0)  # which trainer.seed refers to
    world = typed(World, config.world)
    trainer = typed(TrainerConfig, config.trainer)
    values: Any = OmegaConf.to_container(config, resolve=True)
    checked = {"world": asdict(world), "trainer": asdict(trainer), "name": check_name(values["name"])}
    return RunConfig.from_dict(values | checked | {"logger": check_loggers(values.get("logger"))})


def typed(cls: type[T], node: DictConfig) -> T:
    """Return a dataclass from a node of the config. What the node does not hold takes its default.

    Raises:
        UserError: for an unknown key, a wrong type or a missing value, and for what the dataclass itself refuses.
    """
    types = {field.name: field.type for field in fields(cls)}  # type: ignore[arg-type]
    values = {}
    for key, value in node.items():
        if key not in types:
            raise UserError(unknown_key(node, str(key), types))
        # 5e6 is the natural way to write a number of steps, and a float to YAML.
        whole = isinstance(value, float) and value.is_integer() and types[str(key)] in (int, "int")
        values[key] = int(value) if whole else value
        if isinstance(value, float) and not math.isfinite(value):
            raise UserError(f"{node._get_full_key(key)}={value} is invalid: give a finite number.")
        if types[str(key)] in (bool, "bool") and isinstance(value, int) and value not in (0, 1):
            raise UserError(f"{node._get_full_key(key)}={value} is invalid: give true or false.")
    try:
        return cast(T, OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(cls), values)))
    except OmegaConfBaseException as error:
        raise UserError(_mistyped(cls, node, values, error)) from None


def _mistyped(cls: type, node: DictConfig, values: dict[Any, Any], error: OmegaConfBaseException) -> str:
    """Return the sentence about a value that does not have the type of its field."""
    key = re.split(r"[.\[]", str(error.full_key))[0]
    full = node._get_full_key(key)
    if key not in values:
        return f"{full} is required: add {full}=VALUE."
    wanted = _in_words(get_type_hints(cls)[key])
    if not wanted:
        return f"{node._get_full_key(error.full_key)}: {str(error).splitlines()[0]}."
    default = next(field.default for field in fields(cls) if field.name == key)
    example = "" if default in (MISSING, None) else f", such as {as_written(default)}"
    return f"{full}={as_written(values[key])} is invalid: give {wanted}{example}."


def _in_words(kind: Any) -> str:
    """Return what a field of a type takes, or nothing for types with their own structure."""
    if isinstance(kind, UnionType):
        return " or ".join(map(_in_words, get_args(kind)))
    if get_origin(kind) is list:
        return f"a list, each entry of which is {_in_words(get_args(kind)[0])}"
    return KINDS.get(kind, "")


def resumed_config(saved: RunConfig, overrides: Iterable[str]) -> RunConfig:
    """Return the settings of a resumed run: the saved ones, except for those that may be overridden.

    These are `logger`, `clips`, `evaluations` and `trainer.*`, but not `trainer.seed`: the random generators continue.

    Raises:
        UserError: for any other override.
    """
    values = [override for override in overrides if not override.startswith(("resume=", "allow=", "watch="))]
    free = ("trainer.", "logger=", "clips=", "evaluations=")
    if fixed := [each for each in values if not each.startswith(free) or each.startswith("trainer.seed=")]:
        raise UserError(
            f"{fixed[0]} cannot be changed in a resumed run, only logger, clips, evaluations and trainer.* except its "
            f"seed: leave it out, or train a new run."
        )
    config = OmegaConf.create(saved.to_dict())
    for override in OverridesParser.create().parse_overrides(values):  # Hydra's parser: for it, `off` is a word
        if OmegaConf.select(config, override.key_or_group, default=MISSING) is MISSING:
            raise UserError(unknown_key(config.trainer, override.key_or_group.partition(".")[2]))
        OmegaConf.update(config, override.key_or_group, override.value())
    return run_config(config)


def composed(overrides: Sequence[str]) -> RunConfig:
    """Return the settings that `python -m particle_grid.train` has with these overrides.

    Raises:
        UserError, HydraException or OmegaConfBaseException: for overrides that are invalid.
    """
    return run_config(compose_train(overrides))


def compose_train(overrides: Sequence[str]) -> DictConfig:
    """Return what Hydra composes of conf/train.yaml and these overrides, inside a command and outside."""
    settings = [plain_setting(override) for override in overrides]
    register_groups(settings)
    if GlobalHydra.instance().is_initialized():  # within a command
        return compose("train", settings)
    with initialize_config_dir(str(config_folder()), **VERSION_BASE):
        return compose("train", settings)


def changed_world(world: World, changes: Mapping[str, Any]) -> World:
    """Return a world with some settings changed.

    Raises:
        UserError: for a value of the wrong type, or out of range.
    """
    return from_values(World, "world", asdict(world) | dict(changes))


def from_values(cls: type[T], name: str, values: Mapping[str, Any]) -> T:
    """Return a dataclass from plain values. Errors call them `name`.KEY, as on a command line.

    Raises:
        UserError: as `typed`, and for a value that no config can hold.
    """
    try:
        node = OmegaConf.create({name: dict(values)})[name]
    except OmegaConfBaseException as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{error.full_key} is invalid ({reason}): give plain numbers, texts and lists.") from None
    return typed(cls, node)
