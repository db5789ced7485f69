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

CAUSE = "What killed it may be in the system's log; memory that ran out is the usual reason."


class Multiprocessing(pufferlib.vector.Multiprocessing):
    """`pufferlib.vector.make(ParticleGrid, backend=Multiprocessing, ...)`: as PufferLib's backend of that name, which
    waits for ever for a worker that has died, and whose workers wait for ever for a parent that has.

    Here `recv`, and `step` with it, raise RuntimeError at once when a worker has died, and the others are ended;
    workers end by themselves when their parent is gone. And no two environments are alike where workers have several
    each: with PufferLib's the second of a worker gets the seed of the next one's first.
    """

    def __init__(self, env_creators: Any, *args: Any, **kwargs: Any) -> None:
        self.dead = ""  # why they cannot go on: which worker has died, and how
        super().__init__([Guarded(create) for create in env_creators], *args, **kwargs)
        threading.Thread(target=self._watch, daemon=True).start()

    def __reduce_ex__(self, _: Any) -> Any:
        """Raises TypeError for copies and pickles, which would share the workers."""
        raise TypeError("Environments in other processes cannot be copied or pickled: copy a ParticleGrid in this one.")

    def _watch(self) -> None:
        """Waits for the first worker to end, and lets `recv` find out: it looks at nothing but this byte of each."""
        sentinels = [process.sentinel for process in self.processes]
        number = sentinels.index(wait(sentinels)[0])
        process = self.processes[number]
        process.join()
        self.dead = self.dead or (
            f"Worker {number} of {len(sentinels)} has died (exit code {process.exitcode}), and its worlds with it: "
            f"build the environments anew. {CAUSE}"
        )
        self.buf["semaphores"][:] = pufferlib.vector.MAIN

    def async_reset(self, seed: int = 0) -> None:
        """As PufferLib's, with seed + k for environment k. Raises ValueError for what is no seed, which would kill the
        workers, and RuntimeError where one of them has died."""
        if seed is None:
            raise ValueError("seed=None cannot be sent to workers: give a whole number from 0 on.")
        check_seed(seed)
        self._check_alive()
        try:
            super().async_reset(Seeds(seed, self.envs_per_worker))
        except (OSError, EOFError):  # one has died since
            self.dead = self.dead or f"A worker has died, and its worlds with it: build the environments anew. {CAUSE}"
        self._check_alive()

    def send(self, actions: Any) -> None:
        """As PufferLib's. Raises ValueError or TypeError for actions of another shape or kind, and RuntimeError where a
        worker has died."""
        self._check_alive()
        actions, wanted = np.asarray(actions), self.action_space
        if actions.shape != wanted.shape:
            raise ValueError(f"actions have the shape {actions.shape}, but these environments need {wanted.shape}.")
        discrete = self.actions.dtype.kind == "i"
        if actions.dtype.kind not in ("iu" if discrete else "f"):
            raise TypeError(f"actions are {actions.dtype}, but these environments need {self.actions.dtype}.")
        if discrete:  # what does not fit into the buffer would come to be another action there; this stays out of range
            actions = np.clip(actions, 0 if actions.dtype.kind == "u" else -1, 3)
        with np.errstate(over="ignore"):  # a float64 beyond float32 becomes infinite
            super().send(actions.astype(self.actions.dtype))

    def recv(self) -> Any:
        """As PufferLib's. Raises RuntimeError where a worker has died."""
        received = None if self.dead else super().recv()
        self._check_alive()
        return received

    def _check_alive(self) -> None:
        """Raises RuntimeError where a worker has died, or all have been ended."""
        if self.dead:
            self.close()
            raise RuntimeError(self.dead)

    def close(self) -> None:
        """Ends the workers."""
        self.dead = self.dead or "These environments have been closed: build them anew."
        super().close()


class Seeds:
    """What PufferLib adds a worker's number to, to get the seed from which that worker counts on."""

    def __init__(self, first: int, each: int) -> None:
        self.first, self.each = first, each

    def __add__(self, worker: int) -> int:
        return self.first + worker * self.each


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
