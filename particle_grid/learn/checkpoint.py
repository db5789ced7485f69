"""Checkpoints: one file that holds everything a run needs to resume, and the checks of what such a file holds.

A file is written completely or not at all, and read without executing anything in it. Compiled code trusts the shapes
it is given, so weights, moments and memory are checked before they reach it.
"""

import hashlib
import io
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from particle_grid.support import archive, atomic
from particle_grid.support.errors import UserError, UserTypeError

VERSION = 3  # what 1 and 2 mean today is in `particle_grid.runs.versions`
READABLE = (1, 2, 3)
DTYPES = frozenset(archive.DTYPES.values())
MARK = b"sha256:"
DIGEST = 32  # bytes. Each file ends with MARK and the digest of the rest: torch reads damaged weights without complaint

# What a trainer saves, and what each process of a group saves for itself.
SHARED_KINDS: dict[str, Any] = {"steps": int, "policy": Mapping, "optimiser": Mapping}
PROCESS_KINDS: dict[str, Any] = {
    "generator": Tensor,
    "envs": list,
    "opponents": list,
    "starts": Tensor,
    "state": (list, tuple),
}
MOST_STEPS = 1 << 53  # doubles, which TensorBoard and schedules use, cannot tell larger numbers from the next
FIRST_OPTIMISER = "adam"  # optimiser of checkpoints that do not name theirs


def save(path: str | Path, state: dict[str, Any]) -> None:
    """Write a checkpoint, see `particle_grid.support.atomic.write`.

    Args:
        path: the file.
        state: nested dicts and lists of tensors, NumPy arrays, plain numbers and strings.

    Raises:
        UserTypeError: for anything that `load` would refuse.
        OSError: in one sentence, if the file cannot be written.
    """
    if not isinstance(state, dict):
        raise UserTypeError(f"The state is a {type(state).__name__}: give a dict to save as a checkpoint.")
    buffer = io.BytesIO()
    try:
        torch.save(_plain(state) | {"version": VERSION}, buffer)
        archive.check(buffer.getbuffer())
    except UserTypeError:
        raise
    except (ValueError, RecursionError) as error:
        raise UserTypeError(
            f"The checkpoint could not be loaded again ({error}): save less, or in a simpler form."
        ) from error
    buffer.write(MARK + hashlib.sha256(buffer.getbuffer()).digest())
    atomic.write(path, buffer.getbuffer())


def load(path: str | Path) -> dict[str, Any]:
    """Return what `save` was given, on the CPU, with NumPy arrays as tensors, and the file's "version".

    Nothing in the file is executed, and loading takes no more memory than a small multiple of its size.

    Raises:
        UserError: for a file that is missing, damaged, of another program or of an unknown version.
    """
    if os.path.isdir(path):  # False, unlike Path.is_dir, for a name that is too long
        raise UserError(f"{path} is a folder: give the checkpoint in it, such as {Path(path) / 'checkpoint.pt'}.")
    if not os.path.isfile(path):
        raise UserError(f"There is no checkpoint {path}: give the path of a file that a training run has saved.")
    try:
        content = _signed_content(Path(path))
        archive.check(content)
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file fails in any part of the reader, with any of a dozen exceptions
        reason = str(error) if isinstance(error, ValueError) else f"{type(error).__name__} while reading"
        raise UserError(
            f"{path} is not a checkpoint or is damaged ({reason}): use another one, or remove it to train again."
        ) from error
    check_version(path, state)
    return state


def check_version(path: str | Path, state: Any) -> None:
    """Raise UserError for the content of a file that is not a checkpoint, or of a version that is unknown."""
    if not isinstance(state, dict) or type(state.get("version")) is not int:
        raise UserError(f"{path} was not saved by particle_grid: give the path of a checkpoint.")
    if state["version"] not in READABLE:
        raise UserError(
            f"{path} has checkpoint version {state['version']}, and this program reads versions "
            f"{READABLE[0]} to {READABLE[-1]}: use the particle_grid that saved it, or train again."
        )


def _signed_content(path: Path) -> memoryview:
    """Return the content of a file without its digest. Raise ValueError if the digest is missing or wrong."""
    content = memoryview(path.read_bytes())
    end = len(content) - len(MARK) - DIGEST
    if end <= 0 or content[end:] != MARK + hashlib.sha256(content[:end]).digest():
        raise ValueError("it does not end with the digest of its content")
    return content[:end]


def _plain(x: Any, where: str = "checkpoint") -> Any:
    """Return x with NumPy arrays as tensors and every container a dict, list or tuple, as a safe load requires."""
    if isinstance(x, dict) and all(type(key) in (str, int, bool) for key in x):
        return {key: _plain(value, f"{where}.{key}") for key, value in x.items()}
    if isinstance(x, list | tuple):
        return (list if isinstance(x, list) else tuple)(_plain(value, where) for value in x)
    if isinstance(x, np.ndarray) and x.dtype.kind in "biuf" and x.dtype.itemsize <= 8:
        return torch.from_numpy(np.array(x, x.dtype.newbyteorder("="), order="C"))
    if isinstance(x, np.generic):
        x = x.item()
    if isinstance(x, Tensor) and x.layout is torch.strided and not x.is_meta and x.dtype in DTYPES:
        return _unshared(x.detach())
    if type(x) in archive.PLAIN:
        return x
    raise UserTypeError(
        f"{where} holds a {type(x).__name__} that cannot be saved: use tensors, numbers and strings, in lists and in "
        f"dicts with strings as keys."
    )


def _unshared(x: Tensor) -> Tensor:
    """Return a tensor with separate memory for each element, unlike one from `expand`."""
    overlaps = x.numel() * x.element_size() > x.untyped_storage().nbytes()
    return (x.contiguous() if overlaps else x).resolve_neg()


class RunSize(NamedTuple):
    """The numbers that must be the same in a checkpoint and in the run that resumes from it."""

    processes: int
    agents: int
    env_splits: int


def process_state(saved: Mapping[str, Any], rank: int, expected: RunSize) -> Mapping[str, Any]:
    """Return what the process `rank` of a run saved for itself.

    Raises:
        UserError: if a trainer did not save this, or if the run had another size.
    """
    parts = [saved, *saved.get("others", [])] if isinstance(saved, Mapping) else [saved]
    for number, part in enumerate(parts):
        _check_kinds(part, PROCESS_KINDS if number else SHARED_KINDS | PROCESS_KINDS)
    if not 0 <= saved["steps"] < MOST_STEPS:
        raise UserError(f"A run cannot resume from {saved['steps']} steps: give a state that a trainer saved.")
    found = RunSize(len(parts), len(saved["starts"]), len(saved["envs"]))
    for name, there, here in zip(RunSize._fields, found, expected, strict=True):
        if there != here:
            raise UserError(f"The checkpoint has {name}={there} and this run has {name}={here}: use the same number.")
    return parts[rank]


def _check_kinds(part: Any, kinds: Mapping[str, Any]) -> None:
    for name, kind in kinds.items():
        if not isinstance(part, Mapping) or not isinstance(part.get(name), kind):
            raise UserError(f"A run cannot resume from a state without {name}: give a complete one.")


def load_weights(policy: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Load the weights of a policy.

    Raises:
        UserError: as `check_weights`. The policy has not changed then.
    """
    check_weights(policy, weights)
    policy.load_state_dict(weights)


def check_weights(policy: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Check weights before a policy loads them. The policy may be on the meta device.

    Raises:
        UserError: if they belong to another policy, or are not finite.
    """
    expected = {name: x.shape for name, x in policy.state_dict().items()}
    if {name: x.shape for name, x in weights.items()} != expected or not _finite(weights.values()):
        raise UserError(
            f"The weights do not fit the policy that its config describes ({type(policy).__name__}, {policy.hidden} "
            f"units): use another checkpoint, or the world and the classes it was trained with."
        )


def _finite(tensors: Iterable[Tensor]) -> bool:
    return all(bool(x.isfinite().all()) for x in tensors)


def check_optimiser(name: str, saved: Mapping[str, Any]) -> None:
    """Raise UserError if the optimiser of a run is not the one that was saved."""
    there = saved.get("name", FIRST_OPTIMISER)
    if there != name:
        raise UserError(
            f"The checkpoint was saved with trainer.optimiser={there}, whose moments mean nothing to {name}: resume "
            f"with trainer.optimiser={there}, or start another run."
        )


def check_moments(own: Mapping[int, Mapping[str, Tensor]], saved: Mapping[int, Mapping[str, Tensor]]) -> None:
    """Raise UserError if saved moments, of all parameters or of none, belong to other parameters than one's own."""
    if saved and saved.keys() != own.keys():
        raise UserError(
            f"There are moments of {len(saved)} parameters, and this network has {len(own)}: use the settings they "
            f"were saved with."
        )
    for number, moments in saved.items():
        shapes = {name: x.shape for name, x in own[number].items()}
        if {name: x.shape for name, x in moments.items()} != shapes:
            raise UserError(
                f"The moments of parameter {number} do not have the shapes of this network, "
                f"{', '.join(f'{name} {list(shape)}' for name, shape in shapes.items())}: use the settings they were "
                f"saved with."
            )


def check_memory(memory: Sequence[Tensor], own: Sequence[Tensor]) -> None:
    """Raise UserError if what agents remember does not have the shapes and dtypes of `own`, or is not finite."""
    if [(x.shape, x.dtype) for x in memory] != [(x.shape, x.dtype) for x in own] or not _finite(memory):
        raise UserError("The memory of the agents does not fit this network: use the settings it was saved with.")
