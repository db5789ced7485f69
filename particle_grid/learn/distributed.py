"""Several processes that learn as one, started by `torchrun`: each simulates agents of its own; gradients are summed.

A minibatch is what all processes have of it together, so the result is that of one process with as many agents.
Processes keep the same weights because they start from the same and take the same steps.
"""

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


@dataclass(frozen=True)
class Group:
    """The processes of a run: how many there are, and which of them this is. By default it is alone."""

    rank: int = 0
    size: int = 1

    def sum(self, x: Tensor) -> Tensor:
        """x summed over the processes, in its place."""
        if self.size > 1:
            dist.all_reduce(x)
        return x

    def gather(self, state: dict[str, Any], device: torch.device) -> list[dict[str, Any]]:
        """Return what each other process passed, by rank, on the first process, and nothing on the others.

        Args:
            state: tensors, numbers and strings in dicts and lists: what torch.load takes with weights only.
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
        received = []
        for rank, count in enumerate(counts[1:], 1):  # one after another, to keep no more in memory than needed
            content = torch.empty(count, dtype=torch.uint8, device=device)
            dist.recv(content, rank)
            part = io.BytesIO(content.cpu().numpy().tobytes())
            received.append(torch.load(part, map_location="cpu", weights_only=True))
        return received

    def sum_gradients(self, module: nn.Module) -> None:
        """Sums the gradients of a module's parameters over the processes."""
        if self.size > 1:
            gradients = [x.grad for x in module.parameters() if x.grad is not None]
            whole = self.sum(torch.cat([x.flatten() for x in gradients]))
            for gradient, part in zip(gradients, whole.split([x.numel() for x in gradients]), strict=True):
                gradient.copy_(part.view_as(gradient))


def ranks() -> tuple[int, int, int]:
    """(rank, processes, processes on this machine), as `torchrun` says; (0, 1, 1) without it.

    Raises ValueError for environment variables that cannot be torchrun's."""
    size, here = (_count(name, 1) for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"))
    rank = _count("RANK", 0) if size > 1 else 0  # other programs set RANK too
    if rank >= size:
        raise ValueError(f"RANK={rank} is not below WORLD_SIZE={size}: start the processes with torchrun.")
    return rank, size, here


def _count(name: str, default: int) -> int:
    """Return the number in an environment variable. Raise ValueError for one that holds none."""
    text = os.environ.get(name) or str(default)
    if not text.isdecimal():
        raise ValueError(f"The environment variable {name}={text} is not a number: unset it, or use torchrun.")
    return int(text)


@contextmanager
def joined(cuda: bool) -> Iterator[Group]:
    """The group that `torchrun` has started this process in, over NCCL or gloo. Leaves it at the end."""
    rank, size, _ = ranks()
    if size == 1:
        yield Group()
        return
    if cuda:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    dist.init_process_group("nccl" if cuda else "gloo")
    try:
        yield Group(rank, size)
    finally:
        dist.destroy_process_group()
