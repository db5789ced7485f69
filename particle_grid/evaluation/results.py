"""What a trained policy is worth: scores beside those of random actions and the script, as table, JSON, video, page."""

import contextlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from particle_grid.env import ParticleGrid
from particle_grid.evaluation import scores
from particle_grid.evaluation.scores import Baseline
from particle_grid.learn.policy import Policy
from particle_grid.runs.build import policy_player
from particle_grid.support import atomic
from particle_grid.view.camera import Camera
from particle_grid.view.replay import Replay
from particle_grid.view.video import Video

CLOSE_UP = 128  # cells along each side of what is shown of a large world


def baseline_for(env: ParticleGrid, console: Console, seeds: tuple[int, ...], steps: int) -> Baseline:
    """The stored baseline of a setting, or one measured now where somebody chose a setting of their own."""
    stored = scores.stored(env, seeds, steps)
    if stored:
        return stored
    with console.status("Measuring random actions and the script in this setting"):
        return scores.measure(env, seeds, steps)


def evaluate_policy(
    env: ParticleGrid, policy: Policy, baseline: Baseline, console: Console, seeds: tuple[int, ...], steps: int
) -> dict[str, np.ndarray]:
    """Return the scores f64[seeds, teams] of sampled and greedy actions, beside those of the baseline."""
    rows = {"random actions": np.array(baseline.random), "script": np.array(baseline.scripted)}
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task("Evaluating", total=2 * len(seeds) * env.task.teams * steps)
        for label, greedy in (("policy, sampled", False), ("policy, greedy", True)):
            maker = policy_player(policy, greedy)
            rows[label] = scores.evaluate(env, maker, seeds, steps, lambda: progress.advance(bar))
    return rows


def show_scores(
    env: ParticleGrid, rows: dict[str, np.ndarray], baseline: Baseline, console: Console, steps: int
) -> None:
    """Print what `evaluate_policy` returned for so many steps, as a table."""
    action = "discrete" if env.discrete else "continuous"
    size = f"{len(rows['policy, sampled'])} seeds x {steps} steps x {env.num_agents} agents"
    console.print(f"{env.task_name}, {action}: {size}; mean ± deviation of the seeds", soft_wrap=True)
    console.print(_table(env, rows, baseline))


def _table(env: ParticleGrid, rows: dict[str, np.ndarray], baseline: Baseline) -> Table:
    table = Table("", f"score\n({env.unit})", "normalised\nscore")
    for label, values in rows.items():
        by_side = [f"{side.mean():.3f} ± {side.std():.3f}" for side in values.T]
        normalised = baseline.normalise(values)
        table.add_row(label, " / ".join(by_side), f"{normalised.mean():.3f} ± {normalised.std():.3f}")
    return table


def save_results(path: Path, rows: dict[str, np.ndarray], baseline: Baseline) -> dict[str, float]:
    """Writes scores and normalised scores as JSON; returns the mean normalised score by row. Raises OSError where they
    cannot be written."""
    normalised = {label: baseline.normalise(values) for label, values in rows.items()}
    content = {
        label: {"scores": values.tolist(), "normalised_scores": normalised[label].tolist()}
        for label, values in rows.items()
    }
    # Whole or not there, whatever happens: a file of results is what makes a run finished.
    atomic.write(path, (json.dumps(content, indent=1) + "\n").encode())
    return {label: float(values.mean()) for label, values in normalised.items()}


@dataclass(frozen=True)
class Show:
    """What is shown of a policy at play, from a reset on: see `particle_grid.view.camera.Camera`.

    region: [row, column, height, width] in cells; None for all of the field, or the middle of a large one, where single
    agents would be too small to follow. fps: frames a second."""

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
        """Raises ValueError for what cannot be shown."""
        if self.steps < 1:
            raise ValueError(f"show.steps={self.steps} is no number of steps: give a whole number from 1 on.")
        if self.seed < 0:
            raise ValueError(f"show.seed={self.seed} is no seed: give a whole number from 0 on.")
        if self.region is not None and len(self.region) != 4:
            raise ValueError(f"show.region={self.region} is no region: give [row, column, height, width].")
        height, width, region = env.world.height, env.world.width, self.region
        if region is None and self.agent is None and max(height, width) > 2 * CLOSE_UP:
            rows, columns = min(height, CLOSE_UP), min(width, CLOSE_UP)
            region = [(height - rows) // 2, (width - columns) // 2, rows, columns]
        return Camera(
            env.world,
            world=self.world,
            region=(region[0], region[1], region[2], region[3]) if region else None,
            agent=self.agent,
            around=self.around,
            zoom=self.zoom,
            pixels=(self.pixels, self.pixels),
            trails=self.trails,
            legend=env.legend() if self.legend else None,
        )


def record(
    env: ParticleGrid,
    policy: Policy,
    console: Console,
    show: Show = Show(),
    video: str | Path | None = None,
    replay: str | Path | None = None,
    title: str = "",
) -> None:
    """Plays a policy and writes a video (GIF or MP4), a replay page, or both. title: of the page.

    Raises ValueError for a path or a show that cannot be, and OSError for what cannot be written."""
    camera, page = show.camera(env), None
    if replay:
        page = Replay(env.world, title, env.legend(), show.fps, camera.world)
    with contextlib.ExitStack() as stack:
        film = stack.enter_context(Video(video, show.fps)) if video else None
        progress = stack.enter_context(Progress(console=console, transient=True, disable=not console.is_terminal))
        bar = progress.add_task("Recording", total=show.steps)

        def watch() -> None:
            if film:
                film.add(camera.look(env.state))
            if page:
                page.add(env.state, env.rewards, env.score())
            progress.advance(bar)

        scores.match(env, [policy_player(policy)], show.seed, show.steps, watch)
    if page and replay:
        page.write(replay)
    for path in (video, replay):
        if path:
            console.print(f"Saved: {path}", soft_wrap=True)
