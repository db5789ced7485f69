"""Checkpoints: one file that holds everything a run needs to go on, written so that no crash leaves half of one."""

import hashlib
import io
from pathlib import Path
from typing import Any

import numpy as np
import torch

from particle_grid.support import archive, atomic

VERSION = 1
DTYPES = frozenset(archive.DTYPES.values())
MARK, DIGEST = b"sha256:", 32  # each file ends with the digest of the rest: torch reads damaged weights as they are


def save(path: str | Path, state: dict[str, Any]) -> None:
    """Writes `state` (nested dicts and lists of tensors, NumPy arrays, plain numbers, strings), see `atomic.write`.

    Raises TypeError for anything that `load` would refuse."""
    if not isinstance(state, dict):
        raise TypeError(f"The state is a {type(state).__name__}: a checkpoint is made of a dict.")
    buffer = io.BytesIO()
    try:
        torch.save(_plain(state) | {"version": VERSION}, buffer)
        archive.check(buffer.getbuffer())
    except (ValueError, RecursionError) as error:
        raise TypeError(
            f"The checkpoint could not be loaded again ({error}): save less, or in a simpler form."
        ) from error
    buffer.write(MARK + hashlib.sha256(buffer.getbuffer()).digest())
    atomic.write(path, buffer.getbuffer())


def load(path: str | Path) -> dict[str, Any]:
    """Return what `save` was given, on the CPU, with NumPy arrays as tensors. Nothing in the file is executed, and it
    takes no more memory than a small multiple of its size.

    Raises ValueError, in one sentence, for a file that is missing, damaged, of another program or another version.
    """
    if Path(path).is_dir():
        raise ValueError(f"{path} is a folder: give the checkpoint in it, such as {Path(path) / 'checkpoint.pt'}.")
    if not Path(path).is_file():
        raise ValueError(f"There is no checkpoint {path}: give the path of a file that a training run has saved.")
    try:
        content = _whole(Path(path))
        archive.check(content)
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file fails in any part of the reader, with any of a dozen exceptions
        reason = str(error) if isinstance(error, ValueError) else f"{type(error).__name__} on reading"
        raise ValueError(f"{path} is no checkpoint, or is damaged ({reason}): use another, or train again.") from error
    if not isinstance(state, dict) or type(state.get("version")) is not int:
        raise ValueError(f"{path} was not saved by particle_grid: give the path of a checkpoint.")
    if state["version"] != VERSION:
        raise ValueError(
            f"{path} has checkpoint version {state['version']}, and this program reads version {VERSION}: "
            f"use the particle_grid that saved it, or train again."
        )
    return state


def _whole(path: Path) -> memoryview:
    """The content of a file without its digest. Raises ValueError where it has none, or that of something else."""
    content = memoryview(path.read_bytes())
    end = len(content) - len(MARK) - DIGEST
    if end <= 0 or content[end:] != MARK + hashlib.sha256(content[:end]).digest():
        raise ValueError("it does not end with the digest of what it holds")
    return content[:end]


def _plain(x: Any, where: str = "checkpoint") -> Any:
    """x with NumPy arrays as tensors and every container a dict, list or tuple: all that a safe load accepts."""
    if isinstance(x, dict) and all(type(key) in (str, int, bool) for key in x):
        return {key: _plain(value, f"{where}.{key}") for key, value in x.items()}
    if isinstance(x, list | tuple):
        return (list if isinstance(x, list) else tuple)(_plain(value, where) for value in x)
    if isinstance(x, np.ndarray) and x.dtype.kind in "biuf" and x.dtype.itemsize <= 8:
        return torch.from_numpy(np.array(x, x.dtype.newbyteorder("="), order="C"))
    if isinstance(x, np.generic):
        x = x.item()
    if isinstance(x, torch.Tensor) and x.layout is torch.strided and not x.is_meta and x.dtype in DTYPES:
        return _whole_tensor(x.detach())
    if type(x) in archive.PLAIN:
        return x
    raise TypeError(
        f"{where} holds a {type(x).__name__} that cannot be saved: use tensors, numbers and strings, in lists and in "
        f"dicts with strings as keys."
    )


def _whole_tensor(x: torch.Tensor) -> torch.Tensor:
    """A tensor whose memory is as it says, and no smaller than what it shows: numbers that stand for several are
    written out."""
    overlaps = x.numel() * x.element_size() > x.untyped_storage().nbytes()
    return (x.contiguous() if overlaps else x).resolve_neg()
