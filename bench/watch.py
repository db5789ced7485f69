"""Cost of `watch=true` to a run on one thread: CPU time of an iteration, with a page open in Chromium and without.

    python bench/watch.py                # four minutes; needs Chromium on the path, and a second core for it

Blocks of iterations take turns in one process. While unwatched, the page is paused and the run tells it nothing. Beside
a browser, the page plays, but the run still tells it nothing, which shows what another program on the next core costs.
While watched, the page plays, and the run tells it of each iteration and gives it the latest policy. A block lasts
longer than the time between two policies.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
from chromium import Page, check_browser
from interrupt import until_interrupted
from timing import interleaved, report

from particle_grid.browser.live import NORMALISED, PAUSE, Live
from particle_grid.experiments.training import build, use_threads
from particle_grid.learn.distributed import ProcessGroup
from particle_grid.learn.trainer import Trainer
from particle_grid.settings.compose import composed

UNWATCHED = "unwatched"
BESIDE, WATCHED = "beside a browser", "watched"
COLUMNS = ["case", "CPU ms per iteration", "times unwatched", "lowest", "highest", "rounds"]


def block(trainer: Trainer, page: Page, live: Live | None, playing: bool) -> float:
    """Train for longer than PAUSE and return the CPU seconds of an iteration, with those of the server's threads."""
    page.set_playing(playing)
    count, cpu = 0, time.process_time()
    end = time.perf_counter() + 1.2 * PAUSE
    while time.perf_counter() < end:
        trainer.rollout()
        trainer.update()
        trainer.steps += trainer.batch
        if live:
            live.log(trainer.steps, {NORMALISED: 0.0})
        count += 1
    return (time.process_time() - cpu) / count


def rows(times: dict[str, np.ndarray]) -> list[dict[str, object]]:
    """Return the figures of each case: means, since a policy is given in some iterations only."""
    found: list[dict[str, object]] = []
    for name, seconds in times.items():
        ratios = seconds / times[UNWATCHED]
        found.append({"case": name, "CPU ms per iteration": 1000 * float(seconds.mean()), "rounds": len(seconds)})
        found[-1] |= {"times unwatched": f"{np.median(ratios):.3f}", "lowest": f"{ratios.min():.3f}"}
        found[-1] |= {"highest": f"{ratios.max():.3f}"}
    return found


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=240)
    parser.add_argument("--json", help="also write the figures to this file")
    parser.add_argument("--overrides", nargs="*", default=[], help="settings of the run")
    args = parser.parse_args()
    check_browser()
    print("Starting a run and its page", flush=True)
    config = composed(["trainer.threads=1", "trainer.total_steps=1e12", *args.overrides])
    use_threads(config.trainer)
    run = build(config, None, ProcessGroup())
    trainer = run.trainer()
    with (
        tempfile.TemporaryDirectory() as profile,
        Live(config, run.policy, 0) as live,
        Page(live.address, Path(profile)) as page,
    ):
        times = interleaved(
            {
                UNWATCHED: lambda: block(trainer, page, None, playing=False),
                BESIDE: lambda: block(trainer, page, None, playing=True),
                WATCHED: lambda: block(trainer, page, live, playing=True),
            },
            args.seconds,
        )
    report("Cost of watch=true", COLUMNS, rows(times), args.json)


if __name__ == "__main__":
    until_interrupted(main)
