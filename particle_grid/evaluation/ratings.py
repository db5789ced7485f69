"""What a tournament says about those who took part: ratings with their uncertainty, as table, CSV and picture."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from particle_grid.support import figures, optional, records

Rating = tuple[float, float]  # mean and deviation of what is believed about a player's strength


def load_libraries() -> tuple[Any, Any]:
    """openskill's models and Matplotlib's Figure. Raises ValueError where they are not installed."""
    return optional.load("openskill.models", "rank", "A ranking"), figures.load_figure("rank", "A ranking")


def rate(contests: np.ndarray) -> list[Rating]:
    """Ratings of n players from the scores of contests, f64[contests, n]: whoever scores more is ranked before.

    Plackett-Luce with Gaussian beliefs (Weng and Lin 2011), one contest after another. A new player is at 25 ± 8.3."""
    model = load_libraries()[0].PlackettLuce()
    players = [model.rating() for _ in range(contests.shape[1])]
    for scores in contests:
        ranks = [float((scores > score).sum()) for score in scores]
        players = [team[0] for team in model.rate([[player] for player in players], ranks=ranks)]
    return [(player.mu, player.sigma) for player in players]


def rate_sides(scores: np.ndarray) -> tuple[list[Rating], list[Rating]]:
    """Ratings of both sides from the scores of all matches, f64[seeds, firsts, seconds, teams].

    A contest of the firsts is what they score against the same second with the same seed, and the other way round."""
    first = scores[..., 0].transpose(0, 2, 1)  # [seeds, seconds, firsts]
    return rate(first.reshape(-1, scores.shape[1])), rate(scores[..., 1].reshape(-1, scores.shape[2]))


def table(names: Sequence[str], kinds: Sequence[str], ratings: tuple[list[Rating], list[Rating]]) -> Table:
    """The ratings of both sides, the best of both together first."""
    result = Table("", *(f"as {kind}" for kind in kinds))
    order = sorted(range(len(names)), key=lambda k: -sum(side[k][0] for side in ratings))
    for k in order:
        result.add_row(names[k], *(f"{side[k][0]:.1f} ± {side[k][1]:.1f}" for side in ratings))
    return result


def save(
    folder: Path, names: Sequence[str], kinds: Sequence[str], scores: np.ndarray, ratings: Mapping[str, list[Rating]]
) -> None:
    """Writes ratings.csv, matrix.csv (the firsts' mean score, a line for each of them) and ranking.png."""
    mean = scores.mean(0)[..., 0]  # [firsts, seconds]
    rated = [[name, kind, *rating] for kind, side in ratings.items() for name, rating in zip(names, side, strict=True)]
    records.write_table(folder / "ratings.csv", [["player", "side", "rating", "deviation"], *rated])
    header = [f"{kinds[0]} (score) against {kinds[1]}", *names]
    scored = [[name, *row] for name, row in zip(names, mean.tolist(), strict=True)]
    records.write_table(folder / "matrix.csv", [header, *scored])
    draw(folder / "ranking.png", names, kinds, mean, ratings)


def draw(
    path: Path, names: Sequence[str], kinds: Sequence[str], mean: np.ndarray, ratings: Mapping[str, list[Rating]]
) -> None:
    """The matrix of scores, and the ratings with bars of one deviation beside it."""
    n, places = len(names), range(len(names))
    figure = load_libraries()[1](figsize=(6 + 0.75 * n, 2.4 + 0.42 * n), layout="constrained")
    matrix, *panels = figure.subplots(1, 3, width_ratios=[1 + n, 4, 4])
    image = matrix.imshow(mean, cmap="cividis", aspect="auto")
    matrix.set(xticks=places, yticks=places, xlabel=kinds[1], ylabel=kinds[0], title=f"score of the {kinds[0]}")
    matrix.set_xticklabels(names, rotation=40, ha="right")
    matrix.set_yticklabels(names)
    for row in places:
        for column in places:
            dark = image.norm(mean[row, column]) < 0.5
            text = f"{mean[row, column]:.2f}"
            matrix.text(column, row, text, ha="center", va="center", fontsize=8, color="white" if dark else "black")
    for panel, (kind, side) in zip(panels, ratings.items(), strict=True):
        means, deviations = zip(*side, strict=True)
        panel.errorbar(means, places, xerr=deviations, fmt="o", color="tab:blue", capsize=3)
        panel.set(yticks=places, yticklabels=[], ylim=(n - 0.5, -0.5), title=f"rating as {kind}")
        panel.grid(axis="x", alpha=0.3)
    figures.save(path, figure)
