"""Ratings of the participants of a tournament, with their uncertainty, as a table, CSV files and a picture."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from particle_grid.evaluation import figures
from particle_grid.support import optional, records

RATINGS = "ratings.csv"
MATRIX = "matrix.csv"
PICTURE = "ranking.png"
FILES = (RATINGS, MATRIX, PICTURE)
Rating = tuple[float, float]  # mean and standard deviation of the belief about a player's strength


def load_libraries() -> tuple[Any, Any]:
    """Return openskill's models and Matplotlib's Figure.

    Raises:
        UserError: if one of them is not installed, naming the extra that provides it.
    """
    return optional.load("openskill.models", "rank", "A ranking"), figures.load_figure()


def rate(contests: np.ndarray) -> list[Rating]:
    """Return the ratings of n players from the scores of contests: a higher score means a better rank.

    Plackett-Luce with Gaussian beliefs (Weng and Lin 2011), one contest after another. A new player is at 25 ± 8.3.

    Args:
        contests: f64[contests, n].
    """
    model = load_libraries()[0].PlackettLuce()
    players = [model.rating() for _ in range(contests.shape[1])]
    for scores in contests:
        ranks = [float((scores > score).sum()) for score in scores]
        players = [team[0] for team in model.rate([[player] for player in players], ranks=ranks)]
    return [(player.mu, player.sigma) for player in players]


def rate_teams(scores: np.ndarray) -> tuple[list[Rating], list[Rating]]:
    """Return the ratings of all players in the first team, and in the second.

    All that play the first team against the same second team with the same seed form a contest, and vice versa.

    Args:
        scores: f64[seeds, firsts, seconds, teams], of all matches.
    """
    first = scores[..., 0].transpose(0, 2, 1)  # [seeds, seconds, firsts]
    second = scores[..., 1]  # [seeds, firsts, seconds]
    return rate(first.reshape(-1, scores.shape[1])), rate(second.reshape(-1, scores.shape[2]))


def ranked(names: Sequence[str], teams: Sequence[str], scores: np.ndarray) -> "Ranking":
    """Return the ranking of the players with these names, from the scores of all matches.

    Args:
        names: of the n players.
        teams: names of the two teams.
        scores: f64[seeds, n, n, teams].
    """
    return Ranking(names, teams, scores.mean(0)[..., 0], rate_teams(scores))


@dataclass(frozen=True)
class Ranking:
    """Ratings of n players in both teams. matrix: f64[firsts, seconds], the mean score of the first team."""

    names: Sequence[str]
    teams: Sequence[str]
    matrix: np.ndarray
    ratings: tuple[list[Rating], list[Rating]]

    def by_team(self) -> Iterator[tuple[str, list[Rating]]]:
        """Yield the name of each team, and the ratings of all players in it."""
        return zip(self.teams, self.ratings, strict=True)

    def table(self) -> Table:
        """Return the ratings in both teams. The players with the best sum come first."""
        result = Table("", *(f"as {team}" for team in self.teams))
        order = sorted(range(len(self.names)), key=lambda k: -sum(team[k][0] for team in self.ratings))
        for k in order:
            result.add_row(self.names[k], *(f"{team[k][0]:z.1f} ± {team[k][1]:.1f}" for team in self.ratings))
        return result

    def meaning(self) -> str:
        """Return a sentence that says what a difference in rating means.

        In this model, i ranks above j in a contest of n players with the odds exp((mu_i - mu_j) / c), and c is
        sqrt(n) * beta for strengths that are known (Weng and Lin 2011, algorithm 4).
        """
        gap = math.log(3) * math.sqrt(len(self.names)) * load_libraries()[0].PlackettLuce().beta
        return f"A rating that is {gap:.1f} higher means a better score against the same opponent in 3 of 4 matches."

    def save(self, folder: Path) -> None:
        """Write the ratings, the matrix with a line for each player of the first team, and a picture of both."""
        rated = [
            [name, team, *rating]
            for team, ratings in self.by_team()
            for name, rating in zip(self.names, ratings, strict=True)
        ]
        records.write_table(folder / RATINGS, [["player", "team", "rating", "deviation"], *rated])
        header = [f"{self.teams[0]} (score) against {self.teams[1]}", *self.names]
        scored = [[name, *row] for name, row in zip(self.names, self.matrix.tolist(), strict=True)]
        records.write_table(folder / MATRIX, [header, *scored])
        figures.save(folder / PICTURE, self._figure())

    def _figure(self) -> Any:
        """Return a figure of the matrix and, next to it, of the ratings with bars of one standard deviation."""
        n = len(self.names)
        figure = load_libraries()[1](figsize=(6 + 0.75 * n, 2.4 + 0.42 * n), layout="constrained")
        matrix, *panels = figure.subplots(1, 3, width_ratios=[1 + n, 4, 4])
        self._draw_matrix(matrix)
        for panel, (team, ratings) in zip(panels, self.by_team(), strict=True):
            means, deviations = zip(*ratings, strict=True)
            panel.errorbar(means, range(n), xerr=deviations, fmt="o", color="tab:blue", capsize=3)
            panel.set(yticks=range(n), yticklabels=[], ylim=(n - 0.5, -0.5), title=f"rating as {team}")
            panel.grid(axis="x", alpha=0.3)
        return figure

    def _draw_matrix(self, axes: Any) -> None:
        first, second = self.teams
        places = range(len(self.names))
        image = axes.imshow(self.matrix, cmap="cividis", aspect="auto")
        axes.set(xticks=places, yticks=places, xlabel=second, ylabel=first, title=f"score of the {first}")
        axes.set_xticklabels(self.names, rotation=40, ha="right")
        axes.set_yticklabels(self.names)
        for (row, column), score in np.ndenumerate(self.matrix):
            color = "white" if image.norm(score) < 0.5 else "black"
            axes.text(column, row, f"{score:z.2f}", ha="center", va="center", fontsize=8, color=color)
