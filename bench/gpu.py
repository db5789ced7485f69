"""Check, profile and measure training on a GPU. Each result is written as soon as it is known.

    python bench/gpu.py --check                          # whether everything computes what it should, in minutes
    python bench/gpu.py --profile                        # launches and idle time of an iteration
    python bench/gpu.py --matrix --learn --budget 600    # agent-steps per second, and time to score
    python bench/gpu.py --device cpu --budget 60         # all of it as a dry run, whose figures mean nothing

Without any of these four parts, all of them run. Once the budget is spent, the remaining cases are skipped, and the
file names them.

Checks compare with float64 on the CPU (`network`), with an update that must find ratios of one (`ratio`), with plain
steps instead of captured ones (`graphs`), and with a run that was not interrupted (`resume`). `uneven` trains with
minibatches of two sizes, and `shapes` computes more shapes than torch compiles.
"""

import argparse
import json
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import torch
from gpu_checks import checks
from interrupt import until_interrupted
from rich.console import Console
from torch.profiler import ProfilerActivity, profile

from particle_grid.env import ACTIONS
from particle_grid.evaluation.baseline import baseline_for
from particle_grid.evaluation.match import SEEDS, steps_for
from particle_grid.experiments.training import Run, build, normaliser
from particle_grid.learn.distributed import ProcessGroup, choose_device
from particle_grid.learn.trainer import Trainer
from particle_grid.settings.compose import composed
from particle_grid.support import atomic

PARTS = ("check", "profile", "matrix", "learn")
WARM = 4  # iterations before a measurement: compilations and captures
MEASURED = 3  # iterations of which the median counts
LEVELS = (0.5, 1.0)  # normalised scores whose times are reported
TINY = ("world.height=64", "world.width=64", "policy.hidden=16", "trainer.rollout_length=8", "trainer.graphs=on")
Case = Callable[[], dict[str, Any]]


@dataclass(frozen=True)
class Size:
    """Sizes of the cases. common: overrides of every run."""

    common: tuple[str, ...]
    agents: tuple[int, ...]
    minibatches: tuple[int, ...]
    learn_steps: str

    def run(self, *overrides: str) -> Run:
        """Return a run with these overrides."""
        return build(composed([*self.common, *overrides]), None, ProcessGroup())


def size_for(device: torch.device) -> Size:
    """Return the sizes for a device: tiny ones on a CPU."""
    name = f"trainer.device={device}"
    if device.type == "cpu":
        return Size((name, *TINY), (64, 128), (256, 512), "trainer.total_steps=4096")
    return Size((name,), (4096, 32_768, 65_536), (2048, 8192, 16_384), "")


@dataclass
class Report:
    """The results, in a file that is complete after each case."""

    path: Path
    budget: float
    about: dict[str, Any]
    begin: float = field(default_factory=time.perf_counter)
    rows: list[dict[str, Any]] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)

    def run(self, name: str, case: Case) -> None:
        """Run a case unless the budget is spent, and write its figures, or why it failed."""
        if time.perf_counter() - self.begin > self.budget:
            self.skipped.append(name)
        else:
            start = time.perf_counter()
            row: dict[str, Any] = {"case": name}
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always", RuntimeWarning)
                try:
                    row |= case()
                except Exception as error:  # the other cases may work
                    row |= {"ok": False, "error": f"{type(error).__name__}: {error}"}
            row |= {"warnings": [str(x.message) for x in caught], "seconds": round(time.perf_counter() - start, 1)}
            self.rows.append(row)
            print(json.dumps(row), flush=True)
        content = {"about": self.about, "rows": self.rows, "skipped": self.skipped}
        atomic.write(self.path, (json.dumps(content, indent=1) + "\n").encode())


def iterate(trainer: Trainer) -> float:
    """Run one iteration, and return its agent-steps per second."""
    begin = time.perf_counter()
    trainer.rollout()
    trainer.update()  # which waits for the GPU at its end
    return trainer.batch / (time.perf_counter() - begin)


def speed(size: Size, *overrides: str) -> dict[str, Any]:
    """Return the median speed of a run, and how it spends its time."""
    trainer = size.run(*overrides).trainer()
    for _ in range(WARM):
        iterate(trainer)
    rates = [iterate(trainer) for _ in range(MEASURED)]
    parts = {name: round(seconds, 4) for name, seconds in trainer.seconds.items()}
    return {"steps_per_second": round(median(rates)), "rates": list(map(round, rates)), **parts, "how": trainer.how}


def profiled(size: Size, *overrides: str) -> dict[str, Any]:
    """Return how many operations an iteration launches, and for which share of it the GPU is busy."""
    trainer = size.run(*overrides).trainer()
    for _ in range(WARM):
        iterate(trainer)
    gpu = trainer.device.type == "cuda"
    with profile(activities=[ProfilerActivity.CPU, *[ProfilerActivity.CUDA] * gpu]) as profiler:
        begin = time.perf_counter()
        iterate(trainer)
        seconds = time.perf_counter() - begin
    events = profiler.events() or []
    kernels = [event for event in events if event.device_type == torch.autograd.DeviceType.CUDA]
    calls = [event for event in events if event.name in ("cudaLaunchKernel", "cuLaunchKernel", "cudaGraphLaunch")]
    busy = sum(event.time_range.elapsed_us() for event in kernels) / 1e6
    minibatches = -(-trainer.batch // trainer.config.minibatch) * trainer.config.epochs
    return {
        "kernels": len(kernels),
        "launches": len(calls),
        "kernels_per_minibatch": len(kernels) / minibatches,
        "busy": busy / seconds,
        "seconds_of_iteration": seconds,
    }


class Scores:
    """Records when the normalised score of a run reaches each level, in agent-steps and in seconds."""

    def __init__(self) -> None:
        self.begin = time.perf_counter()
        self.reached: dict[str, float] = {}
        self.last: float | None = None

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        """Take the scalars of an iteration."""
        self.last = scalars.get("env/normalised_score", self.last)
        for level in LEVELS:
            if self.last is not None and self.last >= level and f"seconds_to_{level}" not in self.reached:
                self.reached |= {f"steps_to_{level}": step, f"seconds_to_{level}": time.perf_counter() - self.begin}


def learnt(size: Size, *overrides: str) -> dict[str, Any]:
    """Train to the end, and return the last normalised score in training and the times to the levels."""
    run = size.run(*overrides, *filter(None, [size.learn_steps]))
    baseline = baseline_for(run.env, Console(quiet=True), SEEDS, steps_for(run.env))
    scores = Scores()
    trainer = run.trainer(loggers=[scores], normalise=normaliser(run.env, baseline))
    result = trainer.run()
    seconds = time.perf_counter() - scores.begin
    return {"score": scores.last, "steps": result.steps, "seconds_of_training": seconds, **scores.reached}


def matrix(size: Size) -> Iterator[tuple[str, Case]]:
    """Yield a case for each number of agents, minibatch and number of splits. Each world has the fewest agents."""
    least = size.agents[0]
    for agents in size.agents:
        for minibatch in size.minibatches:
            for splits in (1, 2):
                if agents // least % splits == 0:
                    chosen = [f"world.worlds={agents // least}", f"world.agents={least}"]
                    chosen += [f"trainer.minibatch={minibatch}", f"trainer.env_splits={splits}"]
                    yield f"matrix {' '.join(chosen)}", lambda chosen=chosen: speed(size, *chosen)


def cases(parts: list[str], size: Size) -> Iterator[tuple[str, Case]]:
    """Yield the names and functions of all cases of these parts."""
    few = (f"world.agents={size.agents[0]}", f"trainer.minibatch={size.minibatches[0]}")
    if "check" in parts:
        yield from checks(size.run, few)
    if "profile" in parts:
        for graphs in ("off", "on"):
            yield f"profile graphs={graphs}", lambda graphs=graphs: profiled(size, f"trainer.graphs={graphs}")
    if "matrix" in parts:
        yield from matrix(size)
    if "learn" in parts:
        for action in ACTIONS:
            yield f"learn center {action}", lambda action=action: learnt(size, "task=center", f"action={action}")
        for task in ("group", "forage", "puffer"):
            preset = (f"task={task}", "experiment=gpu")
            small = ("world.agents=32",) if size.learn_steps and task != "puffer" else ()
            yield f"learn {' '.join(preset)}", lambda all_of_it=(*preset, *small): learnt(size, *all_of_it)


def options() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for part in PARTS:
        parser.add_argument(f"--{part}", action="store_true")
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1 or, for a dry run, cpu")
    parser.add_argument("--budget", type=float, default=float("inf"), help="seconds after which no case begins")
    parser.add_argument("--json", type=Path, default=Path("outputs/gpu.json"), help="file for the results")
    return parser.parse_args()


def main() -> None:
    """Run the chosen parts."""
    chosen = options()
    device = choose_device(chosen.device)
    chosen.json.parent.mkdir(parents=True, exist_ok=True)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    report = Report(chosen.json, chosen.budget, {"device": name, "torch": torch.__version__})
    parts = [part for part in PARTS if getattr(chosen, part)] or list(PARTS)
    for case, function in cases(parts, size_for(device)):
        report.run(case, function)
    failed = [row["case"] for row in report.rows if not row.get("ok", True)]
    print(f"{len(report.rows)} cases, {len(failed)} failed, {len(report.skipped)} skipped: {chosen.json}")
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    until_interrupted(main)
