"""Where learning runs: on a device, and in several processes that learn as one.

Each process simulates its own agents, and gradients are summed.

`torchrun` or `srun` starts the processes. They share every minibatch, so the result is that of one process with all the
agents. Their weights stay equal, because they start from the same weights and take the same optimiser steps.
"""

import io
import os
import re
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from itertools import takewhile
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from particle_grid.learn.config import DEVICE
from particle_grid.learn.ranks import Ranks, ranks
from particle_grid.support.errors import UserError, UserRuntimeError

VISIBLE_GPUS = "CUDA_VISIBLE_DEVICES"  # the GPUs that CUDA shows a process; those after a -1 are hidden
PATIENCE = timedelta(minutes=5)  # for the tasks of srun to start Python and import PyTorch
SILENCE = 10.0  # seconds that a task waits for the others before it says so
STEP = 0.2  # seconds between two looks for them


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


def gpu_for(number: int) -> dict[str, str]:
    """Return the environment variable that shows one of several processes, which run side by side, a single GPU.

    The GPUs that this process may use are handed out in turn: those in CUDA_VISIBLE_DEVICES or, without it, those that
    torch finds. There is no variable if there are none.
    """
    named = os.environ.get(VISIBLE_GPUS)
    if named is None:
        gpus = [str(k) for k in range(torch.cuda.device_count())]
    else:
        gpus = list(takewhile(lambda gpu: gpu and not gpu.startswith("-"), map(str.strip, named.split(","))))
    return {VISIBLE_GPUS: gpus[number % len(gpus)]} if gpus else {}


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
            with _exchanging():
                dist.all_reduce(x)
        return x

    def share(self, text: str) -> str:
        """Return the text that the first process passes."""
        texts = [text]
        if self.size > 1:
            with _exchanging():
                dist.broadcast_object_list(texts)
        return texts[0]

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
            content = torch.frombuffer(buffer.getbuffer(), dtype=torch.uint8).to(device)
            with _exchanging():
                dist.send(content, 0)
            return []
        return [_receive(rank, count, device) for rank, count in enumerate(counts[1:], 1)]  # one at a time saves memory


def _receive(rank: int, count: int, device: torch.device) -> dict[str, Any]:
    """Receive a state of `count` bytes that another process sends."""
    content = torch.empty(count, dtype=torch.uint8, device=device)
    with _exchanging():
        dist.recv(content, rank)
    return torch.load(io.BytesIO(content.cpu().numpy().tobytes()), map_location="cpu", weights_only=True)


@contextmanager
def _exchanging() -> Iterator[None]:
    """Turn what torch raises in an exchange, once another process has ended, into UserRuntimeError."""
    try:
        yield
    except RuntimeError as error:
        reason = re.sub(r"^\[\S+\] ", "", str(error)).partition(". ")[0]  # without gloo's source and advice
        raise UserRuntimeError(
            f"Another process of this run has ended or cannot be reached ({reason}): see what it printed, and start "
            f"all processes again; a run that has a checkpoint can be resumed."
        ) from error


@contextmanager
def joined(cuda: bool) -> Iterator[ProcessGroup]:
    """Join the processes that `torchrun` or `srun` started, and leave them at the end.

    Args:
        cuda: communicate over NCCL, between GPUs, instead of gloo.

    Raises:
        UserRuntimeError: if the tasks of srun do not find each other.
    """
    here = ranks()
    if here.size == 1:
        yield ProcessGroup()
        return
    # Slurm may show each task only its own GPU.
    device = torch.device("cuda", here.local_rank % torch.cuda.device_count()) if cuda else None
    if device:
        torch.cuda.set_device(device)
    backend = "nccl" if cuda else "gloo"
    if here.address is None:
        _check_torchrun(here)
        dist.init_process_group(backend, device_id=device)
    else:
        store = _meeting(here, here.address)
        dist.init_process_group(backend, store=store, rank=here.rank, world_size=here.size, device_id=device)
    try:
        yield ProcessGroup(here.rank, here.size)
    finally:
        dist.destroy_process_group()


def _check_torchrun(here: Ranks) -> None:
    """Raise UserError if not all variables are set that torchrun sets, and torch needs."""
    missing = [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if not os.environ.get(name)]
    if missing:
        raise UserError(
            f"WORLD_SIZE={here.size} is set without {', '.join(missing)}: start the processes with torchrun, or unset "
            f"WORLD_SIZE to train in this process alone."
        )


def _meeting(here: Ranks, address: tuple[str, int]) -> dist.Store:
    """Return the store over which the tasks of srun find each other, once all of them are there.

    It waits in short steps, so that a signal ends it.
    """
    host, port = address
    _check_host(host)
    waiting = f"Task {here.rank} of {here.size} waits at {host}:{port} for the others, up to {PATIENCE.seconds} s."
    timer = threading.Timer(SILENCE, print, (waiting,), {"file": sys.stderr, "flush": True})
    timer.start()
    end = time.monotonic() + PATIENCE.total_seconds()
    try:
        while here.rank and not _answers(host, port):
            _wait_until(end, here, address, "nobody answers there")
        store = _store(here, address)
        while (there := store.add("tasks", 0)) < here.size:
            _wait_until(end, here, address, f"{there} of them came")
        return store
    finally:
        timer.cancel()


def _check_host(host: str) -> None:
    """Raise UserRuntimeError for a host that has no address."""
    try:
        socket.getaddrinfo(host, None)
    except OSError as error:
        raise UserRuntimeError(
            f"The first task of this run is on {host} according to MASTER_ADDR or to Slurm's list of nodes, which is "
            f"not found ({error.strerror}): set MASTER_ADDR to its name or address for all tasks, or unset "
            f"SLURM_PROCID to train in this process alone."
        ) from None


def _answers(host: str, port: int) -> bool:
    """Return whether a server listens at a port."""
    try:
        socket.create_connection((host, port), timeout=STEP).close()
    except OSError:
        return False
    return True


def _store(here: Ranks, address: tuple[str, int]) -> dist.Store:
    """Return the store of the first task, in which this one is counted."""
    try:
        store = dist.TCPStore(*address, here.size, here.rank == 0, timeout=PATIENCE, wait_for_workers=False)
    except dist.DistError as error:
        raise UserRuntimeError(
            f"Port {address[1]} cannot be used on this machine ({str(error).splitlines()[0]}): set MASTER_PORT to a "
            f"free one for all tasks, or start each of them only once."
        ) from error
    store.add("tasks", 1)
    return store


def _wait_until(end: float, here: Ranks, address: tuple[str, int], reason: str) -> None:
    """Wait for a moment, or raise UserRuntimeError if the end has come."""
    if time.monotonic() > end:
        host, port = address
        raise UserRuntimeError(
            f"Task {here.rank} of {here.size} did not meet the others at {host}:{port} within {PATIENCE.seconds} s "
            f"({reason}): start all of them with srun, set MASTER_ADDR and MASTER_PORT to the host of the first task "
            f"and a free port, or unset SLURM_PROCID to train in this process alone."
        )
    time.sleep(STEP)
