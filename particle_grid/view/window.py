"""A window on the screen. It needs pygame, which comes with the extra `window`."""

import os
import sys
from typing import Any, ClassVar
from weakref import WeakSet

import numpy as np

from particle_grid.support import optional

INVISIBLE = ("dummy", "offscreen", "evdev")  # drivers without a screen, which SDL falls back to
DRIVER, SCREENS = "SDL_VIDEODRIVER", ("DISPLAY", "WAYLAND_DISPLAY")  # environment variables


class Window:
    """A window that shows pictures. It opens with the first one and takes its size.

    Raises:
        UserError: if pygame is not installed.
        OSError: from `show`, if there is no screen.
    """

    _open_ones: ClassVar["WeakSet[Window]"] = WeakSet()  # the display exists until the last of them is closed

    def __init__(self, caption: str) -> None:
        self.pygame = load()
        self._caption = caption
        self._window: Any = None

    def show(self, image: np.ndarray) -> None:
        """Show RGB u8[H, W, 3]."""
        size = image.shape[1::-1]
        if self._window is None:
            self._open(size)
        elif self._window.size != size:
            self._window.size = size
        self.pygame.surfarray.blit_array(self._window.get_surface(), image.transpose(1, 0, 2))
        self._window.flip()
        self.pygame.event.clear()  # otherwise the system takes the window for one that hangs

    def _open(self, size: tuple[int, ...]) -> None:
        unseen = not os.environ.get(DRIVER)  # unless a driver was chosen, as tests choose an invisible one
        try:
            if unseen and sys.platform == "linux" and not any(map(os.environ.get, SCREENS)):
                raise self.pygame.error("there is no screen")
            self.pygame.display.init()
            if unseen and self.pygame.display.get_driver() in INVISIBLE:
                raise self.pygame.error("there is no screen")
            self._window = self.pygame.Window(self._caption, size)
        except self.pygame.error as error:
            self.close()
            raise OSError(
                f"No window can be opened here ({error}): record a video instead, or use a virtual screen."
            ) from None
        self._open_ones.add(self)

    def close(self) -> None:
        """Close the window, if it is open; other windows stay open."""
        if self._window is not None:
            self._window.destroy()
            self._window = None
        self._open_ones.discard(self)
        if not self._open_ones:
            self.pygame.display.quit()


def load() -> Any:
    """Return the module pygame, or raise UserError if it is not installed."""
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    # Otherwise SDL catches SIGTERM, even if the window could not be opened. Processes that multiprocessing terminates,
    # such as PufferLib's workers, would survive and write into memory that the next ones use.
    os.environ.setdefault("SDL_NO_SIGNAL_HANDLERS", "1")
    return optional.load("pygame", "window", "A window")
