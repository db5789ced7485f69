"""Policies as .safetensors files: weights that many programs read, and what belongs to them as JSON in the metadata.

Nothing in such a file can be executed. What it says is checked like the content of any checkpoint.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from particle_grid.learn import checkpoint
from particle_grid.learn.policy import Policy
from particle_grid.support import optional
from particle_grid.support.errors import UserError

SUFFIX = ".safetensors"
KEY = "particle_grid"  # key of the JSON in the metadata


def check_libraries() -> None:
    """Raise UserError if the library is not installed."""
    optional.load("safetensors.torch", "export", "format=safetensors")


def encode(policy: Policy, contract: Mapping[str, Any]) -> bytes:
    """Return the content of a file.

    Args:
        policy: whose weights are saved.
        contract: plain values, with at least the version, config and steps of a checkpoint.

    Raises:
        UserError: if the library is not installed.
    """
    library = optional.load("safetensors.torch", "export", "format=safetensors")
    weights = policy.state_dict()
    # The format knows neither strides nor shared memory.
    own = {name: x.cpu().clone(memory_format=torch.contiguous_format) for name, x in weights.items()}
    return bytes(library.save(own, {KEY: json.dumps(contract)}))


def read(path: str | Path) -> dict[str, Any]:
    """Return the part of a checkpoint that playing needs.

    Raises:
        UserError: for a file that is missing, damaged or of another program, or if the library is not installed.
    """
    library = optional.load("safetensors", "export", str(path))
    if not Path(path).is_file():
        raise UserError(f"There is no file {path}: give the path of one that the command export has written.")
    try:
        with library.safe_open(path, framework="pt") as file:
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
            contract = json.loads((file.metadata() or {}).get(KEY, "null"))
    except Exception as error:  # a damaged file fails in any part of the library, which has its own exceptions
        reason = " ".join(str(error).split())
        raise UserError(f"{path} is not a .safetensors file or is damaged ({reason}): export it again.") from error
    checkpoint.check_version(path, contract)
    return {key: contract[key] for key in contract if key in ("version", "config", "steps")} | {"policy": weights}
