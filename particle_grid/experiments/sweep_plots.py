"""The figures of a sweep: parallel coordinates, the importance of keys, learning curves."""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from particle_grid.evaluation import figures
from particle_grid.experiments.stats import interquartile_mean
from particle_grid.experiments.sweep_report import Picture, Sweep, SweepRun, short_key

PARTS = 4  # groups into which numeric values of a key are sorted if there are more of them
LONGEST = 24  # characters of a value next to an axis
FEWEST = 10  # finished runs of a task that can show what their scores depend on
ENOUGH = 20  # finished runs that Optuna's PED-ANOVA needs
POINTS = 60  # points of a curve
CURVES = 8  # in a panel: only the best ones
SMOOTH = 20  # a curve shows means over this part of a run
WIDTH = 0.6  # total width of the bands on axes with few values
BELOW: dict[str, Any] = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.17), "frameon": False}  # place of a legend


def draw(sweep: Sweep) -> list[Picture]:
    """Return the figures for which there are enough runs, of each task by itself.

    Scores of different tasks differ for reasons of their own, which would hide what a setting does.
    """
    figures.load_figure()  # which fails now if it is missing
    tasks: dict[str, list[SweepRun]] = {}
    for run in sweep.runs:
        if run.config:
            tasks.setdefault(str(run.config.get("task.name")), []).append(run)
    drawn: list[Picture] = []
    for task, runs in sorted(tasks.items()):
        drawn += _draw_task(task, runs, [key for key in sweep.keys if len({run.config.get(key) for run in runs}) > 1])
    return drawn


def _draw_task(task: str, runs: Sequence[SweepRun], keys: Sequence[str]) -> list[Picture]:
    """Return the figures of the runs of a task, which these keys tell apart."""
    drawn: list[Picture] = []
    curved = [run for run in runs if len(run.scores) > 1 and not np.isnan(run.scores).all()]
    if curved:
        drawn.append((f"{task}: learning curves", curves(curved, [key for key in keys if key != "seed"])))
    finished = [run for run in runs if run.scored]
    if len(finished) > 1 and keys:
        drawn.append((f"{task}: settings and scores", parallel(finished, keys)))
    if len(finished) >= FEWEST:
        shares, measure = importance(finished, keys)
        if shares:
            drawn.append((f"{task}: what scores depend on", bars(shares, measure, len(finished))))
    return drawn


def is_number(value: Any) -> bool:
    """Return whether a value is a number; true and false are not."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def short(value: Any) -> str:
    """Return a value as it is written next to an axis."""
    text = f"{value:.3g}" if isinstance(value, float) else str(value)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."


@dataclass(frozen=True)
class Axis:
    """The places of values on an axis from 0 to 1.

    place: from a value to its place. ticks: values to label. continuous: whether runs lie between the ticks.
    """

    place: Callable[[Any], float]
    ticks: list[Any]
    continuous: bool


def axis_of(values: Sequence[Any]) -> Axis:
    """Return an axis for values.

    Numbers are placed by size, on a logarithmic axis if `is_logarithmic`. Anything else, and up to PARTS different
    numbers, is placed at equal distances.
    """
    distinct = list(dict.fromkeys(values))
    numbers = all(map(is_number, distinct))
    if numbers:
        distinct.sort()
    if len(distinct) <= PARTS or not numbers:
        return Axis(lambda value: (distinct.index(value) + 0.5) / len(distinct), distinct, False)
    low = distinct[0]
    high = distinct[-1]
    if is_logarithmic(distinct):
        ticks = np.geomspace(low, high, PARTS + 1).tolist()
        return Axis(lambda value: math.log(value / low) / math.log(high / low), ticks, True)
    return Axis(lambda value: (value - low) / (high - low), np.linspace(low, high, PARTS + 1).tolist(), True)


def is_logarithmic(numbers: Sequence[float]) -> bool:
    """Return whether numbers vary threefold or more and their logarithms are spread more evenly than they are."""
    low, high = min(numbers), max(numbers)
    if low <= 0 or high / low < 3:
        return False
    middle = float(np.median(numbers))
    linear = abs((middle - low) / (high - low) - 0.5)
    logarithmic = abs(math.log(middle / low) / math.log(high / low) - 0.5)
    return logarithmic < linear


def parallel(runs: Sequence[SweepRun], keys: Sequence[str]) -> bytes:
    """Return a figure with a line for each finished run, through its values of the keys to its score."""
    scores = np.array([run.sampled for run in runs])
    low = scores.min()
    span = max(scores.max() - low, 1e-9)
    figure = figures.load_figure()(figsize=(2.2 + 1.9 * len(keys), 4.2), layout="constrained")
    panel = figure.subplots()
    values = [[run.config.get(key) for run in runs] for key in keys]
    axes = [axis_of(column) for column in values]
    columns = [_places(axis, column, scores) for axis, column in zip(axes, values, strict=True)]
    _draw_bands(panel, axes)
    _draw_lines(panel, np.column_stack([*columns, (scores - low) / span]))
    _draw_axes(panel, axes)
    for value in np.linspace(low, low + span, 5):
        panel.text(
            len(keys) + 0.03, (value - low) / span, f"{value:.{3 if span < 0.1 else 2}f}", va="center", fontsize=8
        )
    panel.set(xlim=(-0.05, len(keys) + 0.25), ylim=(-0.03, 1.03), yticks=[], title=f"{len(runs)} finished runs")
    panel.set_xticks(range(len(keys) + 1), [*map(short_key, keys), "normalised score"], fontsize=9)
    panel.spines[:].set_visible(False)
    panel.tick_params(length=0)
    return figures.png(figure)


def _places(axis: Axis, values: Sequence[Any], scores: np.ndarray) -> np.ndarray:
    """Return the places of runs on an axis, f64[runs]. Runs with the same value are spread in the order of scores."""
    places = np.array([axis.place(value) for value in values])
    rank = (np.argsort(np.argsort(scores)) + 0.5) / len(scores) - 0.5
    return places if axis.continuous else places + rank * WIDTH / len(axis.ticks)


def _draw_bands(panel: Any, axes: Sequence[Axis]) -> None:
    """Draw the bands through which runs with the same value pass."""
    for k, axis in enumerate(axes):
        for tick in [] if axis.continuous else axis.ticks:
            half = WIDTH / len(axis.ticks) / 2
            ends = (axis.place(tick) - half, axis.place(tick) + half)
            panel.plot((k, k), ends, color="0.88", linewidth=9, solid_capstyle="butt", zorder=0)


def _draw_lines(panel: Any, places: np.ndarray) -> None:
    """Draw a line for each run, the best ones on top. places: f64[runs, axes], the last of which is the score."""
    from matplotlib import colormaps

    t = np.linspace(0, 1, 25)
    bend = t * t * (3 - 2 * t)  # level at both ends, so that lines can be told apart where they cross an axis
    x = np.concatenate([k + t for k in range(places.shape[1] - 1)])
    for line in places[np.argsort(places[:, -1])]:
        y = np.concatenate([a + (b - a) * bend for a, b in itertools.pairwise(line)])
        panel.plot(x, y, color=colormaps["viridis"](line[-1]), linewidth=1.8, alpha=0.85)


def _draw_axes(panel: Any, axes: Sequence[Axis]) -> None:
    box = {"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 1}
    for k, axis in enumerate(axes):
        panel.axvline(k, color="black", linewidth=0.8)
        for tick in axis.ticks:
            panel.text(k + 0.03, axis.place(tick), short(tick), va="center", fontsize=8, bbox=box)
    panel.axvline(len(axes), color="black", linewidth=0.8)  # the axis of the score


def importance(runs: Sequence[SweepRun], keys: Sequence[str]) -> tuple[dict[str, float], str]:
    """Return how much of the differences between final scores each key explains, and how that was measured.

    There are no shares if there are no keys, or if all scores are the same.
    """
    scores = np.array([run.sampled for run in runs])
    if not keys or np.ptp(scores) < 1e-12:
        return {}, ""
    columns = {key: [run.config.get(key) for run in runs] for key in keys}
    if len(runs) >= ENOUGH and len(keys) > 1 and (shares := ped_anova(columns, scores)):
        return shares, "PED-ANOVA: what sets the best runs apart"
    shares = {key: share_of_variance(values, scores) for key, values in columns.items()}
    return {key: share for key, share in shares.items() if not math.isnan(share)}, "adjusted share of the variance"


def share_of_variance(values: Sequence[Any], scores: np.ndarray) -> float:
    """Return the share of the variance of scores that lies between groups of runs with the same value.

    It is corrected for what chance would give: epsilon squared (Kelley 1935).

    Args:
        values: of a key, one for each run. Many numbers are sorted into PARTS groups of equal size.
        scores: f64[runs].

    Returns:
        The share, or NaN if every group has a single run.
    """
    labels = [str(value) for value in values]
    if _has_many_numbers(values):
        quarters = np.quantile(np.array(values, float), [0.25, 0.5, 0.75])
        labels = [str(k) for k in np.searchsorted(quarters, values)]
    groups = [scores[[label == other for other in labels]] for label in dict.fromkeys(labels)]
    if len(groups) == len(scores):
        return math.nan
    total = float(((scores - scores.mean()) ** 2).sum())
    within = float(sum(((group - group.mean()) ** 2).sum() for group in groups))
    by_chance = (len(groups) - 1) * within / (len(scores) - len(groups))
    return max(0.0, (total - within - by_chance) / total)


def _has_many_numbers(values: Sequence[Any]) -> bool:
    return len(set(map(str, values))) > PARTS and all(map(is_number, values))


def ped_anova(columns: Mapping[str, list[Any]], scores: np.ndarray) -> dict[str, float]:
    """Return the importance of each key according to Optuna's PED-ANOVA; none if Optuna is not installed.

    Args:
        columns: values of each key, one for each run.
        scores: f64[runs].
    """
    try:
        import optuna
    except ImportError:
        return {}
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    numeric = {key: _has_many_numbers(values) for key, values in columns.items()}
    space: dict[str, Any] = {}
    for key, values in columns.items():
        if numeric[key]:
            log = is_logarithmic(values)
            space[key] = optuna.distributions.FloatDistribution(float(min(values)), float(max(values)), log=log)
        else:
            space[key] = optuna.distributions.CategoricalDistribution(sorted(set(map(str, values))))
    study = optuna.create_study(direction="maximize")
    for k, score in enumerate(scores):
        params = {key: float(values[k]) if numeric[key] else str(values[k]) for key, values in columns.items()}
        study.add_trial(optuna.trial.create_trial(params=params, distributions=space, value=float(score)))
    evaluator = optuna.importance.PedAnovaImportanceEvaluator()
    return dict(optuna.importance.get_param_importances(study, evaluator=evaluator))


def bars(shares: dict[str, float], measure: str, count: int) -> bytes:
    """Return a figure with a bar for each key.

    Args:
        shares: importance of each key.
        measure: how it was measured.
        count: of runs.
    """
    keys = sorted(shares, key=lambda key: shares[key])
    figure = figures.load_figure()(figsize=(6, 1.3 + 0.4 * len(keys)), layout="constrained")
    panel = figure.subplots()
    drawn = panel.barh([*map(short_key, keys)], [shares[key] for key in keys], color="tab:blue", height=0.6)
    panel.bar_label(drawn, [f"{shares[key]:.2f}" for key in keys], padding=4, fontsize=9)
    panel.set(xlim=(0, 1.1), xlabel=measure, title=f"What final scores depend on, {count} runs")
    panel.spines[["top", "right"]].set_visible(False)
    return figures.png(figure)


def curves(runs: Sequence[SweepRun], keys: Sequence[str]) -> bytes:
    """Return a figure of normalised scores over agent-steps, with a curve for each set of values of the keys.

    A curve is the interquartile mean of runs that differ in their seeds only, between the lowest and the highest.
    Scores are means over a twentieth of a run. Only the best curves are drawn if there are many.
    """
    from matplotlib.ticker import EngFormatter

    groups: dict[str, list[SweepRun]] = {}
    for run in runs:
        label = ", ".join(short(run.config.get(key)) for key in keys) or "all runs"
        groups.setdefault(label, []).append(run)
    best = sorted(groups, key=lambda label: max(map(merit, groups[label])), reverse=True)[:CURVES]
    figure = figures.load_figure()(figsize=(6.4, 3.9 + 0.18 * len(best)), layout="constrained")
    panel = figure.subplots()
    for k, label in enumerate(sorted(best)):
        band(panel, groups[label], label, f"C{k}")
    panel.axhline(1, color="black", linewidth=0.8, linestyle=":")
    hidden = f"the best {CURVES} of {len(groups)}" if len(groups) > CURVES else ""
    panel.set(xlabel="agent-steps", ylabel="normalised score", title=hidden)
    panel.xaxis.set_major_formatter(EngFormatter(sep=""))
    panel.spines[["top", "right"]].set_visible(False)
    panel.legend(title=", ".join(map(short_key, keys)), fontsize=8, title_fontsize=8, **BELOW)
    return figures.png(figure)


def merit(run: SweepRun) -> tuple[float, float]:
    """Return the key by which runs are ordered: the final score, then the end of the curve.

    Runs without a final score come last.
    """
    return (run.sampled if run.scored else -math.inf, float(run.scores[-1]))


def band(panel: Any, runs: Sequence[SweepRun], label: str, colour: str) -> None:
    """Draw the curve of some runs over the steps that all of them have made."""
    x = np.linspace(max(run.steps[0] for run in runs), min(run.steps[-1] for run in runs), POINTS)
    y = np.array([np.interp(x, run.steps, smooth(run.scores)) for run in runs])  # [runs, POINTS]
    panel.plot(x, interquartile_mean(y.T[:, None]), color=colour, linewidth=1.8, label=f"{label} ({len(runs)})")
    panel.fill_between(x, y.min(0), y.max(0), color=colour, alpha=0.18, linewidth=0)


def smooth(scores: np.ndarray) -> np.ndarray:
    """Return the means of scores over the last twentieth of all iterations, f64[iterations].

    The first ones are means over fewer iterations.
    """
    window = max(1, len(scores) // SMOOTH)
    sums = np.cumsum(scores)
    before = np.concatenate([np.zeros(window), sums[:-window]])
    return (sums - before) / np.minimum(np.arange(1, len(scores) + 1), window)
