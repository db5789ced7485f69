"""The figures of a study."""

from pathlib import Path
from typing import Any

import numpy as np

from particle_grid.evaluation import figures
from particle_grid.experiments import stats
from particle_grid.experiments.plan import TEST, Plan, RunKey
from particle_grid.experiments.study_scores import Rows, StudyResults, with_interval

PROFILE = np.linspace(-0.25, 1.75, 81)  # thresholds of the performance profiles
RELATIVE = {"better": 0.5, "difference": 0.0}  # columns that compare an arm with the reference: their neutral values
POINTS = 60  # points of a learning curve


def draw(out: Path, results: StudyResults, summary: Rows, variant: str) -> list[bytes]:
    """Write the figures of a variant as PNG files.

    Returns:
        Their contents.
    """
    mine = [row for row in summary if row["variant"] == variant]
    names = {
        "intervals": lambda figure: draw_intervals(figure, results.plan, mine),
        "profiles": lambda figure: draw_profiles(figure, results, variant),
        "tasks": lambda figure: draw_tasks(figure, results.plan, mine),
        "curves": lambda figure: draw_curves(figure, results, variant),
    }
    images = []
    for name, drawing in names.items():
        figure = figures.load_figure()(layout="constrained")
        drawing(figure)
        images.append(figures.save(out / f"{name}-{variant}.png", figure))
    return images


def colours(plan: Plan) -> dict[str, Any]:
    """Return one colour for each arm, from a colour map that colour-blind people can read."""
    from matplotlib import colormaps

    last = max(len(plan.arms) - 1, 1)
    return {arm: colormaps["viridis"](0.95 * k / last) for k, arm in enumerate(plan.arms)}


def draw_intervals(figure: Any, plan: Plan, summary: Rows) -> None:
    """Draw the aggregates over all tasks, each with its interval."""
    figure.set_size_inches(11, 1.2 + 0.38 * len(plan.arms))
    titles = {
        "iqm": "interquartile mean",
        "mean": "mean",
        "better": f"probability of more than {plan.reference}",
        "difference": f"paired difference to {plan.reference}",
    }
    rows = {row["arm"]: row for row in summary if row["task"] == "all"}
    panels = figure.subplots(1, len(titles), sharey=True)
    for panel, (name, title) in zip(panels, titles.items(), strict=True):
        panel.use_sticky_edges = False  # bars would otherwise end at the edge of the panel
        for place, (arm, colour) in enumerate(colours(plan).items()):
            if name in RELATIVE and arm == plan.reference:
                continue
            low = rows[arm][f"{name}_low"]
            panel.barh(place, rows[arm][f"{name}_high"] - low, 0.6, left=low, color=colour, alpha=0.5)
            panel.plot([rows[arm][name]] * 2, [place - 0.3, place + 0.3], color="black", linewidth=1.5)
        panel.set(title=title, yticks=range(len(plan.arms)), yticklabels=list(plan.arms))
        panel.title.set_fontsize(10)
        panel.grid(axis="x", alpha=0.3)
        if name in RELATIVE:
            panel.axvline(RELATIVE[name], color="black", linewidth=0.8, linestyle=":")
    panels[0].invert_yaxis()


def draw_profiles(figure: Any, results: StudyResults, variant: str) -> None:
    """Draw the share of runs that score more than each threshold, with 95% bands."""
    figure.set_size_inches(7, 4)
    panel = figure.subplots()
    profile = stats.performance_profile(PROFILE)
    for arm, colour in colours(results.plan).items():
        value, low, high = with_interval(profile, results.matrix(variant, arm))
        panel.plot(PROFILE, value, color=colour, label=arm)
        panel.fill_between(PROFILE, low, high, color=colour, alpha=0.15, linewidth=0)
    panel.set(xlabel="normalised score", ylabel="share of runs that score more", ylim=(-0.02, 1.02))
    panel.legend()


def draw_tasks(figure: Any, plan: Plan, summary: Rows) -> None:
    """Draw the interquartile mean of each task, with its interval."""
    figure.set_size_inches(2.6 * len(plan.tasks), 1.4 + 0.34 * len(plan.arms))
    panels = figure.subplots(1, len(plan.tasks), sharey=True, squeeze=False)[0]
    for panel, task in zip(panels, plan.tasks, strict=True):
        rows = {row["arm"]: row for row in summary if row["task"] == task}
        for place, (arm, colour) in enumerate(colours(plan).items()):
            row = rows[arm]
            panel.plot([row["iqm_low"], row["iqm_high"]], [place, place], color=colour, linewidth=4, alpha=0.6)
            panel.plot(row["iqm"], place, "o", color=colour)
        panel.set(title=task, yticks=range(len(plan.arms)), yticklabels=list(plan.arms), xlabel="normalised score")
        panel.grid(axis="x", alpha=0.3)
    panels[0].invert_yaxis()


def draw_curves(figure: Any, results: StudyResults, variant: str) -> None:
    """Draw learning curves: the median over seeds, and the range of the middle half."""
    plan = results.plan
    figure.set_size_inches(3.2 * len(plan.tasks), 3.2)
    seeds = results.complete_seeds(variant)
    panels = figure.subplots(1, len(plan.tasks), squeeze=False)[0]
    for panel, task in zip(panels, plan.tasks, strict=True):
        for arm, colour in colours(plan).items():
            keys = [RunKey(TEST, variant, arm, results.chosen[arm], task, seed) for seed in seeds]
            curves = [results.curves[key] for key in keys]
            x = np.linspace(0, min(curve.steps[-1] for curve in curves), POINTS)
            y = np.array([np.interp(x, curve.steps, curve.values) for curve in curves])  # [seeds, POINTS]
            panel.plot(x / 1e6, np.median(y, 0), color=colour, label=arm)
            panel.fill_between(x / 1e6, *np.quantile(y, [0.25, 0.75], axis=0), color=colour, alpha=0.15, linewidth=0)
        panel.set(title=task, xlabel="million agent-steps")
    panels[0].set_ylabel("normalised score")
    panels[0].legend(fontsize=8)
