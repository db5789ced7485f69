"""Where learning runs: on a device, and in several processes that learn as one.

Each process simulates its own agents, and gradients are summed.

`torchrun` starts the processes. They share every minibatch, so the result is that of one process with all the agents.
Their weights stay equal, because they start from the same weights and take the same optimiser steps.
"""

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from particle_grid.learn.config import DEVICE
from particle_grid.support.errors import UserError


def choose_device(name: str) -> torch.device:
    """Return a device by name.

    Args:
        name: `cpu`, `cuda`, `cuda:1`, or `auto` for a GPU if there is one and the CPU otherwise.

    Raises:
        UserError: for any other name, and for a GPU that torch does not find.
    """
    if not isinstance(name, str) or not DEVICE.fullmatch(name):
        raise UserError(f"device={name} is not known: choose auto, cpu, cuda, or one of several GPUs such as cuda:1.")
    if name.startswith("cuda"):
        _check_gpu(name)
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(name)


def _check_gpu(name: str) -> None:
    """Raise UserError for a GPU, such as `cuda` or `cuda:1`, that torch does not find."""
    if not torch.cuda.is_available():
        raise UserError(f"device={name} is not available, because torch finds no GPU: use cpu or auto.")
    count = torch.cuda.device_count()
    if int(name.partition(":")[2] or 0) >= count:
        raise UserError(f"device={name} is not available: torch finds {count} GPU(s), of which the first is cuda:0.")


@dataclass(frozen=True)
class ProcessGroup:
    """The processes of a run. By default there is only this one."""

    rank: int = 0  #: number of this process
    size: int = 1  #: number of processes

    def sum(self, x: Tensor) -> Tensor:
        """Sum x over the processes, in place, and return it."""
        if self.size > 1:
            dist.all_reduce(x)
        return x

    def gather(self, state: dict[str, Any], device: torch.device) -> list[dict[str, Any]]:
        """Return what the other processes passed, by rank, in the first process, and an empty list in the others.

        Args:
            state: tensors, numbers and strings in dicts and lists, as torch.load accepts with weights_only.
            device: on which the processes exchange tensors.
        """
        if self.size == 1:
            return []
        buffer = io.BytesIO()
        if self.rank:
            torch.save(state, buffer)
        sizes = torch.zeros(self.size, dtype=torch.int64, device=device)
        sizes[self.rank] = buffer.tell()
        counts = self.sum(sizes).tolist()
        if self.rank:
            dist.send(torch.frombuffer(buffer.getbuffer(), dtype=torch.uint8).to(device), 0)
            return []
        return [_receive(rank, count, device) for rank, count in enumerate(counts[1:], 1)]  # one at a time saves memory


def _receive(rank: int, count: int, device: torch.device) -> dict[str, Any]:
    """Receive a state of `count` bytes that another process sends."""
    content = torch.empty(count, dtype=torch.uint8, device=device)
    dist.recv(content, rank)
    return torch.load(io.BytesIO(content.cpu().numpy().tobytes()), map_location="cpu", weights_only=True)


def ranks() -> tuple[int, int, int]:
    """Return rank, number of processes and number of processes on this machine, as set by `torchrun`.

    Without torchrun these are 0, 1 and 1.

    Raises:
        UserError: for environment variables that torchrun does not set like this.
    """
    size = _environment_count("WORLD_SIZE", 1)
    on_this_machine = _environment_count("LOCAL_WORLD_SIZE", 1)
    rank = _environment_count("RANK", 0) if size > 1 else 0  # other programs set RANK too
    if rank >= size:
        raise UserError(f"RANK={rank} is not below WORLD_SIZE={size}: start the processes with torchrun.")
    return rank, size, on_this_machine


def _environment_count(name: str, default: int) -> int:
    """Return the number in an environment variable."""
    text = os.environ.get(name) or str(default)
    if not text.isdecimal():
        raise UserError(f"The environment variable {name}={text} is not a number: unset it, or use torchrun.")
    return int(text)


@contextmanager
def joined(cuda: bool) -> Iterator[ProcessGroup]:
    """Join the processes that `torchrun` started, and leave them at the end.

    Args:
        cuda: communicate over NCCL, between GPUs, instead of gloo.
    """
    rank, size, _ = ranks()
    if size == 1:
        yield ProcessGroup()
        return
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if cuda else None
    if device:
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if cuda else "gloo", device_id=device)
    try:
        yield ProcessGroup(rank, size)
    finally:
        dist.destroy_process_group()
