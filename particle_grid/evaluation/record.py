"""Videos and replay pages of a policy at play."""

import contextlib
import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import Progress

from particle_grid.env import ParticleGrid
from particle_grid.evaluation.baseline import Baseline, stored
from particle_grid.evaluation.match import match
from particle_grid.evaluation.players import policy_player
from particle_grid.learn.policy import Policy
from particle_grid.runs.results import Results
from particle_grid.sim.task import purpose, team_names
from particle_grid.support.errors import UserError
from particle_grid.view.camera import Camera
from particle_grid.view.film import Words, draw_frame
from particle_grid.view.replay import About, Replay, check_page
from particle_grid.view.video import Video, check_video

CLOSE_UP = 128  # height and width, in cells, of what is shown of a large world
STAGE = 96  # height and width, in cells, of the world in which a policy is shown before and after training
Region = tuple[int, int, int, int]


@dataclass(frozen=True)
class Show:
    """What is shown of a policy at play, from a reset: see `particle_grid.view.camera.Camera`.

    region: [row, column, height, width] in cells. None shows the whole field, or the middle of a large one, where
    single agents would otherwise be too small to follow. every: steps per frame of a video; a page has all of them.
    fps: frames per second.
    """

    steps: int = 300
    every: int = 2
    seed: int = 0
    fps: float = 20
    world: int = 0
    region: list[int] | None = None
    agent: int | None = None
    around: int = 48
    zoom: float | None = None
    pixels: int = 512
    trails: int = 0
    legend: bool = True

    def camera(self, env: ParticleGrid) -> Camera:
        """Return the camera that shows this of an environment.

        Raises:
            UserError: for a value that is out of range.
        """
        for name in ("steps", "every"):
            if getattr(self, name) < 1:
                raise UserError(f"show.{name}={getattr(self, name)} is out of range: give a whole number, 1 or more.")
        if self.seed < 0:
            raise UserError(f"show.seed={self.seed} is out of range: give a whole number, 0 or more.")
        return Camera(
            env.world,
            world=self.world,
            region=self._region(env.world.height, env.world.width),
            agent=self.agent,
            around=self.around,
            zoom=self.zoom,
            pixels=(self.pixels, self.pixels),
            trails=self.trails,
            legend=env.legend() if self.legend else None,
        )

    def _region(self, height: int, width: int) -> Region | None:
        """Return the region to show of a field, None for all of it."""
        if self.region is not None:
            return _as_region(self.region)
        if self.agent is not None or max(height, width) <= 2 * CLOSE_UP:
            return None
        return middle(height, width, CLOSE_UP)


def middle(height: int, width: int, side: int) -> Region:
    """Return the region in the middle of a field, of at most `side` cells in height and width."""
    rows = min(height, side)
    columns = min(width, side)
    return (height - rows) // 2, (width - columns) // 2, rows, columns


def _as_region(values: Sequence[int]) -> Region:
    if len(values) != 4:
        raise UserError(f"show.region={list(values)} is not a region: give [row, column, height, width].")
    return values[0], values[1], values[2], values[3]


def check_recording(show: Show, video: str | Path | None, replay: str | Path | None) -> None:
    """Raise UserError for a path or a rate with which nothing can be recorded. None stands for no file."""
    if video:
        check_video(video, show.fps)
    if replay:
        check_page(replay)


LEARNING = Show(steps=240, every=3, fps=15, pixels=384, trails=8, legend=False)


def about(env: ParticleGrid, baseline: Baseline | None) -> About:
    """Return what a page says about the task of an environment, with the lines of a baseline if there is one."""
    lines = {"random": baseline.random, "script": baseline.scripted} if baseline else {}
    references = {whose: np.mean(scores, 0).tolist() for whose, scores in lines.items()}
    return About(f"{purpose(type(env.task)).removesuffix('.')}.", env.unit, team_names(env.task), references)


def filming(env: ParticleGrid, camera: Camera, every: int, take: Callable[[np.ndarray], None]) -> Callable[[], None]:
    """Return a function to call after each step, which takes a picture every few steps. Trails have all steps."""
    steps = itertools.count()

    def watch() -> None:
        if next(steps) % every:
            camera.remember(env.state)
        else:
            take(camera.look(env.state))

    return watch


def record(
    env: ParticleGrid,
    policy: Policy,
    console: Console,
    show: Show = Show(),
    video: str | Path | None = None,
    replay: str | Path | None = None,
    title: str = "",
    baseline: Baseline | None = None,
) -> None:
    """Play a policy, and write a video, a replay page, or both.

    Args:
        env: the environment, whose state is overwritten.
        policy: the policy, whose actions are sampled.
        console: where progress and the names of the files are printed.
        show: what is shown. A replay always shows all of a world.
        video, replay: paths of a GIF or an MP4, and of an HTML page.
        title: of the page.
        baseline: scores that the page shows as lines; None for those that ship with the package, if there are any.

    Raises:
        UserError, OSError: for an invalid path or value, or a file that cannot be written.
    """
    camera = show.camera(env)
    page = _page(env, title, show.fps, camera.world, baseline) if replay else None
    target = Video(video, show.fps) if video else contextlib.nullcontext()
    with target as film, Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task("Recording", total=show.steps)
        watchers: list[Callable[[], None]] = [lambda: progress.advance(bar)]
        if film:
            watchers.append(filming(env, camera, show.every, film.add))
        if page:
            watchers.append(lambda: page.add(env.state, env.rewards, env.score(page.agents)))
        match(env, [policy_player(policy)], show.seed, show.steps, lambda: _call(watchers))
    if page and replay:
        page.write(replay)
    for path in filter(None, (video, replay)):
        console.print(f"Saved: {path}", soft_wrap=True)


def record_learning(
    env: ParticleGrid, untrained: Policy, policy: Policy, path: str | Path, trained: str, show: Show = LEARNING
) -> None:
    """Write a video of a policy before and after training, side by side, from the same seed.

    Both play in one world like that of training, but smaller if it is large, and in which no agent respawns: with
    respawns, there are always some agents that have only just started.

    Args:
        env: the environment of training, which stays as it is.
        untrained: the policy before training.
        policy: the policy after it.
        path: of a GIF or an MP4.
        trained: what to say about the policy after training, see `caption`.
        show: what is shown.

    Raises:
        UserError, OSError: for an invalid path or value, and for a file that cannot be written.
    """
    env = stage(env)
    before, after = (_pictures(env, each, show) for each in (untrained, policy))
    words = Words(
        f"{env.task_name}, {env.action} actions", purpose(type(env.task)), ["before training", trained], env.legend()
    )
    with Video(path, show.fps) as film:
        for k, pictures in enumerate(zip(before, after, strict=True)):
            film.add(draw_frame(pictures, words, f"step {1 + k * show.every}"))


def caption(steps: int, results: Results) -> str:
    """Return what a film says about a policy after some agent-steps of training, with the score of each team."""
    trained = f"after {steps / 1e6:.1f}M steps" if steps >= 1e5 else f"after {steps:,} steps"
    if "sampled" not in results.scores:
        return trained
    scores = " / ".join(f"{score:z.2f}" for score in results.by_team("sampled").mean(0))
    return f"{trained}: score {scores} (0: random, 1: script)"


def stage(env: ParticleGrid) -> ParticleGrid:
    """Return an environment of one world, as dense as those of another one, in which a policy is easy to follow."""
    side = STAGE if max(env.world.height, env.world.width) > CLOSE_UP else CLOSE_UP
    world = env.world.within(side, side)
    try:
        return ParticleGrid(env.task, env.action, world=replace(world, lifespan=0, max_episode_steps=0))
    except UserError:  # a task may need the size of its world
        return ParticleGrid(env.task, env.action, world=replace(env.world, worlds=1, lifespan=0, max_episode_steps=0))


def _pictures(env: ParticleGrid, policy: Policy, show: Show) -> list[np.ndarray]:
    """Play a policy, and return the frames of its video without words."""
    pictures: list[np.ndarray] = []
    watch = filming(env, show.camera(env), show.every, pictures.append)
    match(env, [policy_player(policy)], show.seed, show.steps, watch)
    return pictures


def _call(functions: Iterable[Callable[[], None]]) -> None:
    """Call functions in turn."""
    for function in functions:
        function()


def _page(env: ParticleGrid, title: str, fps: float, world: int, baseline: Baseline | None) -> Replay:
    """Return a page without steps."""
    return Replay(env.world, title, env.legend(), fps, world, about(env, baseline or stored(env)))
