"""What more cores would give: a prediction from parts of an iteration that are measured on one thread.

Assumed: all cores are as fast as the measured one alone; threads share chunks of agents evenly, and wait if there are
too few; the interpreter's lock is held while a kernel's arguments are unpacked; all else stays on one thread.
"""

import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, dataclass, replace
from functools import cache
from typing import Any

import numba
import numpy as np
from iterations import Iteration, Settings, make_trainer, timed_iteration
from timing import timed

from particle_grid.learn.fast.network import PARTS_PER_THREAD
from particle_grid.learn.trainer import Trainer
from particle_grid.support.errors import UserError

COLUMNS = ["minibatch", "cores", "k agent-steps/s", "gain", "us in chunks", "us elsewhere", "largest loss"]
ACTING, LEARNING = "acting", "learning"
CALLS = 3  # calls of kernels, to learn from a chunk
REPEAT = 1000


@dataclass(frozen=True)
class Chunks:
    """Work that was shared among threads: how many times, the number of chunks in all, and their seconds."""

    times: float = 0
    count: float = 0
    seconds: float = 0


class Shares:
    """Records what a fast network shares among threads."""

    def __init__(self, network: Any) -> None:
        self.share = network._share
        self.recorded: list[Chunks] = []
        network._share = self.record

    def record(self, run: Callable[[int], None], count: int) -> None:
        """Share the work as the network does, and record it."""
        seconds = timed(lambda: self.share(run, count))
        self.recorded.append(Chunks(1, count, seconds))

    def take(self) -> Chunks:
        """Return the sum of what was recorded since the last call."""
        total = Chunks(*map(sum, zip(*map(astuple, self.recorded), strict=True)))
        self.recorded.clear()
        return total


class Measurement:
    """Iterations of the default trainer on one thread, with the time that it spends in chunks of agents."""

    def __init__(self, settings: Settings) -> None:
        self.settings = replace(settings, threads=1)
        self.chunks: dict[str, list[Chunks]] = {ACTING: [], LEARNING: []}
        self.trainer = cache(self._make)

    def _make(self) -> tuple[Trainer, Shares]:
        trainer, _ = make_trainer(self.settings)
        if not hasattr(trainer.network, "_share"):
            raise UserError(f"--cores needs the compiled kernels, which do not run here. {trainer.how}")
        return trainer, Shares(trainer.network)

    def __call__(self) -> Iteration:
        """Run an iteration."""
        trainer, shares = self.trainer()

        def run() -> None:
            trainer.rollout()
            self.chunks[ACTING].append(shares.take())
            trainer.update()
            self.chunks[LEARNING].append(shares.take())

        return replace(timed_iteration(run, 1, 1), parts=dict(trainer.seconds))

    def median(self, name: str) -> Chunks:
        """Return the median of what was shared in the iterations after the first."""
        return Chunks(*map(float, np.median(list(map(astuple, self.chunks[name][1:])), axis=0)))

    def pieces(self, name: str) -> int:
        """Return into how many chunks the agents of a step, or the sequences of a minibatch, are cut."""
        if name == LEARNING:
            shared = self.median(name)
            return round(shared.count / shared.times)
        agents = self.settings.agents
        return math.ceil(agents / self.trainer()[0].network.chunk_size(agents, learning=False))

    def call(self) -> float:
        """Return the seconds for which a kernel's call holds the interpreter's lock."""
        network = self.trainer()[0].network
        arguments = (*network.inputs, network.weights, next(iter(network.records.values())))
        return min(timed(lambda: unpack(*arguments), REPEAT) for _ in range(5))


@numba.njit(nogil=True)
def unpack(*arguments):
    """Do nothing with the arguments of a kernel."""


def hand_over() -> float:
    """Return the seconds that it takes to give work to another thread."""
    with ThreadPoolExecutor(1) as pool:
        return min(timed(lambda: pool.submit(int), REPEAT) for _ in range(5))


def losses(seconds: dict[str, float], measured: Measurement, cores: int) -> dict[str, float]:
    """Return the seconds of an iteration on some cores that are not the even share of the chunks' work.

    Args:
        seconds: of an iteration by part: simulate, infer and learn.
        measured: its chunks.
        cores: how many.
    """
    acting = measured.median(ACTING)
    learning = measured.median(LEARNING)
    result = {
        "simulation": seconds["simulate"],
        "rollout outside chunks": seconds["infer"] - acting.seconds,
        "update outside chunks": seconds["learn"] - learning.seconds,
        "hand-over": 0.0,
    }
    call = measured.call()
    give = hand_over()
    for name, chunks in ((ACTING, acting), (LEARNING, learning)):
        pieces = measured.pieces(name)
        waiting = chunks.seconds * (math.ceil(pieces / cores) / pieces - 1 / cores)
        calls = CALLS * pieces if name == LEARNING else min(pieces, PARTS_PER_THREAD * cores)
        locked = chunks.times * calls * call - chunks.seconds / cores - waiting
        result[f"too few chunks for {name} ({pieces})"] = waiting
        result[f"the interpreter's lock in {name}"] = max(0.0, locked) if cores > 1 else 0.0
        result["hand-over"] += chunks.times * give * (min(cores, pieces) - 1)
    return result


def predictions(parts: list[dict[str, float]], measured: Measurement, cores: list[int]) -> Iterator[dict[str, Any]]:
    """Yield a row for each number of cores.

    Args:
        parts: seconds of each iteration by part.
        measured: what measured them.
        cores: the numbers.
    """
    settings = measured.settings
    batch = settings.agents * settings.rollout_length
    seconds = {name: float(np.median([each[name] for each in parts])) for name in parts[0]}
    work = measured.median(ACTING).seconds + measured.median(LEARNING).seconds
    for count in cores:
        lost = losses(seconds, measured, count)
        total = work / count + sum(lost.values())
        worst = max(lost, key=lambda name: lost[name])
        yield {
            "minibatch": settings.minibatch,
            "cores": count,
            "k agent-steps/s": batch / total / 1e3,
            "gain": sum(seconds.values()) / total,
            "us in chunks": work / count / batch * 1e6,
            "us elsewhere": sum(lost.values()) / batch * 1e6,
            "largest loss": f"{worst}: {lost[worst] / total:.0%}",
        }
