"""What processes that train together gain, measured with few of them, and computed for many: see docs/clusters.md.

Cases take turns, one iteration each: a process alone; several alone, which shows what the machine gives; several that
share a minibatch; and several with a minibatch each. Each process has its own agents and one thread. With --rate,
nothing is measured, and only the prediction is printed.
"""

import argparse
import math
import signal
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from time import perf_counter
from typing import Any

import numba
import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from interrupt import until_interrupted
from timing import interleaved, report, show, timed

from particle_grid.env import ParticleGrid, action_space
from particle_grid.learn.config import FAST_MODES, TrainerConfig
from particle_grid.learn.distributed import ProcessGroup
from particle_grid.learn.optimiser import Optimiser
from particle_grid.learn.policy import make_policy
from particle_grid.learn.trainer import Trainer
from particle_grid.sim import tasks
from particle_grid.sim.world import World

ALONE, HALF = "alone", "alone, half the minibatch"
BESIDE = "side by side"  # without exchanges
SHARED, OWN = "shared minibatch", "own minibatch"
GRADIENT, SUMS = "one gradient", "one tensor of moments"  # exchanges alone
COLUMNS = ["case", "processes", "k agent-steps/s", "gain", "exchange", "optimiser steps"]
PLAN = ["processes", "exchange, ms", "shared: gain", "own: gain", "own: exchange", "own minibatches together"]
MOMENTS = 4 * 8  # bytes
REPEAT = 50


class Timed(ProcessGroup):
    """The processes of a run, with the seconds of this one in exchanges since they were last set to 0."""

    seconds = 0.0

    def sum(self, x: torch.Tensor) -> torch.Tensor:
        """Sum x over the processes, and count the time, with that of waiting for the others."""
        begin = perf_counter()
        result = super().sum(x)
        Timed.seconds += perf_counter() - begin
        return result


@dataclass(frozen=True)
class Parts:
    """What the prediction is computed from.

    iteration: seconds of an iteration of a process alone. overhead: seconds of an optimiser step that remain however
    small its minibatch is. steps: optimiser steps of that iteration. gradient: bytes of the gradient.
    """

    iteration: float
    overhead: float
    steps: int
    gradient: int

    def exchange(self, count: int, latency: float, bandwidth: float) -> float:
        """Return the seconds that an optimiser step of `count` processes exchanges tensors, in two rings."""
        if count == 1:
            return 0.0
        sent = 2 * (count - 1) / count * (self.gradient + MOMENTS)  # bytes
        return 2 * 2 * (count - 1) * latency + sent / bandwidth

    def gains(self, count: int, exchange: float) -> dict[str, float]:
        """Return the gain over a process alone, with a shared minibatch and with one each.

        With a shared one, it is the same whether each process has as many agents as one alone, or their share.
        """
        one = self.iteration
        fixed = self.steps * self.overhead
        shared = one + (count - 1) * fixed + count * self.steps * exchange
        own = one + self.steps * exchange
        return {
            "shared: gain": count * one / shared,
            "own: gain": count * one / own,
            "own: exchange": self.steps * exchange / own,
        }


def make(options: argparse.Namespace, group: ProcessGroup, **changed: Any) -> Trainer:
    """Return a trainer of the default settings."""
    torch.manual_seed(0)
    env = ParticleGrid(options.task, "discrete", 1, options.agents, options.size, options.size)
    policy = make_policy("conv_lstm", env.vision, env.single_action_space)
    config = TrainerConfig(threads=1, device="cpu", fast=options.fast, **changed)
    return Trainer(env, policy, config, group=group)


def work(rank: int, options: argparse.Namespace, store: Path, orders: Connection) -> None:
    """Run an iteration of a case for each order, and answer with its seconds, those in exchanges, and its steps."""
    torch.set_num_threads(1)
    numba.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=options.processes)
    group = Timed(rank, options.processes)
    whole = options.minibatch
    alone = make(options, ProcessGroup(), minibatch=whole)
    trainers = {ALONE: alone, BESIDE: alone, HALF: make(options, ProcessGroup(), minibatch=whole // 2)}
    for name in (SHARED, OWN):
        trainers[name] = make(options, group, minibatch=whole, minibatch_per_process=name == OWN)
    gradient = alone.updater.optimiser.gradient
    while name := orders.recv():
        Timed.seconds = 0.0
        if name in trainers:
            begin = perf_counter()
            trainers[name].rollout()
            trainers[name].update()
            orders.send((perf_counter() - begin, Timed.seconds, gradient.nbytes))
        else:
            x = torch.zeros_like(gradient) if name == GRADIENT else torch.zeros(MOMENTS // 8, dtype=torch.float64)
            dist.barrier()
            seconds = timed(partial(dist.all_reduce, x), REPEAT)
            orders.send((seconds, seconds, gradient.nbytes))
    dist.destroy_process_group()


class Bench:
    """Processes that take orders.

    Attributes:
        exchanged: seconds that the first process spent in exchanges, by case and round.
        gradient: bytes of the gradient.
    """

    def __init__(self, options: argparse.Namespace, folder: str) -> None:
        self.options = options
        self.exchanged: dict[str, list[float]] = {}
        self.gradient = 0
        self.ends: list[Connection] = []
        context = mp.get_context("spawn")
        handler = signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends this process, and with it the others
        for rank in range(options.processes):
            end, other = context.Pipe()
            arguments = (rank, options, Path(folder) / "store", other)
            context.Process(target=work, args=arguments, daemon=True).start()
            self.ends.append(end)
        signal.signal(signal.SIGINT, handler)

    def run(self, name: str, count: int) -> float:
        """Let `count` processes run a case, and return the seconds of the slowest."""
        for end in self.ends[:count]:
            end.send(name)
        answers = [end.recv() for end in self.ends[:count]]
        self.exchanged.setdefault(name, []).append(answers[0][1])
        self.gradient = answers[0][2]
        return max(seconds for seconds, _, _ in answers)

    def end(self) -> None:
        """Let the processes end."""
        for end in self.ends:
            end.send("")

    def cases(self) -> dict[str, Callable[[], float]]:
        """Return all cases."""
        counts = {ALONE: 1, HALF: 1} | dict.fromkeys((BESIDE, SHARED, OWN, GRADIENT, SUMS), len(self.ends))
        return {name: partial(self.run, name, count) for name, count in counts.items()}

    def rows(self, times: dict[str, np.ndarray]) -> Iterator[dict[str, Any]]:
        """Yield a row for each case."""
        batch = batch_of(self.options)
        for name in (ALONE, BESIDE, SHARED, OWN):
            count = 1 if name == ALONE else len(self.ends)
            yield {
                "case": name,
                "processes": count,
                "k agent-steps/s": float(count * batch / np.median(times[name]) / 1e3),
                "gain": float(np.median(count * times[ALONE] / times[name])),
                "exchange": f"{np.median(np.array(self.exchanged[name][1:]) / times[name]):.1%}",
                "optimiser steps": steps_of(self.options) * (count if name == SHARED else 1),
            }

    def parts(self, times: dict[str, np.ndarray]) -> Parts:
        """Return what the prediction needs."""
        steps = steps_of(self.options)
        overhead = float(np.median(times[HALF] - times[ALONE])) / steps  # twice as many steps
        return Parts(float(np.median(times[ALONE])), max(0.0, overhead), steps, self.gradient)


def batch_of(options: argparse.Namespace) -> int:
    """Return the agent-steps of an iteration of a process alone."""
    return options.agents * TrainerConfig.rollout_length


def steps_of(options: argparse.Namespace) -> int:
    """Return its optimiser steps."""
    return math.ceil(batch_of(options) / options.minibatch)


def plan(parts: Parts, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield the prediction for each number of processes."""
    minibatch = options.minibatch
    for count in options.plan:
        exchange = parts.exchange(count, options.latency, options.bandwidth)
        yield {
            "processes": count,
            "exchange, ms": exchange * 1e3,
            **parts.gains(count, exchange),
            "own minibatches together": minibatch * count,
        }


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--processes", type=int, default=2, help="to measure; default: %(default)s")
    add("--task", default="group", choices=tasks.names(), help="default: %(default)s")
    add("--agents", type=int, default=World.agents, help="of each process; default: %(default)s")
    add("--size", type=int, default=World.height, help="cells along each side of a world; default: %(default)s")
    add("--minibatch", type=int, default=TrainerConfig.minibatch, help="of a process alone; default: %(default)s")
    add("--fast", default=TrainerConfig.fast, choices=FAST_MODES, help="precision of the kernels; default: %(default)s")
    add("--seconds", type=float, default=120.0, help="of measurement, and 5 rounds at least; default: %(default)s")
    add("--plan", type=int, nargs="+", default=[2, 4, 8, 16, 64, 256, 1000], help="numbers of processes to compute")
    add("--latency", type=float, default=30e-6, help="seconds until a message arrives; default: %(default)s")
    add("--bandwidth", type=float, default=1.25e9, help="bytes per second of a process; default: %(default)s")
    add("--rate", type=float, default=0.0, help="agent-steps per second of a process alone, instead of measuring it")
    add("--overhead", type=float, default=0.0, help="with --rate: seconds of each optimiser step whatever its size")
    add("--json", metavar="PATH", help="where to write the figures")
    options = parser.parse_args()
    for name, least in (("processes", 2), ("agents", 1), ("size", 1), ("minibatch", 2)):
        if getattr(options, name) < least:
            parser.error(f"--{name} {getattr(options, name)}: give {least} or more")
    if min(options.plan) < 1:
        parser.error(f"--plan {min(options.plan)}: give numbers of processes, 1 or more")
    for name in ("rate", "overhead", "latency"):
        if not 0 <= getattr(options, name) < math.inf:
            parser.error(f"--{name} {getattr(options, name)}: give 0 or more")
    if not 0 < options.bandwidth < math.inf:
        parser.error(f"--bandwidth {options.bandwidth}: give more than 0")
    if options.overhead and not options.rate:
        parser.error(f"--overhead {options.overhead} is measured: leave it out, or give --rate, too")
    if options.json and options.rate:
        parser.error(f"--json {options.json} is for measurements: leave out --rate")
    return options


def measure(options: argparse.Namespace) -> Parts:
    """Measure all cases, print them, and return what the prediction needs."""
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(options, folder)
        times = interleaved(bench.cases(), options.seconds)
        bench.end()
    parts = bench.parts(times)
    exchanges = {f"ms for {name}": float(np.median(times[name]) * 1e3) for name in (GRADIENT, SUMS)}
    found = {"seconds of an iteration alone": parts.iteration, "ms of overhead per step": parts.overhead * 1e3}
    title = f"{options.task}, {options.agents} agents and one thread per process, minibatches of {options.minibatch}"
    report(title, COLUMNS, list(bench.rows(times)), options.json, **found, **exchanges)
    print(*(f"{name}: {value:.3f}" for name, value in (found | exchanges).items()), sep="\n")
    return parts


def given(options: argparse.Namespace) -> Parts:
    """Return what the prediction needs, from the command line."""
    policy = make_policy("conv_lstm", World.vision, action_space("discrete"))
    gradient = Optimiser(policy.parameters(), TrainerConfig()).gradient
    return Parts(batch_of(options) / options.rate, options.overhead, steps_of(options), gradient.nbytes)


def main() -> None:
    """Measure unless a rate is given, and print the prediction."""
    options = arguments()
    parts = given(options) if options.rate else measure(options)
    network = f"{options.latency * 1e6:.0f} us and {options.bandwidth / 1e9:.2f} GB/s"
    size = f"{parts.gradient / 1e6:.2f} MB of gradients"
    show(f"Computed for {network}, {size}", PLAN, list(plan(parts, options)))


if __name__ == "__main__":
    until_interrupted(main)
