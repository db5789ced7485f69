"""A window on the screen. It needs pygame, which comes with the extra `window`."""

import os
import sys
from typing import Any, ClassVar, NamedTuple
from weakref import WeakSet

import numpy as np

from particle_grid.support import optional

INVISIBLE = ("dummy", "offscreen", "evdev")  # drivers without a screen, which SDL falls back to
BUTTONS = {1: "mouse left", 2: "mouse middle", 3: "mouse right"}
DRIVER, SCREENS = "SDL_VIDEODRIVER", ("DISPLAY", "WAYLAND_DISPLAY")  # environment variables


class Event(NamedTuple):
    """Something that the user did."""

    kind: str  # "press" or "release" of a key or button, "move" of the mouse, "wheel", "leave" the window, "close" it
    key: str = ""  # its label: "a", "left", "space", "tab", ...; or one of BUTTONS
    shift: bool = False  # while a shift key is held
    place: tuple[int, int] = (0, 0)  # place of the mouse: row and column in pixels of the picture
    turn: int = 0  # notches of the wheel, away from the user


class Window:
    """A window that shows pictures. It opens with the first one and takes its size.

    If several windows are open, the one that shows a picture next receives the events of all.

    Raises:
        UserError: if pygame is not installed.
        OSError: from `show`, if there is no screen.
    """

    _open_ones: ClassVar["WeakSet[Window]"] = WeakSet()  # the display exists until the last of them is closed

    def __init__(self, caption: str) -> None:
        self.pygame = load()
        self._caption = caption
        self._window: Any = None
        self._clock = self.pygame.time.Clock()

    def show(self, image: np.ndarray) -> list[Event]:
        """Show RGB u8[H, W, 3], and return what the user did since the last picture."""
        size = image.shape[1::-1]
        if self._window is None:
            self._open(size)
        elif self._window.size != size:
            self._window.size = size
        self.pygame.surfarray.blit_array(self._window.get_surface(), image.transpose(1, 0, 2))
        self._window.flip()
        return [event for event in map(self._event, self.pygame.event.get()) if event]

    def wait(self, fps: float) -> float:
        """Wait until the next of `fps` pictures per second is due; return the seconds since the last one was."""
        return self._clock.tick(fps) / 1000

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

    def _event(self, event: Any) -> Event | None:
        """Translate an event of pygame; None for events that are not needed here."""
        pygame = self.pygame
        match event.type:
            case pygame.QUIT:
                return Event("close")
            case pygame.WINDOWFOCUSLOST:
                return Event("leave")
            case pygame.KEYDOWN | pygame.KEYUP:
                kind = "press" if event.type == pygame.KEYDOWN else "release"
                name = pygame.key.name(event.key).strip("[]")
                return Event(kind, name, bool(getattr(event, "mod", 0) & pygame.KMOD_SHIFT))
            case pygame.MOUSEBUTTONDOWN | pygame.MOUSEBUTTONUP if event.button in BUTTONS:
                kind = "press" if event.type == pygame.MOUSEBUTTONDOWN else "release"
                return Event(kind, BUTTONS[event.button], place=event.pos[::-1])
            case pygame.MOUSEMOTION:
                return Event("move", place=event.pos[::-1])
            case pygame.MOUSEWHEEL:
                return Event("wheel", turn=event.y)
        return None

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
