"""Interpolations of conf/train.yaml, such as ${digest:}."""

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import omegaconf
from omegaconf import DictConfig, OmegaConf

from particle_grid.settings.checks import check_name
from particle_grid.settings.invocation import AUTO
from particle_grid.support.text import printable

UNCHANGING = ("hydra", "allow", "logger", "watch")  # keys that do not change what a run computes


def digest(*, _root_: DictConfig) -> str:
    """Return eight letters that identify what a run computes, from its config without what does not change that."""
    config = OmegaConf.masked_copy(_root_, [str(key) for key in _root_ if key not in UNCHANGING])
    text = json.dumps(OmegaConf.to_container(config, resolve=True), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def run_name(name: object, resume: str | None) -> str:
    """Return what a run's folder is named after: its config, or the folder of the run that it resumes."""
    old = printable(Path(str(resume)).resolve().parent.name) if resume else ""
    return re.sub(r"^\d{4}-\d\d-\d\d_[\d-]+_", "", old) or check_name(name)


def run_folder(now: str, name: object, resume: str | None) -> str:
    """Return the name of the folder of a run: a new one with the time, or for resume=auto always the same."""
    return check_name(name) if resume == AUTO else f"{now}_{run_name(name, resume)}"


def plain(name: object) -> str:
    """Return the name of a task without the module of its class."""
    return str(name).rpartition(":")[2]


def register(*resolvers: Callable[..., Any]) -> None:
    """Let configs call functions by their names."""
    # OmegaConf 2.4, which comes with Hydra 1.4, gives the function the name that another one had before.
    name = "register_new_resolver" if omegaconf.__version__.startswith("2.3.") else "register_resolver"
    for resolver in resolvers:
        getattr(OmegaConf, name)(resolver.__name__, resolver, replace=True)


register(digest, run_name, run_folder, plain)  # at import, so that processes that only unpickle a job have them
