"""Statistics of runs: what several seeds on several tasks say, and how surely.

Scores are f64[..., tasks, runs]: the unit is the run, never the agent or the evaluation. After Agarwal et al., "Deep
Reinforcement Learning at the Edge of the Statistical Precipice", 2021. Leading axes are resamples.
"""

from collections.abc import Callable

import numpy as np

Statistic = Callable[..., np.ndarray]  # of one or two arrays of scores f64[..., tasks, runs] -> f64[..., K] or f64[...]
RESAMPLES, LEVEL = 2000, 0.95


def interquartile_mean(scores: np.ndarray) -> np.ndarray:
    """The mean of the middle half of all runs of all tasks, f64[...]; where the quarters cut through a run, of a part
    of it. As robust as a median nearly, and uses four times as many runs."""
    x = np.sort(scores.reshape(*scores.shape[:-2], -1), -1)  # [..., tasks, runs] -> [..., n]
    n = x.shape[-1]
    weights = np.clip(np.minimum(np.arange(1, n + 1) - n / 4, 3 * n / 4 - np.arange(n)), 0, 1)
    return (x * weights).sum(-1) / weights.sum()


def mean(scores: np.ndarray) -> np.ndarray:
    """The mean of all runs of all tasks, f64[...]."""
    return scores.mean((-2, -1))


def performance_profile(thresholds: np.ndarray) -> Statistic:
    """Gives f64[..., K]: the share of runs that score more than each of K thresholds (Dolan and More 2002)."""
    return lambda scores: (scores[..., None] > thresholds).mean((-3, -2))


def probability_of_improvement(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """How probably a run of x scores more than one of y on the same task, averaged over tasks, f64[...]; ties count
    half (Mann and Whitney 1947). The numbers of runs may differ."""
    more, less = (x[..., :, None] > y[..., None, :]), (x[..., :, None] < y[..., None, :])  # [..., tasks, runs, runs]
    return 0.5 + 0.5 * (more.mean((-3, -2, -1)) - less.mean((-3, -2, -1)))


def paired_difference(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The mean of x - y over runs with the same seed, for each task, f64[..., tasks]."""
    return (x - y).mean(-1)


def interval(
    statistic: Statistic,
    *scores: np.ndarray,
    paired: bool = False,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Low and high end of a statistic's confidence interval, each as the statistic itself: percentiles of a bootstrap
    stratified by task, so that each resample has as many runs of each task.

    paired: draws the same runs from all arrays, for statistics of runs with the same seeds. Raises ValueError for
    scores of less than two runs, which say nothing about spread, or with gaps, or of other tasks than the others."""
    for x in scores:
        if x.ndim != 2 or x.shape[1] < 2 or not np.isfinite(x).all():
            raise ValueError(f"Scores {list(x.shape)} have no interval: give finite [tasks, runs] with 2 runs or more.")
    shapes = [list(x.shape) for x in scores]
    if len({shape[0] for shape in shapes}) > 1 or (paired and len({shape[1] for shape in shapes}) > 1):
        alike = "tasks and runs" if paired else "tasks"
        raise ValueError(f"Scores {shapes} do not go together: give as many {alike} in each.")
    if not 0 < level < 1:
        raise ValueError(f"level={level} is no level of confidence: give a share above 0 and below 1, such as {LEVEL}.")
    if type(resamples) is not int or resamples < 1:
        raise ValueError(f"resamples={resamples} cannot be: give a whole number from 1 on, such as {RESAMPLES}.")
    generator = np.random.default_rng(seed)

    def draw(x: np.ndarray) -> np.ndarray:
        return generator.integers(0, x.shape[1], (resamples, *x.shape))

    shared = draw(scores[0]) if paired else None
    drawn = [np.take_along_axis(x[None], draw(x) if shared is None else shared, -1) for x in scores]
    ends = np.quantile(statistic(*drawn), [(1 - level) / 2, (1 + level) / 2], axis=0)
    return ends[0], ends[1]
