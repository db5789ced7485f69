"""Short films of training for its loggers: some steps of the environment that a policy learns in, at intervals."""

import math
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from particle_grid.env import ParticleGrid
from particle_grid.evaluation.record import Show, middle
from particle_grid.learn.loggers.several import Loggers
from particle_grid.view.film import Words, draw_frame
from particle_grid.view.video import encode_gif, in_palette

TAG = "video/policy"  # of all films of a run: TensorBoard sorts tags, and shows this one last
FRAMES = 96  # frames of a film, one per step
SIDE = 64  # height and width, in cells, of what is shown of a large world
PIXELS = 256
TRAILS = 6  # steps
FPS = 20


class Clips:
    """A context manager that films while a trainer steps an environment, and encodes films in its own thread.

    Leaving it waits until the last complete film is written.
    """

    def __init__(self, env: ParticleGrid, loggers: Loggers, count: int, total_steps: int, step: int = 0) -> None:
        """Prepare to film.

        Args:
            env: the environment that is trained in.
            loggers: takes the films.
            count: films per `total_steps`, which start at equal distances; 0 for none.
            total_steps: agent-steps of the whole run.
            step: agent-steps done already.
        """
        self.env = env
        self.loggers = loggers
        self.step = step
        region = list(middle(env.world.height, env.world.width, SIDE))
        self.camera = Show(region=region, pixels=PIXELS, trails=TRAILS, legend=False).camera(env)
        self._score = ""  # of the last iteration
        self._words = Words("", "", [""], {})
        self._interval = total_steps / count if count else math.inf
        self._due = float(step) if count else math.inf
        self._first_step = step
        self._frames: list[np.ndarray] = []
        self._pool = ThreadPoolExecutor(1)
        self._film: tuple[int, Future[bytes]] | None = None

    def watch(self) -> None:
        """Film the step that was just made, if a film is due."""
        if self._film is not None or self.step < self._due:
            return
        if not self._frames:
            self._first_step = self.step
            self._words = Words(f"{self.step / 1e6:.2f}M steps", "", [self._score], {})
            self.camera.forget()
        clock = f"{len(self._frames) + 1} of {FRAMES}"
        self._frames.append(draw_frame([self.camera.look(self.env.state)], self._words, clock))
        if len(self._frames) == FRAMES:
            self._film = self._first_step, self._pool.submit(_encode, self._frames)
            self._frames = []
            self._due += self._interval

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        """Note the agent-steps done so far, and write a film that is ready."""
        self.step = step
        self._score = score_text(scalars)
        if self._film and self._film[1].done():
            self._write()

    def _write(self) -> None:
        assert self._film
        step, encoded = self._film
        self._film = None
        self.loggers.log_gif(TAG, encoded.result(), step)

    def __enter__(self) -> "Clips":
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()
        if self._film:
            self._write()


def score_text(scalars: Mapping[str, float]) -> str:
    """Return the score of an iteration as text: normalised if it is known, or else of each team."""
    if "env/normalised_score" in scalars:
        return f"normalised score {scalars['env/normalised_score']:z.2f}"
    scores = [value for name, value in scalars.items() if name.startswith("env/score")]
    return f"score {' / '.join(f'{score:z.2f}' for score in scores)}" if scores else ""


def _encode(frames: list[np.ndarray]) -> bytes:
    return encode_gif([in_palette(frame) for frame in frames], FPS)
