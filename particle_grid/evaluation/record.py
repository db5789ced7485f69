"""Videos and replay pages of a policy at play."""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import Progress

from particle_grid.env import ParticleGrid
from particle_grid.evaluation.baseline import Baseline, stored
from particle_grid.evaluation.match import match
from particle_grid.evaluation.players import policy_player
from particle_grid.learn.policy import Policy
from particle_grid.sim.task import purpose, team_names
from particle_grid.support.errors import UserError
from particle_grid.view.camera import Camera
from particle_grid.view.replay import About, Replay, check_page
from particle_grid.view.video import Video, check_video

CLOSE_UP = 128  # height and width, in cells, of what is shown of a large world
Region = tuple[int, int, int, int]


@dataclass(frozen=True)
class Show:
    """What is shown of a policy at play, from a reset: see `particle_grid.view.camera.Camera`.

    region: [row, column, height, width] in cells. None shows the whole field, or the middle of a large one, where
    single agents would otherwise be too small to follow. fps: frames per second.
    """

    steps: int = 150
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
        if self.steps < 1:
            raise UserError(f"show.steps={self.steps} is out of range: give a whole number, 1 or more.")
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
        rows = min(height, CLOSE_UP)
        columns = min(width, CLOSE_UP)
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


def about(env: ParticleGrid, baseline: Baseline | None) -> About:
    """Return what a page says about the task of an environment, with the lines of a baseline if there is one."""
    lines = {"random": baseline.random, "script": baseline.scripted} if baseline else {}
    references = {whose: np.mean(scores, 0).tolist() for whose, scores in lines.items()}
    return About(purpose(type(env.task)), env.unit, team_names(env.task), references)


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
        UserError, OSError: for an invalid path or value, and for a file that cannot be written.
    """
    camera = show.camera(env)
    facts = about(env, baseline or stored(env))
    page = Replay(env.world, title, env.legend(), show.fps, camera.world, facts) if replay else None
    filming = Video(video, show.fps) if video else contextlib.nullcontext()
    with filming as film, Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task("Recording", total=show.steps)

        def watch() -> None:
            if film:
                film.add(camera.look(env.state))
            if page:
                page.add(env.state, env.rewards, env.score(page.agents))
            progress.advance(bar)

        match(env, [policy_player(policy)], show.seed, show.steps, watch)
    if page and replay:
        page.write(replay)
    for path in filter(None, (video, replay)):
        console.print(f"Saved: {path}", soft_wrap=True)
