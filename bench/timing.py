"""Measuring on a shared machine: cases take turns, and the result is their ratio to a limit."""

import json
import platform
import re
import resource
import sys
import textwrap
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import numba
import numpy as np
import torch
from numba import njit, prange
from rich.console import Console
from rich.table import Table

from particle_grid.env import ParticleGrid
from particle_grid.sim.simd import copy_row

T = TypeVar("T")
ROUNDS = 5  # the least number of measurements of a case
TELL = 10.0  # seconds between two reports of progress
HEADING = 12  # characters in a line of a column's heading


def announced(what: str, items: Iterable[T]) -> Iterator[T]:
    """Yield the items and name each one on stderr, so that a long run shows from the start what it does."""
    items = list(items)
    for k, item in enumerate(items, 1):
        name = item if isinstance(item, str) else " ".join(map(str, item))  # type: ignore[call-overload]
        print(f"{what} {k} of {len(items)}: {name}", file=sys.stderr, flush=True)
        yield item


def interleaved(cases: dict[str, Callable[[], float]], seconds: float) -> dict[str, np.ndarray]:
    """Run the cases in turn for about `seconds`, after a warm-up round, and return the seconds of each case by round.

    A case returns the seconds that it measured itself, without its preparation.
    """
    for name in announced("Warming up", cases):  # compiles and allocates
        cases[name]()
    print(f"Measuring for {seconds:.0f} s", file=sys.stderr, flush=True)
    times: dict[str, list[float]] = {name: [] for name in cases}
    begin = time.perf_counter()
    told = begin
    while time.perf_counter() - begin < seconds or len(times[next(iter(cases))]) < ROUNDS:
        for name, case in cases.items():
            times[name].append(case())
        if time.perf_counter() - told > TELL:
            told = time.perf_counter()
            print(f"{told - begin:.0f} s, round {len(times[name])}", file=sys.stderr, flush=True)
    return {name: np.array(values) for name, values in times.items()}


@njit(parallel=True, error_model="numpy")
def _copy_windows(cells, position, agents, cells_of_world, stride, rows, observations):
    for i in prange(position.shape[1]):
        corner = (rows.ndim // 2) * (stride + 1)
        start = i // agents * cells_of_world + int(position[0, i]) * stride + int(position[1, i]) - corner
        for row in range(rows.ndim):  # a compile-time constant, so the loop is unrolled
            copy_row(observations, i * observations.shape[1] + row * rows.ndim, cells, start + row * stride)


def window_copy(env: ParticleGrid) -> Callable[[], None]:
    """Return the limit: a function that only copies the window of each agent. The environment must have been reset."""
    target, grid = np.zeros_like(env.observations), env.state.grid
    shape = env.world.agents, grid[0].size, grid.shape[2]
    arguments = grid.reshape(-1), env.state.position, *shape, env.rules.window_rows
    return lambda: _copy_windows(*arguments, target)


def timed(function: Callable[[], Any], repeat: int = 1) -> float:
    """Return the mean seconds of a call over `repeat` calls."""
    begin = time.perf_counter()
    for _ in range(repeat):
        function()
    return (time.perf_counter() - begin) / repeat


def peak() -> float:
    """Return the peak memory of this process in MB."""
    with suppress(OSError):  # on Linux, getrusage may include memory that the parent held when it started this process
        if found := re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text("utf-8")):
            return int(found[1]) / (1 << 10)
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / (1 << 20 if sys.platform == "darwin" else 1 << 10)


def machine() -> dict[str, Any]:
    """Describe the machine and the versions that the figures belong to."""
    names = [line.split(":")[1].strip() for line in _cpuinfo() if line.startswith("model name")]
    return {
        "processor": names[0] if names else platform.processor() or platform.machine(),
        "python": platform.python_version(),
        "numba": numba.__version__,
        "torch": torch.__version__,
        "numba_threads": numba.get_num_threads(),
        "torch_threads": torch.get_num_threads(),
    }


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []


def report(title: str, columns: list[str], rows: list[dict[str, Any]], path: str | None, **more: Any) -> None:
    """Print rows as a table, and write them with the machine, and with anything more, as JSON if there is a path."""
    info = machine()
    show(f"{title} ({info['processor']})", columns, rows)
    if path:
        figures = {"title": title, "machine": info, "rows": rows, **more}
        Path(path).write_text(json.dumps(figures, indent=1) + "\n", "utf-8")


def show(title: str, columns: list[str], rows: list[dict[str, Any]]) -> None:
    """Print rows as a table. Only its headings are wrapped, and a row may lack a column."""
    table = Table(title=title, title_justify="left", title_style="")
    for name in columns:
        table.add_column("\n".join(textwrap.wrap(name, HEADING)), no_wrap=True)
    for row in rows:
        cells = (row.get(name, "-") for name in columns)
        table.add_row(*[f"{x:,.2f}" if isinstance(x, float) else str(x) for x in cells])
    Console(width=200).print(table)


def plot_lines(rows: list[dict[str, Any]], axes: dict[str, dict[str, Any]], value: str, path: str) -> None:
    """Draw a value against each axis in its own panel, using the rows that have the fixed values of that axis.

    A case is a line: its first word selects the colour, the others the style.
    """
    try:
        from matplotlib import colormaps
        from matplotlib.figure import Figure
    except ImportError:
        raise SystemExit('A plot needs Matplotlib: pip install -e ".[plot]"') from None
    figure = Figure(figsize=(5.5 * len(axes), 4.2), layout="constrained")
    words = sorted({row["case"].split()[0] for row in rows})
    for (axis, fixed), panel in zip(axes.items(), figure.subplots(1, len(axes), squeeze=False)[0], strict=True):
        kept = [row for row in rows if all(row[key] == only for key, only in fixed.items())]
        for name in dict.fromkeys(row["case"] for row in kept):
            points = [(row[axis], row[value]) for row in kept if row["case"] == name]
            style = {"linestyle": ":" if name.endswith("continuous") else "-", "marker": "o", "markersize": 4}
            colour = "black" if name == "window copy" else colormaps["tab10"](words.index(name.split()[0]))
            panel.plot(*zip(*points, strict=True), label=name, color=colour, linewidth=1.2, **style)
        ticks = sorted({row[axis] for row in kept})
        panel.set(xlabel=axis, ylabel=value, title=", ".join(f"{key}: {only:,}" for key, only in fixed.items()))
        panel.set_ylim(0)
        panel.set_xscale("log", base=2)
        panel.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    figure.legend(*panel.get_legend_handles_labels(), loc="outside right center", fontsize=8)
    figure.savefig(path, dpi=120)
