"""The schema of a checkpoint, checked in one place before anything is built from it.

Anyone who can write a file can also sign it, so nothing in it is taken for granted. What depends on the network or on
the world is checked where these are built: shapes of weights by the policy, the state of worlds by the simulator.
"""

import inspect
import math
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import torch

from particle_grid.env import ACTIONS
from particle_grid.learn.checkpoint import FIRST_OPTIMISER, MOST_STEPS, PROCESS_KINDS
from particle_grid.learn.config import OPTIMISERS
from particle_grid.learn.loggers import LOGGERS
from particle_grid.learn.policy import make_policy
from particle_grid.settings.run_config import GROUPS
from particle_grid.sim.tasks import RESERVED
from particle_grid.sim.world import World
from particle_grid.support.errors import UserError

PLAY = ("config", "steps", "policy")  # parts of a checkpoint that playing needs
SHIPPED = (*PLAY, "score")
PROCESS = tuple(PROCESS_KINDS)  # parts that each process of a run has for itself
RESUME = (*PLAY, "optimiser", *PROCESS)  # parts that training needs
CONFIG = ("task", "action", "policy", "world", "seed", "name")  # required keys of a run's config
NUMBERS = ("seed", "clips", "evaluations")
LARGEST = 1 << 63  # integers stay below it
# Arguments of an environment or a policy, which the parameters of a task or a policy must not override.
TAKEN = RESERVED - {"name"}
GIVEN = inspect.signature(make_policy).parameters.keys() - {"name", "kwargs"}


def check(saved: Mapping[str, Any], parts: tuple[str, ...]) -> None:
    """Raise UserError, with half a sentence, for a checkpoint in which one of the parts is missing or unsound."""
    config = saved.get("config")
    lacking = [key for key in parts if key not in saved]
    lacking = lacking or [f"config.{key}" for key in CONFIG if not isinstance(config, dict) or key not in config]
    if lacking:
        raise UserError(f"is not a checkpoint of a run: it has no {lacking[0]}")
    for part in parts:
        CHECKS[part](part, saved[part])
    if "envs" in parts:
        others = saved.get("others", [])  # processes of a run on several
        _require(isinstance(others, list), "others", "not a list of processes")
        _process(saved)
        for other in others:
            _require(isinstance(other, dict) and other.keys() >= set(PROCESS), "others", "not a list of processes")
            for part in PROCESS:
                CHECKS[part](f"others.{part}", other[part])
            _process(other)


def _process(state: Mapping[str, Any]) -> None:
    """Check that one process has as many opponents as environments, and a memory of each agent."""
    _require(len(state["opponents"]) == len(state["envs"]), "opponents", "for other worlds than it has")
    _require(all(len(x) == len(state["starts"]) for x in state["state"]), "state", "of other agents than it has")


def _require(holds: bool, where: str, what: str) -> None:
    if not holds:
        raise UserError(f"is damaged: its {where} is {what}")


def _config(where: str, config: dict[str, Any]) -> None:
    _values(where, config)
    for group in GROUPS:
        _require(isinstance(config.get(group, {}), dict), f"config.{group}", "not a group of settings")
    for group in ("task", "action", "policy"):
        _require(isinstance(config[group].get("name"), str), f"config.{group}.name", "not a name")
    action, name = config["action"]["name"], config["name"]
    _require(action in ACTIONS, "config.action.name", f"{action!r}, not {' or '.join(ACTIONS)}")
    _require(isinstance(name, str | int) and str(name).isprintable(), "config.name", f"{name!r}, not a name")
    for key in NUMBERS:
        _count(f"config.{key}", config.get(key, 0))
    loggers = config.get("logger", [])
    known = isinstance(loggers, list) and all(name in LOGGERS for name in loggers)
    _require(known, "config.logger", "not a list of loggers")
    taken = sorted(TAKEN & config["task"].keys())
    _require(not taken, f"config.task.{''.join(taken[:1])}", "not a parameter of a task")
    given = sorted(GIVEN & config["policy"].keys())
    _require(not given, f"config.policy.{''.join(given[:1])}", "not an option of a policy")
    unknown = sorted(config["world"].keys() - {field.name for field in fields(World)})
    _require(not unknown, f"config.world.{''.join(unknown[:1])}", "not a setting that worlds have")
    try:
        World(**config["world"])
    except (TypeError, ValueError) as error:
        raise UserError(f"describes an impossible world: {str(error).removesuffix('.')}") from error


def _values(where: str, x: Any) -> None:
    """Accept plain values only. What OmegaConf would look up elsewhere, such as ${oc.env:HOME}, is refused."""
    if isinstance(x, dict):
        for key, value in x.items():
            _require(isinstance(key, str) and key.isprintable(), where, "not a group of settings")
            _values(f"{where}.{key}", value)
    elif isinstance(x, list | tuple):
        for value in x:
            _values(where, value)
    elif isinstance(x, str):
        _require("${" not in x and x != "???", where, f"{x!r}, which refers to another value")
    elif isinstance(x, float):
        _require(not math.isnan(x), where, "not a number")
    else:
        _require(x is None or isinstance(x, bool | int), where, "neither a number nor text")
        _require(x is None or abs(x) < LARGEST, where, "too large a number")


def _steps(where: str, x: Any) -> None:
    _count(where, x)
    _require(x < MOST_STEPS, where, f"{x}, more than a run can make")


def _count(where: str, x: Any) -> None:
    _require(type(x) is int and 0 <= x < LARGEST, where, f"{x!r}, not a whole number, 0 or more")


def _tensor(where: str, x: Any) -> None:
    """Accept finite tensors: with NaN or infinite weights a policy still plays, but it means nothing."""
    _require(isinstance(x, torch.Tensor), where, "not an array")
    _require(bool(x.isfinite().all()) if x.is_floating_point() else True, where, "not finite (NaN or infinite numbers)")


def _weights(where: str, x: Any) -> None:
    _require(isinstance(x, dict), where, "not a group of weights")
    for key, value in x.items():
        _require(isinstance(key, str) and key.isprintable(), where, "not a group of weights")
        _tensor(f"{where}.{key}", value)


def _memory(where: str, x: Any) -> None:
    _require(isinstance(x, list | tuple), where, "not what agents remember")
    for value in x:
        _tensor(where, value)
        _require(value.ndim > 0, where, "not what agents remember")


def _optimiser(where: str, x: Any) -> None:
    _require(isinstance(x, dict) and isinstance(x.get("state"), dict), where, "not the state of an optimiser")
    _require(x.get("name", FIRST_OPTIMISER) in OPTIMISERS, f"{where}.name", f"not {' or '.join(OPTIMISERS)}")
    for key, value in x["state"].items():
        _weights(f"{where}.{key}", value)


def _generator(where: str, x: Any) -> None:
    _require(isinstance(x, torch.Tensor) and x.dtype is torch.uint8 and x.ndim == 1, where, "not that of a generator")


def _starts(where: str, x: Any) -> None:
    _require(isinstance(x, torch.Tensor) and x.dtype is torch.bool and x.ndim == 1, where, "not a mask of agents")


def _envs(where: str, x: Any) -> None:
    _require(isinstance(x, list) and len(x) > 0, where, "not a list of the states of worlds")
    for state in x:
        _require(isinstance(state, dict), where, "not a list of the states of worlds")
        for key, array in state.items():
            named = isinstance(key, str) and isinstance(array, torch.Tensor)
            _require(named and array.dtype is not torch.bfloat16, where, "not a list of the states of worlds")


def _opponents(where: str, x: Any) -> None:
    _require(isinstance(x, list) and all(isinstance(one, dict) for one in x), where, "not a list of opponents")
    for pool in filter(None, x):
        _count(f"{where}.frozen", pool.get("frozen"))
        _require(isinstance(pool.get("selves"), list), where, "not a list of opponents")
        for one in pool["selves"]:
            _require(isinstance(one, dict) and {"policy", "state"} <= one.keys(), where, "not a list of opponents")
            _weights(where, one["policy"])
            _memory(where, one["state"])


def _score(where: str, x: Any) -> None:
    _require(isinstance(x, float) and math.isfinite(x), where, "not a score")


CHECKS = {
    "config": _config,
    "steps": _steps,
    "policy": _weights,
    "optimiser": _optimiser,
    "generator": _generator,
    "envs": _envs,
    "opponents": _opponents,
    "starts": _starts,
    "state": _memory,
    "score": _score,
}
