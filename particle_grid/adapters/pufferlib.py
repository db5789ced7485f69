"""PufferLib's multiprocessing backend, with workers that are watched."""

import os
import threading
from collections.abc import Callable
from multiprocessing import parent_process
from multiprocessing.connection import wait
from typing import Any

import numpy as np

from particle_grid.native import REMEDY
from particle_grid.sim.rng import check_seed
from particle_grid.support.errors import UserError, UserRuntimeError, UserTypeError

try:
    import pufferlib.vector
except (ImportError, AttributeError) as error:  # missing, or a mixture of two distributions
    raise UserError(f"The adapter for PufferLib cannot import it ({error}): {REMEDY}") from None

if not hasattr(pufferlib, "APIUsageError"):  # PufferLib raises it under this name but does not export it
    pufferlib.APIUsageError = pufferlib.pufferlib.APIUsageError


class Multiprocessing(pufferlib.vector.Multiprocessing):
    """`pufferlib.vector.make(ParticleGrid, backend=Multiprocessing, ...)`: PufferLib's backend, made safe.

    PufferLib's waits forever for a worker that has died, and its workers wait forever for a parent that has. Here, when
    a worker has died, the others are ended and all calls raise UserRuntimeError, as they do after `close`. Workers end
    when their parent is gone. Environments also have different seeds if workers have several each; in PufferLib's
    backend, the second of a worker gets the seed of the next worker's first.
    """

    def __init__(self, env_creators: Any, *args: Any, **kwargs: Any) -> None:
        self.dead = ""  # why the workers cannot be used any more
        super().__init__([Guarded(create) for create in env_creators], *args, **kwargs)
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()

    def __reduce_ex__(self, _: Any) -> Any:
        """Raise TypeError for copies and pickles, which would share the workers."""
        raise UserTypeError(
            "Environments in other processes cannot be copied or pickled: copy a ParticleGrid in this one."
        )

    def _watch(self) -> None:
        """Wait for the first worker to end, then wake up PufferLib, which polls only one byte per worker."""
        sentinels = [process.sentinel for process in self.processes]
        number = sentinels.index(wait(sentinels)[0])
        process = self.processes[number]
        process.join()
        self.dead = self.dead or (
            f"Worker {number} of {len(sentinels)} has died (exit code {process.exitcode}), and its worlds with it: "
            f"build the environments again. The usual reason is a lack of memory; the system's log may tell."
        )
        self.buf["semaphores"][:] = pufferlib.vector.MAIN

    def _check_alive(self) -> None:
        """Raise UserRuntimeError if a worker has died, after ending the others, and after `close`."""
        if self.dead:
            self.close()
            raise UserRuntimeError(self.dead)

    def async_reset(self, seed: int | None = 0) -> None:
        """Reset as PufferLib does, with seed + k for environment k, or without seeds if `seed` is None."""
        check_seed(seed)
        self._check_alive()
        try:
            super().async_reset(Seeds(seed, self.envs_per_worker))
        except BrokenPipeError:  # a worker died just now
            self._watcher.join()
            self._check_alive()

    def send(self, actions: Any) -> None:
        """Send actions as PufferLib does; raise UserError for another shape or kind."""
        self._check_alive()
        actions, wanted = np.asarray(actions), self.action_space
        if actions.shape != wanted.shape:
            raise UserError(f"actions have the shape {actions.shape}, but these environments need {wanted.shape}.")
        super().send(fitted(actions, self.actions.dtype))

    def recv(self) -> Any:
        """Receive as PufferLib does."""
        self._check_alive()
        received = super().recv()
        self._check_alive()
        return received

    def close(self) -> None:
        """End the workers."""
        self.dead = self.dead or "These environments are closed: build them again."
        super().close()


def fitted(actions: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Convert actions of any width to a dtype, clipping what does not fit; raise UserError for another kind."""
    if actions.dtype == dtype:
        return actions
    kinds = "f" if dtype.kind == "f" else "iu"
    if actions.dtype.kind not in kinds:
        raise UserTypeError(f"actions are {actions.dtype}, but these environments need {dtype}.")
    if kinds == "iu":
        limits = np.iinfo(actions.dtype), np.iinfo(dtype)
        actions = np.clip(actions, max(limit.min for limit in limits), min(limit.max for limit in limits))
    with np.errstate(over="ignore"):  # a float64 beyond float32 becomes infinite
        return actions.astype(dtype)


class Seeds:
    """A stand-in for the seed, to which PufferLib adds a worker's number to get the seed of its first environment."""

    def __init__(self, first: int | None, each: int) -> None:
        self.first, self.each = first, each

    def __add__(self, worker: int) -> int | None:
        return None if self.first is None else int(self.first) + worker * self.each


class Guarded:
    """Build an environment; in a child process, also end the process when its parent ends."""

    def __init__(self, create: Callable[..., Any]) -> None:
        self.create = create

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if parent := parent_process():
            threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()
        return self.create(*args, **kwargs)


def _end_with(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)  # without cleaning up: the resources are the parent's
