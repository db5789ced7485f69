"""Translate what earlier versions of this program have saved to the current names."""

from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any

from particle_grid.learn.checkpoint import FIRST_OPTIMISER
from particle_grid.learn.config import TrainerConfig
from particle_grid.support.renamed import ARRAYS, SETTINGS

FIRST_SETTINGS = {"optimiser": FIRST_OPTIMISER, "anneal_power": 1.0}  # settings of the trainer
FIRST_AUTO_HEAD = "bins"  # what policy.head=auto meant for continuous actions before version 3 of checkpoints
DROPPED = ("resume", "allow", "watch")  # keys of a saved config that are about one command, not about the run
WHOLE = {field.name for field in fields(TrainerConfig) if field.type in (int, "int")}


def upgraded_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a nested config with current names, and without keys that are about one command."""
    new = {key: dict(value) if isinstance(value, Mapping) else value for key, value in config.items()}
    for old_name, new_name in SETTINGS.items():
        group, _, old_key = old_name.partition(".")
        values = new.get(group)
        if isinstance(values, dict) and old_key in values:
            values[new_name.partition(".")[2]] = values.pop(old_key)
    if isinstance(new.get("trainer"), dict):
        new["trainer"] = {key: _as_whole(key, value) for key, value in new["trainer"].items()}
    return {key: value for key, value in new.items() if key not in DROPPED}


def _as_whole(key: str, value: Any) -> Any:
    """Return a setting of a trainer, as a whole number if it is one: total_steps=4e7 was once saved as a float."""
    return int(value) if key in WHOLE and isinstance(value, float) and value.is_integer() else value


def upgraded_override(override: str) -> str:
    """Return an override with the current name of its key."""
    key, equals, value = override.partition("=")
    bare = key.lstrip("+~")
    return key.replace(bare, SETTINGS.get(bare, bare)) + equals + value


def upgraded_overrides(overrides: Iterable[str]) -> list[str]:
    """Return overrides with the current names of their keys."""
    return [upgraded_override(override) for override in overrides]


def upgraded_checkpoint(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return the state in a checkpoint, of any version that can be read, with current names."""
    new = dict(state)
    if isinstance(new.get("config"), Mapping):
        new["config"] = upgraded_config(new["config"])
        if isinstance(new["config"].get("trainer"), dict):  # earlier versions had no choice, so they do not name theirs
            new["config"]["trainer"] = FIRST_SETTINGS | new["config"]["trainer"]
        if new.get("version", 1) < 3:
            new["config"] = _with_first_head(new["config"])
    if isinstance(new.get("envs"), list):
        new["envs"] = [_upgraded_arrays(env) for env in new["envs"]]
    if isinstance(new.get("others"), list):
        new["others"] = [upgraded_checkpoint(other) if isinstance(other, Mapping) else other for other in new["others"]]
    return new


def _with_first_head(config: dict[str, Any]) -> dict[str, Any]:
    """Return a config that names the head which `auto` stood for."""
    action, policy = config.get("action"), config.get("policy")
    if not isinstance(action, Mapping) or not isinstance(policy, Mapping) or action.get("name") != "continuous":
        return config
    if policy.get("head", "auto") != "auto":
        return config
    return config | {"policy": {**policy, "head": FIRST_AUTO_HEAD}}


def _upgraded_arrays(arrays: Any) -> Any:
    """Return a saved simulator state with the current names of its arrays."""
    if not isinstance(arrays, Mapping):
        return arrays
    return {ARRAYS.get(name, name): array for name, array in arrays.items()}
