"""Record the page of the simulator in Chromium: docs/assets/page.gif, which the README shows.

python bench/recording.py             # a minute; needs Chromium on the path
"""

import argparse
import io
import tempfile
from pathlib import Path

from chromium import Page, check_browser
from interrupt import until_interrupted
from PIL import Image
from rich.progress import track

from particle_grid.browser import page
from particle_grid.runs.load import shipped_tasks

WINDOW = 1440, 860  # pixels of the page
SCALE = 2 / 3  # pixels of the film for one of the page
MOMENT = "#task=group&seed=3&t=1&agent=7"  # a link with a time opens a page that is not playing
FRAMES = 64
STEPS = 2  # between two frames
MILLISECONDS = 100  # that a frame is shown
LAST = 2000  # that the last one is shown
COLOURS = 128


def frames(path: Path, profile: Path) -> list[Image.Image]:
    """Open a page at the moment, make its steps, and return a picture of each."""
    result = []
    with Page(path.as_uri(), profile, WINDOW) as browser:
        width, height = WINDOW
        browser("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=SCALE, mobile=False)
        browser("Emulation.setScrollbarsHidden", hidden=True)
        browser.run(f"location.hash = '{MOMENT}'")
        browser.until("page.ready() && page.state.steps === 1")
        for frame in track(range(FRAMES), "Recording"):
            for step in range(STEPS):
                browser.key(".")
                browser.until(f"page.state.steps === {2 + frame * STEPS + step}")
            browser.run("new Promise(requestAnimationFrame)")
            result.append(Image.open(io.BytesIO(browser.picture())).convert("RGB"))
    return result


def save(pictures: list[Image.Image], path: Path) -> None:
    """Write a GIF, in the colours of its last picture."""
    palette = pictures[-1].quantize(COLOURS)
    first, *others = [picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture in pictures]
    times = [MILLISECONDS] * len(others) + [LAST]
    first.save(path, save_all=True, append_images=others, duration=times, loop=0, optimize=True)


def main() -> None:
    """Write the recording."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("docs/assets/page.gif"))
    out = parser.parse_args().out
    check_browser()
    print("Writing the page", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "page.html"
        page.write(path, shipped_tasks(), [])
        save(frames(path, Path(folder) / "profile"), out)
    print(f"Saved: {out}")


if __name__ == "__main__":
    until_interrupted(main)
