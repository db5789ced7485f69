"""PufferLib's processes, with an eye on whether they live."""

import os
import threading
from collections.abc import Callable
from multiprocessing import parent_process
from multiprocessing.connection import wait
from typing import Any

import numpy as np
import pufferlib.vector

from particle_grid.sim.rng import check_seed

if not hasattr(pufferlib, "APIUsageError"):  # PufferLib raises it by this name, which it does not export
    pufferlib.APIUsageError = pufferlib.pufferlib.APIUsageError


class Multiprocessing(pufferlib.vector.Multiprocessing):
    """`pufferlib.vector.make(ParticleGrid, backend=Multiprocessing, ...)`: as PufferLib's backend of that name, which
    waits for ever for a worker that has died, and whose workers wait for ever for a parent that has.

    Here all calls raise RuntimeError at once when a worker has died, and the others are ended, and after `close`;
    workers end by themselves when their parent is gone. And no two environments are alike where workers have several
    each: with PufferLib's the second of a worker gets the seed of the next one's first.
    """

    def __init__(self, env_creators: Any, *args: Any, **kwargs: Any) -> None:
        self.dead = ""  # why nothing can be asked of the workers any more
        super().__init__([Guarded(create) for create in env_creators], *args, **kwargs)
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()

    def __reduce_ex__(self, _: Any) -> Any:
        """Raises TypeError for copies and pickles, which would share the workers."""
        raise TypeError("Environments in other processes cannot be copied or pickled: copy a ParticleGrid in this one.")

    def _watch(self) -> None:
        """Waits for the first worker to end, and lets PufferLib go on: it looks at nothing but this byte of each."""
        sentinels = [process.sentinel for process in self.processes]
        number = sentinels.index(wait(sentinels)[0])
        process = self.processes[number]
        process.join()
        self.dead = self.dead or (
            f"Worker {number} of {len(sentinels)} has died (exit code {process.exitcode}), and its worlds with it: "
            f"build the environments anew. What killed it may be in the system's log; memory that ran out is the "
            f"usual reason."
        )
        self.buf["semaphores"][:] = pufferlib.vector.MAIN

    def _check_alive(self) -> None:
        """Raises RuntimeError where a worker has died, and ends the others, or after `close`."""
        if self.dead:
            self.close()
            raise RuntimeError(self.dead)

    def async_reset(self, seed: int | None = 0) -> None:
        """As PufferLib's, with seed + k for environment k, or without seeds for None, as `ParticleGrid.reset` has it.
        Raises ValueError for what is no seed."""
        check_seed(seed)
        self._check_alive()
        try:
            super().async_reset(Seeds(seed, self.envs_per_worker))
        except BrokenPipeError:  # a worker that has died only now
            self._watcher.join()
            self._check_alive()

    def send(self, actions: Any) -> None:
        """As PufferLib's. Raises ValueError or TypeError for actions of another shape or kind."""
        self._check_alive()
        actions, wanted = np.asarray(actions), self.action_space
        if actions.shape != wanted.shape:
            raise ValueError(f"actions have the shape {actions.shape}, but these environments need {wanted.shape}.")
        super().send(fitted(actions, self.actions.dtype))

    def recv(self) -> Any:
        """As PufferLib's."""
        self._check_alive()
        received = super().recv()
        self._check_alive()
        return received

    def close(self) -> None:
        """Ends the workers."""
        self.dead = self.dead or "These environments are closed: build them anew."
        super().close()


def fitted(actions: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Actions of any width as those of a type, the nearest where that is too narrow, instead of wrapped round. Raises
    TypeError for another kind."""
    if actions.dtype == dtype:
        return actions
    kinds = "f" if dtype.kind == "f" else "iu"
    if actions.dtype.kind not in kinds:
        raise TypeError(f"actions are {actions.dtype}, but these environments need {dtype}.")
    if kinds == "iu":
        limits = np.iinfo(actions.dtype), np.iinfo(dtype)
        actions = np.clip(actions, max(limit.min for limit in limits), min(limit.max for limit in limits))
    with np.errstate(over="ignore"):  # a float64 beyond float32 becomes infinite
        return actions.astype(dtype)


class Seeds:
    """What PufferLib adds a worker's number to, to get the seed from which that worker counts on."""

    def __init__(self, first: int | None, each: int) -> None:
        self.first, self.each = first, each

    def __add__(self, worker: int) -> int | None:
        return None if self.first is None else int(self.first) + worker * self.each


class Guarded:
    """Builds an environment; in a process that another one has started, one that ends with that one."""

    def __init__(self, create: Callable[..., Any]) -> None:
        self.create = create

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if parent := parent_process():
            threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()
        return self.create(*args, **kwargs)


def _end_with(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)  # without ado: what would be tidied up is the parent's
