"""Windows open only where there is a screen, and do not disturb other processes."""

import contextlib
import multiprocessing
import signal
import time

import numpy as np
import pytest

pygame = pytest.importorskip("pygame")

from particle_grid.view.window import Window  # noqa: E402

BLACK = np.zeros((40, 60, 3), np.uint8)


@pytest.mark.parametrize("display", [None, ":77"])
def test_without_a_screen_no_invisible_window_is_opened_unless_requested(monkeypatch, display):
    for name in ("SDL_VIDEODRIVER", "DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    if display:
        monkeypatch.setenv("DISPLAY", display)  # where no server listens
    monkeypatch.setattr("sys.platform", "linux")
    with pytest.raises(OSError, match=r"No window can be opened here \(there is no screen\): record a video instead"):
        Window("").show(BLACK)
    assert not pygame.display.get_init()


@pytest.mark.parametrize("driver", ["dummy", "nonesuch"])  # one that opens, and one that does not
def test_processes_started_next_to_a_window_end_when_terminated(monkeypatch, driver):
    monkeypatch.setenv("SDL_VIDEODRIVER", driver)
    window = Window("")
    with contextlib.suppress(OSError):
        window.show(BLACK)
    try:
        process = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,), daemon=True)
        process.start()
        process.terminate()
        process.join(10)
        assert process.exitcode == -signal.SIGTERM
    finally:
        process.kill()
        window.close()
