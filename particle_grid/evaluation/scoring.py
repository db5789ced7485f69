"""The scores of a policy compared with those of random actions and of the script, as results and as a table."""

from collections.abc import Sequence

import numpy as np
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from particle_grid.env import ParticleGrid
from particle_grid.evaluation.baseline import Baseline
from particle_grid.evaluation.match import evaluate
from particle_grid.evaluation.players import policy_player
from particle_grid.learn.policy import Policy
from particle_grid.runs.results import Results

LABELS = {  # labels for people, by the keys of `Results`
    "random": "random actions",
    "scripted": "script",
    "sampled": "policy, sampled",
    "greedy": "policy, greedy",
}


def evaluate_policy(
    env: ParticleGrid, policy: Policy, baseline: Baseline, console: Console, seeds: Sequence[int], steps: int
) -> Results:
    """Evaluate the sampled and the greedy actions of a policy, and return their scores with those of the baseline.

    Args:
        env: the environment, whose state is overwritten.
        policy: the policy to evaluate.
        baseline: of this environment, seeds and steps.
        console: where progress is shown, if it is a terminal.
        seeds: one episode is played with each, for each team and kind of action.
        steps: length of an episode.
    """
    scores = {"random": np.array(baseline.random), "scripted": np.array(baseline.scripted)}
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task("Evaluating", total=2 * len(seeds) * env.task.teams * steps)
        for name, greedy in (("sampled", False), ("greedy", True)):
            player = policy_player(policy, greedy)
            scores[name] = evaluate(env, player, seeds, steps, lambda: progress.advance(bar))
    return Results(scores, {name: baseline.normalise(values) for name, values in scores.items()})


def show_results(env: ParticleGrid, results: Results, console: Console, steps: int) -> None:
    """Print the results of episodes of this many steps as a table."""
    action = "discrete" if env.discrete else "continuous"
    count = len(results.scores["sampled"])
    seeds = f"{count} seed{'s' if count > 1 else ''}"
    size = f"{seeds} x {steps} steps x {env.num_agents} agents"
    console.print(f"{env.task_name}, {action}: {size}; mean ± standard deviation over seeds", soft_wrap=True)
    table = Table("", f"score\n({env.unit})", "normalised\nscore")
    for name, scores in results.scores.items():
        by_team = " / ".join(_spread(team) for team in scores.T)
        table.add_row(LABELS[name], by_team, _spread(results.normalised[name]))
    console.print(table)


def _spread(values: np.ndarray) -> str:
    return f"{values.mean():.3f} ± {values.std():.3f}"
