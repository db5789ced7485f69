"""Pictures and steps per second of the page of the simulator in headless Chromium, at the highest speed.

    python bench/page.py                 # two minutes; needs Chromium on the path
    python bench/page.py --agents 1024 --seconds 30 --json page.json

Both worlds play: discrete actions on the left, continuous ones on the right, of trained policies or random. At the
highest speed, a picture may stand for several steps. The browser draws without a GPU, at most 60 pictures per second.
Cases take turns.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from chromium import Page, check_browser
from interrupt import until_interrupted
from timing import interleaved, report

from particle_grid.browser import page
from particle_grid.browser.contents import SIZES
from particle_grid.runs.load import shipped_tasks

PLAYERS = {"conv_lstm": "policy", "random actions": "random"}  # the page's names
TURN = 4.0  # seconds
COLUMNS = ["case", "agents on each side", "pictures/s", "steps/s", "rounds"]
# The page writes its rate with every picture.
COUNT = """window.pictures = 0;
new MutationObserver(() => { window.pictures += 1; }).observe(document.getElementById("rate"), { childList: true })"""
FASTEST = "[...document.querySelectorAll('#speed button')].at(-1).click()"


def play(browser: Page, link: str, steps: list[float]) -> float:
    """Open a moment, let it play for a turn, and return the seconds per picture. steps: receives those per second."""
    browser.run(f"location.hash = '{link}'")
    browser.until("page.ready()")
    browser.wait(1)
    browser.set_playing(True)
    browser.wait(1)
    pictures, before = browser.run("[window.pictures, page.state.steps]")
    begin = time.perf_counter()
    browser.wait(TURN)
    seconds = time.perf_counter() - begin
    later, after = browser.run("[window.pictures, page.state.steps]")
    steps.append((after - before) / seconds)
    return float(seconds / max(1, later - pictures))


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--agents", type=int, nargs="+", default=[1024, 4096], choices=SIZES)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--json", help="also write the figures to this file")
    args = parser.parse_args()
    check_browser()
    print("Writing the page", flush=True)
    steps: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "page.html"
        page.write(path, shipped_tasks(), [])
        with Page(path.as_uri(), Path(folder) / "profile", (1440, 900)) as browser:
            cases: dict[str, Callable[[], float]] = {}
            for agents in args.agents:
                for name, player in PLAYERS.items():
                    case = f"{name} {agents}"
                    sides = f"left=discrete:{player}&right=continuous:{player}"
                    steps[case] = []
                    cases[case] = partial(play, browser, f"#task=group&agents={agents}&{sides}", steps[case])
            browser.run(f"location.hash = '#task=group'; {COUNT}; {FASTEST}")
            times = interleaved(cases, args.seconds)
    rows = []
    for case, seconds in times.items():
        name, _, agents = case.rpartition(" ")
        rows.append({"case": name, "agents on each side": int(agents), "pictures/s": float(np.median(1 / seconds))})
        rows[-1] |= {"steps/s": float(np.median(steps[case][1:])), "rounds": len(seconds)}  # without the warm-up
    report("The page in Chromium, group", COLUMNS, rows, args.json)


if __name__ == "__main__":
    until_interrupted(main)
