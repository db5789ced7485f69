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

REFRESH = 0.25  # seconds between two drawings in a terminal
LINE_EVERY = 10.0  # seconds between two lines elsewhere
HISTORY = 512  # iterations whose scores are drawn
COLUMNS = 4  # columns of figures
BARS = "▁▂▃▄▅▆▇█"
FIGURES = {  # label -> scalar, format
    "score": ("env/score", "z.3f"),
    "score 1": ("env/score_1", "z.3f"),  # the first of two teams
    "score 2": ("env/score_2", "z.3f"),
    "normalised": ("env/normalised_score", "z.3f"),
    "reward": ("episode/reward", "z.4f"),
    "moved": ("policy/moved", "z.0%"),
    "entropy": ("policy/entropy", "z.3f"),
    "log std": ("policy/log_std", "z.3f"),
    "KL": ("policy/kl", "z.4f"),
    "clipped": ("policy/clip_fraction", "z.1%"),
    "explained": ("value/explained_variance", "z.2f"),
}
TIME_SHARES = {"simulate": ("perf/simulate", "z.0%"), "infer": ("perf/infer", "z.0%"), "learn": ("perf/learn", "z.0%")}


class Dashboard:
    """Shows the scalars of a run. A context manager: leaving it restores the terminal.

    Args:
        total_steps: agent-steps of the run.
        step: where a resumed run continues.
        console: rich's, on stdout by default. A file or pipe gets a plain line at most every 10 seconds, and one at the
            end.
    """

    def __init__(self, total_steps: int, step: int = 0, console: Console | None = None) -> None:
        self.total = total_steps
        self.step = step
        self.console = console or Console()
        self.scalars: dict[str, float] = {}
        self.stale = False  # whether there are scalars that have not been shown
        self.scores: deque[float] = deque(maxlen=HISTORY)
        self.shown = perf_counter()
        self.first: tuple[int, float] | None = None  # steps and time after the first iteration, which may compile
        self.live = Live(console=self.console, auto_refresh=False) if self.console.is_terminal else None

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        """Take the scalars of an iteration, and show them if it is time to."""
        self.step = step
        self.scalars |= scalars
        self.stale = True
        score = scalars.get("env/normalised_score", scalars.get("env/score"))
        if score is not None:
            self.scores.append(score)
        now = perf_counter()
        self.first = self.first or (step, now)
        if now - self.shown >= (REFRESH if self.live else LINE_EVERY):
            self.shown = now
            self.show()

    def show(self) -> None:
        """Draw the dashboard, or print a line."""
        self.stale = False
        if self.live:
            self.live.update(self.panel(), refresh=True)
        elif self.scalars:
            self.console.print(self.line(), soft_wrap=True, highlight=False, markup=False)

    def figures(self, labels: Mapping[str, tuple[str, str]] = FIGURES) -> dict[str, str]:
        """Return the scalars that are known, as text by label."""
        return {label: format(self.scalars[k], form) for label, (k, form) in labels.items() if k in self.scalars}

    def progress(self) -> str:
        """Return the steps done and, from the second iteration on, the speed and the remaining time."""
        whole = f" of {self.total / 1e6:.2f}M" if self.step < self.total else ""  # a run ends with a whole iteration
        done = f"{self.step / 1e6:.2f}M{whole} steps"
        if self.first is None or self.step == self.first[0]:
            return done
        speed = (self.step - self.first[0]) / max(perf_counter() - self.first[1], 1e-9)
        left = max(self.total - self.step, 0) / max(speed, 1e-9)
        eta = f"{left / 60:.0f} min left" if left >= 120 else f"{left:.0f} s left"
        return f"{done}, {speed / 1e3:.1f}k/s, {eta}"

    def line(self) -> str:
        """Return progress and figures in one line."""
        return ", ".join([self.progress(), *(f"{label} {number}" for label, number in self.figures().items())])

    def panel(self) -> Group:
        """Return progress, figures in columns, shares of time and the score's history."""
        bar = Table.grid(padding=(0, 1), expand=True)
        bar.add_column(ratio=1)
        bar.add_column(no_wrap=True)
        bar.add_row(ProgressBar(self.total, min(self.step, self.total)), self.progress())
        numbers = self.figures() | self.figures(TIME_SHARES)
        cells = [Text.assemble((label, "dim"), " ", number) for label, number in numbers.items()]
        grid = Table.grid(padding=(0, 3))
        for start in range(0, len(cells), COLUMNS):
            grid.add_row(*cells[start : start + COLUMNS])
        return Group(bar, grid, *self.history())

    def history(self) -> list[str]:
        """Return the score's history as bars with their range, once there is some."""
        if len(self.scores) < 2:
            return []
        label = "normalised score" if "env/normalised_score" in self.scalars else "score"
        means = shares(self.scores)
        return [f"{label} from {min(means):z.2f} to {max(means):z.2f}: {sparkline(means)}"]

    def __enter__(self) -> "Dashboard":
        if self.live:
            self.live.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        try:
            if self.stale:
                self.show()
        finally:
            if self.live:
                self.live.stop()


def shares(values: Sequence[float], most: int = 64) -> list[float]:
    """Return the means of at most `most` equal shares of values, in their order."""
    values = list(values)
    count = min(most, len(values))
    edges = [len(values) * k // count for k in range(count + 1)]
    return [sum(values[a:b]) / (b - a) for a, b in pairwise(edges)]


def sparkline(values: Sequence[float]) -> str:
    """Return a bar for each value, between the lowest and the highest."""
    low = min(values)
    span = max(values) - low or 1.0
    return "".join(BARS[min(int((x - low) / span * len(BARS)), len(BARS) - 1)] for x in values)
