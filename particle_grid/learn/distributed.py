"""Several processes that learn as one, started by `torchrun`: each simulates agents of its own; gradients are summed.

A minibatch is what all processes have of it together, so the result is that of one process with as many agents.
Processes keep the same weights because they start from the same and take the same steps.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

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

    def sum_gradients(self, module: nn.Module) -> None:
        """Sums the gradients of a module's parameters over the processes."""
        if self.size > 1:
            gradients = [x.grad for x in module.parameters() if x.grad is not None]
            whole = self.sum(torch.cat([x.flatten() for x in gradients]))
            for gradient, part in zip(gradients, whole.split([x.numel() for x in gradients]), strict=True):
                gradient.copy_(part.view_as(gradient))


def ranks() -> tuple[int, int, int]:
    """(rank, processes, processes on this machine), as `torchrun` says; (0, 1, 1) without it."""
    rank, size, here = (os.environ.get(name) for name in ("RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"))
    return int(rank or 0), int(size or 1), int(here or 1)


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
