"""A window on a screen. Needs pygame, which comes with the extra `window`."""

import os
from typing import Any

import numpy as np


class Window:
    """Shows pictures; opens with the first one, as large as it is. Raises ValueError where there is no pygame, and
    OSError where there is no screen, each with the remedy."""

    def __init__(self, caption: str) -> None:
        self.pygame, self._caption, self._screen = load(), caption, None

    def show(self, image: np.ndarray) -> list[Any]:
        """Shows RGB u8[H, W, 3]. Returns the events since the last picture: keys, mouse, the wish to close."""
        size = image.shape[1::-1]
        if self._screen is None or self._screen.get_size() != size:
            try:
                self.pygame.display.init()
                self._screen = self.pygame.display.set_mode(size)
            except self.pygame.error as error:
                raise OSError(
                    f"No window can be opened here ({error}): record a video instead, or use a virtual screen."
                ) from None
            self.pygame.display.set_caption(self._caption)
        self.pygame.surfarray.blit_array(self._screen, image.transpose(1, 0, 2))
        self.pygame.display.flip()
        return self.pygame.event.get()

    def close(self) -> None:
        """Closes the window."""
        self.pygame.display.quit()
        self._screen = None


def load() -> Any:
    """The module pygame. Raises ValueError where it is not installed."""
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    try:
        import pygame
    except ImportError:
        raise ValueError('A window needs pygame: pip install "particle-grid[window]", or record a video.') from None
    return pygame
