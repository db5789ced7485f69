"""The figures of a study."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from particle_grid.evaluation import figures
from particle_grid.experiments import stats
from particle_grid.experiments.study.plan import Plan
from particle_grid.experiments.study.scores import Rows, StudyResults, smoothed
from particle_grid.experiments.study.summary import FEWEST, with_interval

PROFILE = np.linspace(-0.25, 1.75, 81)  # thresholds of the performance profiles
RELATIVE = {"better": 0.5, "difference": 0.0}  # columns that compare an arm with the reference: their neutral values
POINTS = 60  # points of a learning curve
REFERENCE_COLOUR = "#222222"
GAIN = "#56b4e9"  # of changes that raise and lower the score
LOSS = "#d55e00"
# Of the other arms: those of M. Okabe and K. Ito, "Color Universal Design", 2008, that stand out from white, brown, and
# some of P. Tol's muted scheme.
COLOURS = (
    *("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c564b"),
    *("#332288", "#882255", "#999933", "#777777"),
)


def draw(out: Path, results: StudyResults, summary: Rows, chains: Rows, variant: str) -> dict[str, bytes]:
    """Write the figures of a variant as PNG files.

    Args:
        out: their folder.
        results: of the runs.
        summary, chains: the rows of summary.csv and chains.csv.
        variant: which one.

    Returns:
        Their contents by their captions.
    """
    mine = [row for row in summary if row["variant"] == variant]
    changes = [row for row in chains if row["variant"] == variant]
    names: dict[str, Callable[[Any], None]] = {
        "intervals": lambda figure: draw_intervals(figure, results.plan, mine),
        "profiles": lambda figure: draw_profiles(figure, results, variant),
        "tasks": lambda figure: draw_tasks(figure, results.plan, mine),
        "curves": lambda figure: draw_curves(figure, results, variant),
        "kl": lambda figure: draw_kl(figure, results, variant),
    }
    if changes:
        names = {"chains": lambda figure: draw_chains(figure, results.plan, mine, changes)} | names
    if results.plan.thresholds:
        names["steps"] = lambda figure: draw_steps(figure, results, variant)
    written = captions(results.plan, len(results.complete_seeds(variant)))
    images = {}
    for name, drawing in names.items():
        figure = figures.load_figure()(layout="constrained")
        drawing(figure)
        images[written[name]] = figures.save(out / f"{name}-{variant}.png", figure)
    return images


def captions(plan: Plan, seeds: int) -> dict[str, str]:
    """Return the caption of each figure of a variant with some complete seeds."""
    bars = "bars: 95% intervals" if seeds >= FEWEST else f"no intervals, because there are fewer than {FEWEST} seeds"
    lines = "lines: 95% intervals of the change" if seeds >= FEWEST else bars
    bands = ", with 95% bands" if seeds >= FEWEST else ""
    return {
        "intervals": f"Scores over all tasks and {seeds} seeds. Lines: estimates; {bars}. 0: random actions, 1: the "
        f"script. The two panels on the right compare each arm with {plan.reference}; dotted: no difference.",
        "profiles": f"Share of runs that score more than the value on the horizontal axis{bands}. A curve further up "
        "and to the right is better.",
        "tasks": f"Interquartile mean of each task over {seeds} seeds; {bars}.",
        "curves": f"Learning curves: the median over {seeds} seeds, and the range of their middle half.",
        "steps": f"Share of {seeds} runs whose score has reached a threshold. A curve further up and to the left is "
        "better. Where it ends below 1, some runs never reached it.",
        "kl": f"Score over the cumulative KL divergence of the policy: the median over {seeds} seeds, up to what all "
        "reach. A higher curve learns more from an equally large change.",
        "chains": f"What each change adds to the interquartile mean over {seeds} seeds (blue) or takes from it "
        f"(orange), from the arm at the top to the one at the bottom; {lines}.",
    }


def colours(plan: Plan) -> dict[str, str]:
    """Return the colour of each arm. Arms have no order, so their colours have none, and the reference is dark."""
    others = itertools.cycle(COLOURS)
    return {arm: REFERENCE_COLOUR if arm == plan.reference else next(others) for arm in plan.arms}


def draw_intervals(figure: Any, plan: Plan, summary: Rows) -> None:
    """Draw the aggregates over all tasks, each with its interval."""
    figure.set_size_inches(11, 1.2 + 0.38 * len(plan.arms))
    titles = {
        "iqm": "interquartile mean",
        "mean": "mean",
        "better": f"probability of more than {plan.reference}",
        "difference": f"difference to {plan.reference}",
    }
    rows = {row["arm"]: row for row in summary if row["task"] == "all"}
    panels = figure.subplots(1, len(titles), sharey=True)
    for panel, (name, title) in zip(panels, titles.items(), strict=True):
        panel.use_sticky_edges = False  # bars would otherwise end at the edge of the panel
        for place, (arm, colour) in enumerate(colours(plan).items()):
            if name in RELATIVE and arm == plan.reference:
                continue
            low = rows[arm][f"{name}_low"]
            if np.isfinite(low):
                panel.barh(place, rows[arm][f"{name}_high"] - low, 0.6, left=low, color=colour, alpha=0.4)
            panel.plot([rows[arm][name]] * 2, [place - 0.3, place + 0.3], color=colour, linewidth=2.5)
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


def draw_chains(figure: Any, plan: Plan, summary: Rows, changes: Rows) -> None:
    """Draw each chain as a waterfall: a bar from the score before a change to that after it, with its interval."""
    tasks = ["all", *plan.tasks]
    heights = [len(arms) for arms in plan.chains.values()]
    figure.set_size_inches(2.9 * len(tasks), 1.2 + 0.36 * sum(heights))
    levels = {(row["task"], row["arm"]): row["iqm"] for row in summary}
    panels = figure.subplots(len(heights), len(tasks), sharex=True, squeeze=False, height_ratios=heights)
    for (chain, arms), row_of_panels in zip(plan.chains.items(), panels, strict=True):
        for panel, task in zip(row_of_panels, tasks, strict=True):
            mine = [row for row in changes if (row["chain"], row["task"]) == (chain, task)]
            draw_waterfall(panel, arms, [levels[task, arm] for arm in arms], mine)
            panel.set_title("mean of tasks" if task == "all" else task, fontsize=10)
        row_of_panels[0].set_ylabel(chain)
        for panel in row_of_panels[1:]:
            panel.tick_params(labelleft=False)
    for panel in panels[-1]:
        panel.set_xlabel("normalised score")


def draw_waterfall(panel: Any, arms: Sequence[str], levels: Sequence[float], changes: Rows) -> None:
    """Draw a chain of arms in a panel, from its levels and the rows of its changes."""
    panel.use_sticky_edges = False  # bars would otherwise end at the edge of the panel
    panel.plot(levels[0], 0, "o", color=REFERENCE_COLOUR)
    for place, row in enumerate(changes, 1):
        before, after = levels[place - 1], levels[place]
        panel.barh(place, after - before, 0.6, left=before, color=LOSS if after < before else GAIN)
        panel.plot([before, before], [place - 1, place], color=REFERENCE_COLOUR, linewidth=0.8)
        if np.isfinite(row["difference_low"]):
            ends = [before + row["difference_low"], before + row["difference_high"]]
            panel.plot(ends, [place, place], color=REFERENCE_COLOUR, linewidth=1.2)
    panel.set(yticks=range(len(arms)), yticklabels=list(arms))
    panel.invert_yaxis()
    panel.grid(axis="x", alpha=0.3)


def draw_steps(figure: Any, results: StudyResults, variant: str) -> None:
    """Draw the share of the runs that have reached each threshold by each step."""
    plan = results.plan
    figure.set_size_inches(3.2 * len(plan.tasks) + 1.3, 2.6 * len(plan.thresholds))
    panels = figure.subplots(len(plan.thresholds), len(plan.tasks), squeeze=False)
    for arm, colour in colours(plan).items():
        columns = results.columns(variant, arm)
        for threshold, row_of_panels in zip(plan.thresholds, panels, strict=True):
            for k, panel in enumerate(row_of_panels):
                last = columns["steps"][k].max()
                reached = np.sort(columns[f"steps_to_{threshold}"][k])
                if np.isnan(reached).any():  # there is no such threshold
                    continue
                x = [0, *np.minimum(reached, last), last]
                y = np.array([0, *np.cumsum(np.isfinite(reached)), np.isfinite(reached).sum()]) / len(reached)
                panel.step(np.array(x) / 1e6, y, where="post", color=colour, label=arm)
    for threshold, row_of_panels in zip(plan.thresholds, panels, strict=True):
        row_of_panels[0].set_ylabel(f"share of runs at {threshold}")
        for panel, task in zip(row_of_panels, plan.tasks, strict=True):
            panel.set(title=task, xlabel="million agent-steps", ylim=(-0.02, 1.02))
    draw_legend(figure, panels[0, 0])


def draw_kl(figure: Any, results: StudyResults, variant: str) -> None:
    """Draw the median score over the cumulative KL divergence, up to what all seeds of an arm reach."""
    panels = score_panels(figure, results.plan, "cumulative KL divergence (nats)")
    for panel, task, arm, colour in curves_to_draw(results.plan, panels):
        keys = [results.test_key(variant, arm, task, seed) for seed in results.complete_seeds(variant)]
        x = np.linspace(0, min(results.kl[key][-1] for key in keys), POINTS)
        y = [np.interp(x, results.kl[key], smoothed(results.curves[key].values)) for key in keys]
        panel.plot(x, np.median(y, 0), color=colour, label=arm)
    draw_legend(figure, panels[0])


def draw_curves(figure: Any, results: StudyResults, variant: str) -> None:
    """Draw learning curves: the median over seeds, and the range of the middle half."""
    panels = score_panels(figure, results.plan, "million agent-steps")
    for panel, task, arm, colour in curves_to_draw(results.plan, panels):
        keys = [results.test_key(variant, arm, task, seed) for seed in results.complete_seeds(variant)]
        curves = [results.curves[key] for key in keys]
        x = np.linspace(0, min(curve.steps[-1] for curve in curves), POINTS)
        y = np.array([np.interp(x, curve.steps, curve.values) for curve in curves])  # [seeds, POINTS]
        panel.plot(x / 1e6, np.median(y, 0), color=colour, label=arm)
        panel.fill_between(x / 1e6, *np.quantile(y, [0.25, 0.75], axis=0), color=colour, alpha=0.15, linewidth=0)
    draw_legend(figure, panels[0])


def score_panels(figure: Any, plan: Plan, x_label: str) -> Sequence[Any]:
    """Return a panel for each task, with room for a legend beside them."""
    figure.set_size_inches(3.2 * len(plan.tasks) + 1.3, 3.2)
    panels: Sequence[Any] = figure.subplots(1, len(plan.tasks), squeeze=False)[0]
    for panel, task in zip(panels, plan.tasks, strict=True):
        panel.set(title=task, xlabel=x_label)
    panels[0].set_ylabel("normalised score")
    return panels


def curves_to_draw(plan: Plan, panels: Sequence[Any]) -> Iterator[tuple[Any, str, str, str]]:
    """Yield panel, task, arm and colour of each curve."""
    for panel, task in zip(panels, plan.tasks, strict=True):
        for arm, colour in colours(plan).items():
            yield panel, task, arm, colour


def draw_legend(figure: Any, panel: Any) -> None:
    """Draw the legend of a panel beside all panels, where it hides no curve."""
    figure.legend(*panel.get_legend_handles_labels(), loc="outside right upper", fontsize=8)
