"""What a training run shows while it runs: a small dashboard in a terminal, plain lines elsewhere."""

from collections import deque
from collections.abc import Mapping, Sequence
from itertools import pairwise
from time import perf_counter

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

REFRESH, LINE_EVERY = 0.25, 10.0  # seconds
BARS = "▁▂▃▄▅▆▇█"
FIGURES = {  # label -> scalar, format
    "score": ("score", ".3f"),
    "normalised": ("normalised_score", ".3f"),
    "reward": ("env/reward", ".4f"),
    "moved": ("env/moved", ".0%"),
    "entropy": ("policy/entropy", ".3f"),
    "log std": ("policy/log_std", ".3f"),
    "KL": ("policy/kl", ".4f"),
    "clipped": ("policy/clip_fraction", ".1%"),
    "explained": ("value/explained_variance", ".2f"),
}
SHARES = ("simulate", "infer", "learn")


class Dashboard:
    """Shows the scalars of a run of total_steps agent-steps. A context manager: leaving it restores the terminal.

    step: where a resumed run goes on. console: rich's, on stdout by default; a file or pipe gets a plain line at most
    every 10 seconds, and one at the end.
    """

    def __init__(self, total_steps: int, step: int = 0, console: Console | None = None) -> None:
        self.total, self.step, self.console = total_steps, step, console or Console()
        self.scalars: dict[str, float] = {}
        self.fresh = False  # whether there is anything that has not been shown
        self.scores: deque[float] = deque(maxlen=512)  # of the last iterations
        self.shown = perf_counter()
        self.first: tuple[int, float] | None = None  # steps and time after the first iteration, which may compile
        self.live = Live(console=self.console, auto_refresh=False) if self.console.is_terminal else None

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        """Takes the scalars of an iteration. Draws at most 4 times a second."""
        self.step = step
        self.scalars |= scalars
        self.fresh = True
        score = scalars.get("normalised_score", scalars.get("score"))
        if score is not None:
            self.scores.append(score)
        now = perf_counter()
        self.first = self.first or (step, now)
        if now - self.shown >= (REFRESH if self.live else LINE_EVERY):
            self.shown = now
            self.show()

    def show(self) -> None:
        """Draws, or prints a line."""
        self.fresh = False
        if self.live:
            self.live.update(self.panel(), refresh=True)
        elif self.scalars:
            self.console.print(self.line(), soft_wrap=True, highlight=False, markup=False)

    def figures(self) -> dict[str, str]:
        """Label -> number as text, for all that is known."""
        return {label: format(self.scalars[k], form) for label, (k, form) in FIGURES.items() if k in self.scalars}

    def progress(self) -> str:
        """Return the steps done and, from the second iteration on, the speed and the time that is left."""
        done = f"{self.step / 1e6:.2f}M of {self.total / 1e6:.2f}M steps"
        if self.first is None or self.step == self.first[0]:
            return done
        speed = (self.step - self.first[0]) / max(perf_counter() - self.first[1], 1e-9)
        left = max(self.total - self.step, 0) / max(speed, 1e-9)
        eta = f"{left / 60:.0f} min left" if left >= 120 else f"{left:.0f} s left"
        return f"{done}, {speed / 1e3:.1f}k/s, {eta}"

    def line(self) -> str:
        """All of it in a line."""
        return ", ".join([self.progress(), *(f"{label} {number}" for label, number in self.figures().items())])

    def panel(self) -> Group:
        """All of it in a few lines: progress, figures in columns, shares of time, the score's history."""
        bar = Table.grid(padding=(0, 1), expand=True)
        bar.add_column(ratio=1)
        bar.add_column(no_wrap=True)
        bar.add_row(ProgressBar(self.total, min(self.step, self.total)), self.progress())
        figures = Table.grid(padding=(0, 3))
        numbers = self.figures() | {
            k: f"{self.scalars[f'perf/{k}']:.0%}" for k in SHARES if f"perf/{k}" in self.scalars
        }
        cells = [Text.assemble((label, "dim"), " ", number) for label, number in numbers.items()]
        for start in range(0, len(cells), 4):
            figures.add_row(*cells[start : start + 4])
        return Group(bar, figures, sparkline(self.scores))

    def __enter__(self) -> "Dashboard":
        if self.live:
            self.live.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        try:
            if self.fresh:
                self.show()
        finally:
            if self.live:
                self.live.stop()


def sparkline(values: Sequence[float], width: int = 64) -> str:
    """Values as a row of at most `width` bars, each the mean of an equal share, from the least to the largest."""
    values, count = list(values), min(width, len(values))
    edges = [len(values) * k // count for k in range(count + 1)] if count else []
    means = [sum(values[a:b]) / (b - a) for a, b in pairwise(edges)]
    if not means:
        return ""
    low, span = min(means), max(means) - min(means) or 1.0
    return "".join(BARS[min(int((x - low) / span * len(BARS)), len(BARS) - 1)] for x in means)
