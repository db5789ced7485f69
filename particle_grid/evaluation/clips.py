"""Short films of training for TensorBoard: some steps of the environment as it is being learnt in, every so often."""

import math
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from particle_grid.env import ParticleGrid
from particle_grid.evaluation.results import Show
from particle_grid.learn.tensorboard import Logger
from particle_grid.view.video import encode_gif, in_palette

FRAMES, PIXELS, FPS = 96, 256, 20


class Clips:
    """Looks on (`watch`) while the trainer steps the environment, and encodes in a thread of its own.

    A context manager, which ends with the last film written. count: films in a run of total_steps, which begin at equal
    distances; step: agent-steps done already. Raises ValueError for what is no number of films."""

    def __init__(self, env: ParticleGrid, logger: Logger, count: int, total_steps: int, step: int = 0) -> None:
        if type(count) is not int or count < 0:
            raise ValueError(f"clips={count} cannot be: give a whole number of films of a run, or 0 for none.")
        self.env, self.logger, self.step = env, logger, step
        self.camera = Show(pixels=PIXELS, legend=False).camera(env)
        self._due, self._between = (float(step), total_steps / count) if count else (math.inf, math.inf)
        self._begin, self._frames = step, list[np.ndarray]()
        self._pool = ThreadPoolExecutor(1)
        self._film: tuple[int, Future[bytes]] | None = None

    def watch(self) -> None:
        """A step has been made: it belongs to a film, or not."""
        if self._film is None and self.step >= self._due:
            self._begin = self._begin if self._frames else self.step
            self._frames.append(self.camera.look(self.env.state))
            if len(self._frames) == FRAMES:
                self._film = self._begin, self._pool.submit(_encode, self._frames)
                self._frames, self._due = [], self._due + self._between

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        """An iteration is done: takes note of the steps so far, and writes a film that is ready."""
        self.step = step
        if self._film and self._film[1].done():
            self._write()

    def _write(self) -> None:
        assert self._film
        (step, encoded), self._film = self._film, None
        self.logger.log_gif("clip", encoded.result(), step)

    def __enter__(self) -> "Clips":
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()
        if self._film:
            self._write()


def _encode(frames: list[np.ndarray]) -> bytes:
    return encode_gif([in_palette(frame) for frame in frames], FPS)
