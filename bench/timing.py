"""Measuring on a machine that others use too: cases take turns, and what counts is their ratio to a limit."""

import json
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
import numpy as np
import torch
from numba import njit, prange
from rich.console import Console
from rich.table import Table

from particle_grid.env import ParticleGrid
from particle_grid.sim.simd import copy_row


def interleaved(cases: dict[str, Callable[[], float]], seconds: float) -> dict[str, np.ndarray]:
    """Runs the cases in turn for about `seconds`, after one round that does not count; seconds by case and round.

    A case returns the seconds that it took itself, without what it prepares."""
    for case in cases.values():  # compiles, allocates, warms up
        case()
    times: dict[str, list[float]] = {name: [] for name in cases}
    begin = time.perf_counter()
    while time.perf_counter() - begin < seconds or len(times[next(iter(cases))]) < 5:
        for name, case in cases.items():
            times[name].append(case())
    return {name: np.array(values) for name, values in times.items()}


@njit(parallel=True, error_model="numpy")
def _copy_windows(cells, position, agents, cells_of_world, stride, rows, observations):
    for i in prange(position.shape[1]):
        corner = (rows.ndim // 2) * (stride + 1)
        start = i // agents * cells_of_world + int(position[0, i]) * stride + int(position[1, i]) - corner
        for row in range(rows.ndim):  # of known number, so the loop is unrolled
            copy_row(observations, i * observations.shape[1] + row * rows.ndim, cells, start + row * stride)


def window_copy(env: ParticleGrid) -> Callable[[], None]:
    """The limit: copies the window of each agent of an environment, and does nothing else."""
    target, grid = np.zeros_like(env.observations), env.state.grid
    arguments = grid.reshape(-1), env.state.position, env.world.agents, grid[0].size, grid.shape[2], env.rules.rows
    return lambda: _copy_windows(*arguments, target)


def timed(function: Callable[[], Any], repeat: int = 1) -> float:
    """Seconds of one call, on average over `repeat` of them."""
    begin = time.perf_counter()
    for _ in range(repeat):
        function()
    return (time.perf_counter() - begin) / repeat


def machine() -> dict[str, Any]:
    """What the figures belong to."""
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


def report(title: str, columns: list[str], rows: list[dict[str, Any]], path: str | None) -> None:
    """Prints rows as a table, and writes them with the machine as JSON if there is a path."""
    info = machine()
    table = Table(*columns, title=f"{title} ({info['processor']})", title_justify="left", title_style="")
    for row in rows:
        table.add_row(*[f"{x:,.2f}" if isinstance(x, float) else str(x) for x in (row[name] for name in columns)])
    Console(width=120).print(table)
    if path:
        Path(path).write_text(json.dumps({"title": title, "machine": info, "rows": rows}, indent=1) + "\n", "utf-8")


def plot_lines(rows: list[dict[str, Any]], axes: list[str], value: str, path: str) -> None:
    """Draws a value against each of the axes, a line a case, where the other axes have their first value."""
    try:
        from matplotlib import colormaps
        from matplotlib.figure import Figure
    except ImportError:
        raise SystemExit('A plot needs Matplotlib: pip install -e ".[bench]"') from None
    figure = Figure(figsize=(5.5 * len(axes), 4.2), layout="constrained")
    names = sorted({row["case"] for row in rows})
    for place, (axis, panel) in enumerate(zip(axes, figure.subplots(1, len(axes), squeeze=False)[0], strict=True)):
        fixed = {other: rows[0][other] for other in axes if other != axis}
        for k, name in enumerate(names):
            points = [row for row in rows if row["case"] == name and all(row[a] == v for a, v in fixed.items())]
            style = "k--" if name == "window copy" else "o-" if k % 2 else "s:"
            colour = {} if style == "k--" else {"color": colormaps["viridis"](k / len(names))}
            x, y = [row[axis] for row in points], [row[value] for row in points]
            panel.plot(x, y, style, label=name, markersize=4, linewidth=1.2, **colour)
        panel.set(xlabel=axis, ylabel=value, ylim=(0, None), title=", ".join(f"{v} {a}" for a, v in fixed.items()))
        panel.set_xscale("log", base=2)
        panel.set_xticks(sorted({row[axis] for row in rows}), [f"{x:,}" for x in sorted({row[axis] for row in rows})])
        if place == len(axes) - 1:
            figure.legend(*panel.get_legend_handles_labels(), loc="outside right center", fontsize=8)
    figure.savefig(path, dpi=120)
