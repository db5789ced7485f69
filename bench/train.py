"""Speed of training by default: the whole loop of simulation, inference and learning, beside other loops and its bound.

    python bench/train.py                                 # the defaults of TrainerConfig and World, on every core
    python bench/train.py --threads 1 2 --seconds 600     # also how much a second thread gains, and how much it could
    python bench/train.py --cases discrete --baseline ../old --json train.json
    python bench/train.py --cases "conv_lstm discrete" --cores 2 8 16 --seconds 60

Cases take turns, one iteration each, in equal worlds: this trainer in each precision and action form; a loop in the
style of CleanRL and sb3-contrib's RecurrentPPO with the same network and minibatch (pip install -e ".[bench]"); and
with --baseline the trainer of another checkout, such as one made by "git worktree add ../old COMMIT". That has the
minibatch it has by default, unless --minibatch says otherwise. The bound is the time of matrix multiplications alone,
computed in the same run by the tiles of learn/fast/kernels, on as many threads.
"""

import argparse
import importlib.util
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any

import numba
import numpy as np
from baseline import Baseline
from bound import MatMuls, work
from interrupt import until_interrupted
from iterations import Iteration, Settings, iterate, timed_iteration
from loops import clean_loop, recurrent_ppo
from scaling import COLUMNS as CORES
from scaling import Measurement, predictions
from timing import interleaved, report, show

from particle_grid.env import ACTIONS, ParticleGrid
from particle_grid.learn.config import TrainerConfig
from particle_grid.learn.fast import cores, has_bf16
from particle_grid.learn.heads import HEADS
from particle_grid.learn.policy import POLICIES, make_policy
from particle_grid.sim.world import World
from particle_grid.support.errors import UserError

PRECISIONS = ("bf16", "fp32") if has_bf16() else ("fp32",)
PARTS = "us: simulate + infer + learn"
COLUMNS = ["case", "threads", "k agent-steps/s", "times slower", "quartiles", "of the bound", PARTS]
FASTER = "times the baseline"
GAINS = ["case", "threads", "gain", "quartiles", "gain of matmuls", "ratio"]
MORE = 4  # times larger minibatches, beside which more cores are predicted
PEERS = {"CleanRL-style loop": clean_loop, "sb3-contrib RecurrentPPO": recurrent_ppo}


@dataclass(eq=False)
class Case:
    """A case of the benchmark."""

    name: str
    threads: int
    run: Callable[[], Iteration]
    precision: str = "fp32"  # precision of its matrix multiplications
    bounded: bool = True  # whether the bound is that of its network
    counterpart: str = ""  # the name of the case with the same settings in the baseline
    parts: list[dict[str, float]] = field(default_factory=list)  # seconds by name, of each iteration

    def __str__(self) -> str:
        return f"{self.name}, {self.threads} thread{'s' * (self.threads > 1)}"

    def __call__(self) -> float:
        """Run an iteration and return its seconds."""
        iteration = self.run()
        self.parts.append(iteration.parts)
        return iteration.seconds


class Bench:
    """The cases in their order, and the tables of their times."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.batch = options.agents * options.rollout_length
        self.minibatch = options.minibatch or TrainerConfig.minibatch
        self.config = TrainerConfig(rollout_length=options.rollout_length, minibatch=self.minibatch)
        env = self.world()
        self.policy = make_policy("conv_lstm", env.vision, env.single_action_space)
        self.baseline = Baseline(options.baseline) if options.baseline else None
        every = [*self.trainers(), *self.peers()]
        chosen = [case for case in every if re.search(options.cases, case.name)]
        if not chosen:
            names = "; ".join(dict.fromkeys(case.name for case in every))
            raise UserError(f"--cases {options.cases!r} matches none of these: {names}.")
        self.measurements = list(self.one_thread()) if options.cores else []
        self.cases = [*chosen, *self.matmuls()]
        self.times: dict[tuple[str, int], np.ndarray] = {}  # by name and number of threads

    def world(self) -> ParticleGrid:
        """Return an environment with discrete actions."""
        options = self.options
        return ParticleGrid(options.task, "discrete", 1, options.agents, options.size, options.size)

    def trainers(self) -> Iterator[Case]:
        """Yield the trainers, the default first."""
        forms = [(action, "auto") for action in ACTIONS]
        if self.options.heads:
            forms += [("continuous", head) for head in HEADS if head not in ("auto", "hurdle")]
        for action, head in forms:
            form = action if head == "auto" else f"{action} {head}"
            for fast in PRECISIONS:
                old = f"baseline {form}, {fast}" if self.baseline else ""
                yield from self.training(f"conv_lstm {form}, {fast}", "conv_lstm", action, head, fast, old)
            yield from self.training(f"conv_lstm {form}, plain torch", "conv_lstm", action, head, "off")
        for policy in sorted(POLICIES.keys() - {"conv_lstm"}):
            yield from self.training(f"{policy} discrete, {PRECISIONS[0]}", policy, "discrete", "auto", PRECISIONS[0])

    def training(self, name: str, policy: str, action: str, head: str, fast: str, old: str = "") -> Iterator[Case]:
        """Yield a trainer for each number of threads, and its counterpart in the baseline if that has a name."""
        options = self.options
        world = options.task, action, options.agents, options.size
        precision = "bf16" if fast == "bf16" else "fp32"
        bounded = policy == "conv_lstm"
        for threads in options.threads:
            settings = Settings(*world, policy, head, fast, options.rollout_length, options.minibatch, threads)
            yield Case(name, threads, partial(iterate, settings), precision, bounded, old)
            if old:
                yield Case(old, threads, partial(self.baseline.iterate, settings), precision)

    def one_thread(self) -> Iterator[Case]:
        """Yield what more cores are predicted from: the default on one thread, also with larger minibatches."""
        options = self.options
        fast = PRECISIONS[0]
        for size in (self.minibatch, MORE * self.minibatch):
            world = options.task, "discrete", options.agents, options.size
            settings = Settings(*world, "conv_lstm", "auto", fast, options.rollout_length, size, 1)
            yield Case(f"parts with minibatches of {size}", 1, Measurement(settings))

    def peers(self) -> Iterator[Case]:
        """Yield the loops of other libraries, as far as they are installed."""
        for name, loop in PEERS.items():
            if name.startswith("sb3") and not importlib.util.find_spec("sb3_contrib"):
                print(f'{name} is skipped: pip install -e ".[bench]"', file=sys.stderr)
                continue
            make = cache(lambda loop=loop: loop(self.world(), self.config))
            for threads in self.options.threads:
                run = partial(lambda make, threads: timed_iteration(make(), threads, threads), make, threads)
                yield Case(f"{name}, discrete", threads, run)

    def matmuls(self) -> Iterator[Case]:
        """Yield the matrix multiplications alone."""
        for precision in PRECISIONS:
            for threads in self.options.threads:
                run = MatMuls(self.policy, precision, threads, self.batch)
                yield Case(f"matmuls alone, {precision}", threads, run, precision)

    def measure(self) -> None:
        """Run all cases in turn."""
        times = interleaved({str(case): case for case in (*self.cases, *self.measurements)}, self.options.seconds)
        self.times = {(case.name, case.threads): times[str(case)] for case in self.cases}

    def row(self, case: Case) -> dict[str, Any]:
        """Return the row of a case."""
        seconds = self.times[case.name, case.threads]
        slower = seconds / self.times[self.cases[0].name, case.threads]
        row = {
            "case": case.name,
            "threads": case.threads,
            "k agent-steps/s": float(self.batch / np.median(seconds) / 1e3),
            "times slower": float(np.median(slower)),
            "quartiles": quartiles(slower),
            PARTS: self.parts(case),
        }
        if case.bounded:
            bound = self.times[f"matmuls alone, {case.precision}", case.threads]
            row["of the bound"] = float(np.median(bound / seconds))
        old = self.times.get((case.counterpart, case.threads))
        if old is not None:
            row[FASTER] = float(np.median(old / seconds))
        return row

    def parts(self, case: Case) -> str:
        """Return the median time per agent-step of each part of an iteration; of matrix multiplications, their rate."""
        if case.name.startswith("matmuls"):
            rate = work(self.policy) * self.batch / np.median(self.times[case.name, case.threads])
            return f"{rate / 1e9:.0f} GFLOP/s"
        each = case.parts[1:]  # without the warm-up
        medians = [np.median([parts[name] for parts in each]) for name in each[0]]
        return " + ".join(f"{seconds / self.batch * 1e6:.2f}" for seconds in medians) or "-"

    def gains(self) -> Iterator[dict[str, Any]]:
        """Yield how much faster each case is on several threads than on the least, beside the matmuls."""
        least = self.options.threads[0]
        for case in self.cases:
            if case.threads > least:
                gain = self.times[case.name, least] / self.times[case.name, case.threads]
                matmuls = f"matmuls alone, {case.precision}"
                limit = float(np.median(self.times[matmuls, least] / self.times[matmuls, case.threads]))
                yield {
                    "case": case.name,
                    "threads": case.threads,
                    "gain": float(np.median(gain)),
                    "quartiles": quartiles(gain),
                    "gain of matmuls": limit,
                    "ratio": float(np.median(gain)) / limit,
                }

    def predictions(self) -> Iterator[dict[str, Any]]:
        """Yield what more cores would give."""
        for case in self.measurements:
            yield from predictions(case.parts[1:], case.run, [1, *self.options.cores])


def quartiles(ratios: np.ndarray) -> str:
    """Return the first and the third quartile."""
    return "{:.2f} to {:.2f}".format(*np.quantile(ratios, [0.25, 0.75]))


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    most = numba.config.NUMBA_NUM_THREADS
    add("--threads", type=int, nargs="+", default=[min(cores(), most)], help="numbers of threads; default: every core")
    add("--minibatch", type=int, default=0, help="agent-steps; default: that of each checkout")
    add("--rollout-length", type=int, default=TrainerConfig.rollout_length, help="steps; default: %(default)s")
    add("--task", default="group", help="default: %(default)s")
    add("--agents", type=int, default=World.agents, help="default: %(default)s")
    add("--size", type=int, default=World.height, help="cells along each side of the world; default: %(default)s")
    add("--heads", action="store_true", help="every head of continuous actions, instead of the default alone")
    add("--cases", default="", metavar="PATTERN", help="only the cases whose names match a regular expression")
    add("--baseline", type=Path, metavar="PATH", help="root of another checkout, whose trainer takes turns")
    add("--cores", type=int, nargs="+", default=[], help="predict what so many cores would give, from measured parts")
    add("--seconds", type=float, default=300.0, help="of measurement, and 5 rounds at least; default: %(default)s")
    add("--json", metavar="PATH", help="where to write the figures")
    options = parser.parse_args()
    options.threads = sorted(set(options.threads))
    if not 1 <= options.threads[0] <= options.threads[-1] <= most:
        parser.error(f"--threads {options.threads}: give 1 to {most}")
    if options.baseline and not (options.baseline / "particle_grid" / "learn" / "trainer.py").is_file():
        parser.error(f"--baseline {options.baseline} is not the root of a checkout of particle_grid")
    return options


def main() -> None:
    """Measure all cases and print their tables."""
    options = arguments()
    bench = Bench(options)
    bench.measure()
    columns = [*COLUMNS[:-1], FASTER, PARTS] if options.baseline else COLUMNS
    gains = list(bench.gains())
    cores = list(bench.predictions())
    world = f"{options.task}, {options.agents} agents on {options.size} x {options.size}"
    title = f"{world}, rollouts of {options.rollout_length}, minibatches of {bench.minibatch}"
    report(title, columns, [bench.row(case) for case in bench.cases], options.json, gains=gains, cores=cores)
    if gains:
        show(f"Gain of threads over {options.threads[0]}", GAINS, gains)
    if cores:
        show("Predicted from parts measured on one thread, see bench/scaling.py", CORES, cores)


if __name__ == "__main__":
    until_interrupted(main)
