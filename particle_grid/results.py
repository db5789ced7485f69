"""What a trained policy is worth: scores beside those of random actions and the script, as a table, JSON and a GIF."""

import json
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from particle_grid import scores
from particle_grid.env import ParticleGrid
from particle_grid.learn.policy import Policy
from particle_grid.run import policy_player
from particle_grid.scores import Baseline
from particle_grid.view.frame import frame
from particle_grid.view.video import write_gif

GIF_STEPS, GIF_PIXELS, GIF_FPS = 150, 512, 20
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
    """Plays the policy with sampled and with greedy actions; prints a table, returns scores f64[seeds, sides]."""
    rows = {"random actions": np.array(baseline.random), "script": np.array(baseline.scripted)}
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task("Evaluating", total=2 * len(seeds) * env.task.sides * steps)
        for label, greedy in (("policy, sampled", False), ("policy, greedy", True)):
            maker = policy_player(policy, greedy)
            rows[label] = scores.evaluate(env, maker, seeds, steps, lambda: progress.advance(bar))
    action = "discrete" if env.discrete else "continuous"
    size = f"{len(seeds)} seeds x {steps} steps x {env.num_agents} agents"
    console.print(f"{env.task_name}, {action}: {size}; mean ± deviation of the seeds", soft_wrap=True)
    console.print(_table(env, rows, baseline))
    return rows


def _table(env: ParticleGrid, rows: dict[str, np.ndarray], baseline: Baseline) -> Table:
    table = Table("", f"score\n({env.task.unit})", "normalised\nscore")
    for label, values in rows.items():
        by_side = [f"{side.mean():.3f} ± {side.std():.3f}" for side in values.T]
        normalised = baseline.normalise(values)
        table.add_row(label, " / ".join(by_side), f"{normalised.mean():.3f} ± {normalised.std():.3f}")
    return table


def save_results(path: Path, rows: dict[str, np.ndarray], baseline: Baseline) -> dict[str, float]:
    """Writes scores and normalised scores as JSON; returns the mean normalised score by row."""
    normalised = {label: baseline.normalise(values) for label, values in rows.items()}
    content = {
        label: {"scores": values.tolist(), "normalised_scores": normalised[label].tolist()}
        for label, values in rows.items()
    }
    path.write_text(json.dumps(content, indent=1) + "\n", "utf-8")
    return {label: float(values.mean()) for label, values in normalised.items()}


def record(env: ParticleGrid, policy: Policy, path: str | Path, steps: int = GIF_STEPS, seed: int = 0) -> None:
    """Plays a policy from a reset on and writes the first world as a GIF: all of it, or the middle of a large one,
    where single agents would be too small to follow. Raises ValueError for a path that is none."""
    height, width = env.world.height, env.world.width
    if max(height, width) > 2 * CLOSE_UP:
        rows, columns = min(height, CLOSE_UP), min(width, CLOSE_UP)
        region = (height - rows) // 2, (width - columns) // 2, rows, columns
    else:
        region = 0, 0, height, width
    zoom, frames = GIF_PIXELS // max(region[2:]), list[np.ndarray]()

    def watch() -> None:
        frames.append(frame(env.state, env.world, region=region, zoom=zoom))

    scores.match(env, [policy_player(policy)], seed, steps, watch)
    write_gif(path, frames, GIF_FPS)
