"""Pictures of a sweep: parallel coordinates, which keys matter, learning curves."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from particle_grid.experiments.stats import interquartile_mean
from particle_grid.support import figures

PARTS = 4  # into which the values of a key with more than that many numbers are sorted, to ask how much they matter
LONGEST = 24  # characters beside an axis
ENOUGH = 20  # finished runs from which on Optuna's PED-ANOVA is asked instead
POINTS, LINES = 60, 8  # of a curve; curves in a panel, the best ones
SMOOTH = 20  # a curve shows means over this part of a run
BELOW: dict[str, Any] = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.17), "frameon": False}  # a panel: a legend
Axis = Callable[[Any], float]  # a value's place on an axis, 0 to 1


class Run(Protocol):
    """What pictures need of a run; see `particle_grid.report.Run`."""

    config: dict[str, Any]
    sampled: float
    steps: np.ndarray
    scores: np.ndarray


def load_figure() -> Any:
    """Return Matplotlib's Figure. Raise ValueError where it is not installed."""
    return figures.load_figure("sweep", "Drawing pictures")


def draw(out: Path, runs: Sequence[Any], keys: Sequence[str]) -> list[str]:
    """Writes the pictures that these runs have enough for; returns their names."""
    finished = [run for run in runs if not math.isnan(run.sampled)]
    drawn = []
    if len(finished) > 1 and keys:
        parallel(out / "parallel.png", finished, keys)
        drawn.append("parallel.png")
    if len(finished) > 2 and (shares := importance(finished, keys))[0]:
        bars(out / "importance.png", *shares, len(finished))
        drawn.append("importance.png")
    if curved := [run for run in runs if len(run.scores) > 1 and not np.isnan(run.scores).all()]:
        curves(out / "curves.png", curved, [key for key in keys if key != "seed"])
        drawn.append("curves.png")
    return drawn


def is_number(value: Any) -> bool:
    """Whether a value has a size; true and false have not."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def short(value: Any) -> str:
    """A value beside an axis."""
    text = f"{value:.3g}" if isinstance(value, float) else str(value)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."


def name(key: str) -> str:
    """A key as a command line names it."""
    return key.removesuffix(".name")


def axis_of(values: Sequence[Any]) -> tuple[Axis, list[Any]]:
    """Where values lie on an axis from 0 to 1, and those to write beside it. Numbers lie by their size, by its
    logarithm where it varies tenfold; anything else, and up to PARTS numbers, at equal distances."""
    distinct = list(dict.fromkeys(values))
    if all(map(is_number, distinct)):
        distinct.sort()
    if len(distinct) <= PARTS or not all(map(is_number, distinct)):
        return (lambda value: (distinct.index(value) + 0.5) / len(distinct)), distinct
    low, high = distinct[0], distinct[-1]
    if low > 0 and high / low >= 10:
        ticks = [float(x) for x in np.geomspace(low, high, PARTS + 1)]
        return (lambda value: math.log(value / low) / math.log(high / low)), ticks
    return (lambda value: (value - low) / (high - low)), [float(x) for x in np.linspace(low, high, PARTS + 1)]


def parallel(path: Path, runs: Sequence[Run], keys: Sequence[str]) -> None:
    """A line for each finished run through its value of each key, to its score."""
    scores = np.array([run.sampled for run in runs])
    low, high = scores.min(), max(scores.max(), scores.min() + 1e-9)
    figure = load_figure()(figsize=(2.2 + 1.9 * len(keys), 4.2), layout="constrained")
    panel = figure.subplots()
    axes = [axis_of([run.config.get(key) for run in runs]) for key in keys]
    columns = [[place(run.config.get(key)) for run in runs] for key, (place, _) in zip(keys, axes, strict=True)]
    places = np.column_stack([*columns, (scores - low) / (high - low)])  # [runs, keys + 1]
    # Runs that share a value pass through it side by side, in the order of their scores.
    rank = (np.argsort(np.argsort(scores)) + 0.5) / len(scores) - 0.5
    for k, (place, ticks) in enumerate(axes):
        if wide := 0.0 if len(ticks) == PARTS + 1 else 0.6 / len(ticks):
            places[:, k] += rank * wide
            for tick in ticks:
                ends = place(tick) - wide / 2, place(tick) + wide / 2
                panel.plot((k, k), ends, color="0.88", linewidth=9, solid_capstyle="butt", zorder=0)
    from matplotlib import colormaps

    t = np.linspace(0, 1, 25)
    bend = t * t * (3 - 2 * t)  # lines that leave an axis level can be told apart where they cross
    for k in np.argsort(scores):  # the best ones on top
        y = np.concatenate([a + (b - a) * bend for a, b in zip(places[k, :-1], places[k, 1:], strict=True)])
        x = np.concatenate([j + t for j in range(len(keys))])
        panel.plot(x, y, color=colormaps["viridis"]((scores[k] - low) / (high - low)), linewidth=1.8, alpha=0.85)
    for k, (place, ticks) in enumerate(axes):
        panel.axvline(k, color="black", linewidth=0.8)
        for tick in ticks:
            box = {"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 1}
            panel.text(k + 0.03, place(tick), short(tick), va="center", fontsize=8, bbox=box)
    panel.axvline(len(keys), color="black", linewidth=0.8)
    for value in np.linspace(low, high, 5):
        panel.text(len(keys) + 0.03, (value - low) / (high - low), f"{value:.2f}", va="center", fontsize=8)
    panel.set(xlim=(-0.05, len(keys) + 0.25), ylim=(-0.03, 1.03), yticks=[], title=f"{len(runs)} finished runs")
    panel.set_xticks(range(len(keys) + 1), [*map(name, keys), "normalised score"], fontsize=9)
    panel.spines[:].set_visible(False)
    panel.tick_params(length=0)
    figures.save(path, figure)


def importance(runs: Sequence[Run], keys: Sequence[str]) -> tuple[dict[str, float], str]:
    """How much of what differs between final scores each key stands for, and how that was measured."""
    scores = np.array([run.sampled for run in runs])
    if not keys or np.ptp(scores) < 1e-12:
        return {}, ""
    columns = {key: [run.config.get(key) for run in runs] for key in keys}
    if len(runs) >= ENOUGH and len(keys) > 1 and (shares := ped_anova(columns, scores)):
        return shares, "PED-ANOVA: what sets the best runs apart"
    shares = {key: share_of_variance(values, scores) for key, values in columns.items()}
    return {key: share for key, share in shares.items() if not math.isnan(share)}, "adjusted share of the variance"


def share_of_variance(values: Sequence[Any], scores: np.ndarray) -> float:
    """The share of the variance of scores, f64[runs], that lies between the groups of runs with the same value, less
    what chance would give (epsilon squared, Kelley 1935). Many numbers are sorted into PARTS groups of equal size.

    NaN where each run is a group of its own."""
    labels = [str(value) for value in values]
    if len(set(labels)) > PARTS and all(map(is_number, values)):
        labels = [str(k) for k in np.searchsorted(np.quantile(np.array(values, float), [0.25, 0.5, 0.75]), values)]
    groups = [scores[[label == other for other in labels]] for label in dict.fromkeys(labels)]
    if len(groups) == len(scores):
        return math.nan
    total = float(((scores - scores.mean()) ** 2).sum())
    within = float(sum(((group - group.mean()) ** 2).sum() for group in groups))
    by_chance = (len(groups) - 1) * within / (len(scores) - len(groups))
    return max(0.0, (total - within - by_chance) / total)


def ped_anova(columns: dict[str, list[Any]], scores: np.ndarray) -> dict[str, float]:
    """Optuna's importance of each key; empty where Optuna is not installed."""
    try:
        import optuna
    except ImportError:
        return {}
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    space: dict[str, Any] = {}
    for key, values in columns.items():
        if len(set(map(str, values))) > PARTS and all(map(is_number, values)):
            log = min(values) > 0 and max(values) / min(values) >= 10
            space[key] = optuna.distributions.FloatDistribution(float(min(values)), float(max(values)), log=log)
        else:
            space[key] = optuna.distributions.CategoricalDistribution(sorted(set(map(str, values))))
    study = optuna.create_study(direction="maximize")
    for k, score in enumerate(scores):
        floats = optuna.distributions.FloatDistribution
        params = {
            key: float(values[k]) if isinstance(space[key], floats) else str(values[k])
            for key, values in columns.items()
        }
        study.add_trial(optuna.trial.create_trial(params=params, distributions=space, value=float(score)))
    evaluator = optuna.importance.PedAnovaImportanceEvaluator()
    return dict(optuna.importance.get_param_importances(study, evaluator=evaluator))


def bars(path: Path, shares: dict[str, float], measure: str, count: int) -> None:
    """A bar for each key."""
    keys = sorted(shares, key=lambda key: shares[key])
    figure = load_figure()(figsize=(6, 1.3 + 0.4 * len(keys)), layout="constrained")
    panel = figure.subplots()
    drawn = panel.barh([*map(name, keys)], [shares[key] for key in keys], color="tab:blue", height=0.6)
    panel.bar_label(drawn, [f"{shares[key]:.2f}" for key in keys], padding=4, fontsize=9)
    panel.set(xlim=(0, 1.1), xlabel=measure, title=f"What final scores depend on, {count} runs")
    panel.spines[["top", "right"]].set_visible(False)
    figures.save(path, figure)


def curves(path: Path, runs: Sequence[Run], keys: Sequence[str]) -> None:
    """Normalised score over agent-steps, a panel for each task and a line for each set of other values: interquartile
    mean of its seeds, between the lowest and the highest. Means over a twentieth of a run."""
    from matplotlib.ticker import EngFormatter

    others, groups = [key for key in keys if key != "task.name"], dict[str, dict[str, list[Run]]]()
    for run in runs:
        label = ", ".join(short(run.config.get(key)) for key in others) or "all runs"
        groups.setdefault(str(run.config.get("task.name")), {}).setdefault(label, []).append(run)
    lines = min(LINES, max(map(len, groups.values())))
    figure = load_figure()(figsize=(max(5.6, 3.6 * len(groups)), 3.9 + 0.18 * lines), layout="constrained")
    panels = figure.subplots(1, len(groups), squeeze=False)[0]
    for task, panel in zip(sorted(groups), panels, strict=True):
        best = sorted(groups[task], key=lambda label: max(map(merit, groups[task][label])), reverse=True)
        colours = {label: f"C{k}" for k, label in enumerate(sorted(best[:LINES]))}
        for label in best[:LINES]:
            band(panel, groups[task][label], label, colours[label])
        hidden = f", the best {LINES} of {len(best)}" if len(best) > LINES else ""
        panel.axhline(1, color="black", linewidth=0.8, linestyle=":")
        panel.set(title=task + hidden, xlabel="agent-steps")
        panel.xaxis.set_major_formatter(EngFormatter(sep=""))
        panel.spines[["top", "right"]].set_visible(False)
        panel.legend(title=", ".join(map(name, others)), fontsize=8, title_fontsize=8, **BELOW)
    panels[0].set_ylabel("normalised score")
    figures.save(path, figure)


def merit(run: Run) -> tuple[float, float]:
    """By what runs are ordered: the final score; those that have none come after, by the end of their curves."""
    return (-math.inf if math.isnan(run.sampled) else run.sampled), float(run.scores[-1])


def band(panel: Any, runs: Sequence[Run], label: str, colour: str) -> None:
    """The curve of some runs, as far as all of them have come."""
    x = np.linspace(max(run.steps[0] for run in runs), min(run.steps[-1] for run in runs), POINTS)
    y = np.array([np.interp(x, run.steps, smooth(run.scores)) for run in runs])  # [runs, POINTS]
    panel.plot(x, interquartile_mean(y.T[:, None]), color=colour, linewidth=1.8, label=f"{label} ({len(runs)})")
    panel.fill_between(x, y.min(0), y.max(0), color=colour, alpha=0.18, linewidth=0)


def smooth(scores: np.ndarray) -> np.ndarray:
    """Means over the last twentieth of all iterations, or as many as there are."""
    window, sums = max(1, len(scores) // SMOOTH), np.cumsum(scores)
    before = np.concatenate([np.zeros(window), sums[:-window]])
    return (sums - before) / np.minimum(np.arange(1, len(scores) + 1), window)
