"""What a window hears."""

import contextlib
import multiprocessing
import signal
import time

import numpy as np
import pytest

pygame = pytest.importorskip("pygame")

from particle_grid.view.window import Event, Window  # noqa: E402

BLACK = np.zeros((40, 60, 3), np.uint8)


@pytest.fixture
def window(monkeypatch):
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    window = Window("")
    window.show(BLACK)
    pygame.event.clear()
    yield window
    window.close()


@pytest.mark.parametrize(
    ("kind", "facts", "heard"),
    [
        ("KEYDOWN", {"key": "K_LEFT"}, Event("press", "left")),
        ("KEYUP", {"key": "K_d"}, Event("release", "d")),
        ("KEYDOWN", {"key": "K_TAB", "mod": "KMOD_LSHIFT"}, Event("press", "tab", shift=True)),
        ("KEYDOWN", {"key": "K_KP_PLUS"}, Event("press", "+")),
        ("MOUSEBUTTONDOWN", {"button": 1, "pos": (50, 7)}, Event("press", "mouse left", place=(7, 50))),
        ("MOUSEBUTTONUP", {"button": 3, "pos": (1, 2)}, Event("release", "mouse right", place=(2, 1))),
        ("MOUSEMOTION", {"pos": (3, 4)}, Event("move", place=(4, 3))),
        ("MOUSEWHEEL", {"y": -2}, Event("wheel", turn=-2)),
        ("WINDOWFOCUSLOST", {}, Event("leave")),
        ("QUIT", {}, Event("close")),
    ],
)
def test_it_tells_what_the_user_does_in_words_of_its_own(window, kind, facts, heard):
    values = {name: getattr(pygame, value) if isinstance(value, str) else value for name, value in facts.items()}
    pygame.event.post(pygame.event.Event(getattr(pygame, kind), **values))
    pygame.event.post(pygame.event.Event(pygame.USEREVENT))  # nobody asks for it
    assert window.show(BLACK) == [heard]


def test_it_waits_for_the_next_picture_and_tells_how_long_it_was(window):
    window.wait(100)
    assert 0.005 < window.wait(100) < 1


@pytest.mark.parametrize("display", [None, ":77"])
def test_a_machine_without_a_screen_gets_no_invisible_window_unless_it_asks_for_one(monkeypatch, display):
    for name in ("SDL_VIDEODRIVER", "DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    if display:
        monkeypatch.setenv("DISPLAY", display)  # where nothing listens
    monkeypatch.setattr("sys.platform", "linux")
    with pytest.raises(OSError, match=r"No window can be opened here \(there is no screen\): record a video instead"):
        Window("").show(BLACK)
    assert not pygame.display.get_init()


@pytest.mark.parametrize("driver", ["dummy", "nonesuch"])  # one that opens, and one that does not
def test_processes_that_are_started_beside_a_window_end_when_terminated(monkeypatch, driver):
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
