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
from particle_grid.sim.task import team_names

HARDLY = 0.05  # normalised scores below are called hardly better than random actions
WORSE = 0.2  # normalised score by which greedy actions are called worse than sampled ones
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
    count = len(results.scores["sampled"])
    seeds = f"{count} seed{'s' if count > 1 else ''}"
    size = f"{seeds} x {steps} steps x {env.num_agents} agents"
    console.print(f"{env.task_name}, {env.action}: {size}; mean ± standard deviation over seeds", soft_wrap=True)
    table = Table(" / ".join(team_names(env.task)), f"score\n({env.unit})", "normalised\nscore")
    for name, scores in results.scores.items():
        table.add_row(LABELS[name], _by_team(scores), _by_team(results.by_team(name)))
    console.print(table)


def _by_team(scores: np.ndarray) -> str:
    """Return the mean and the standard deviation of scores f64[seeds, teams], for each team."""
    return " / ".join(f"{values.mean():z.3f} ± {values.std():.3f}" for values in scores.T)


def verdict(env: ParticleGrid, results: Results, trained: int, usual: int) -> list[str]:
    """Return what to make of scores that disappoint: a sentence for each team, and one on greedy actions.

    Args:
        env: the environment.
        results: of a policy.
        trained: agent-steps that it was trained for.
        usual: agent-steps that its task is trained for by default.
    """
    said = []
    sampled = results.by_team("sampled").mean(0)
    subjects = [f"As {team}, the policy" for team in team_names(env.task)] or ["The policy"]
    for score, subject in zip(sampled, subjects, strict=True):
        if score < HARDLY:
            better = "hardly" if score > 0 else "no"
            said.append(f"{subject} is {better} better than random actions after {trained:,} steps.")
    if said and trained < usual:
        said.append(f"By default, {env.task_name} trains for {usual:,} steps.")
    if (results.by_team("greedy").mean(0) < sampled - WORSE).any():
        said.append(
            "Greedy actions score less than sampled ones: the most probable action may be the same in many places, so "
            "that agents stand still or block one another."
        )
    return said
