"""The events that a window reports."""

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
def test_events_of_the_user_are_reported_in_the_windows_own_terms(window, kind, facts, heard):
    values = {name: getattr(pygame, value) if isinstance(value, str) else value for name, value in facts.items()}
    pygame.event.post(pygame.event.Event(getattr(pygame, kind), **values))
    pygame.event.post(pygame.event.Event(pygame.USEREVENT))  # not reported
    assert window.show(BLACK) == [heard]


def test_it_waits_for_the_next_picture_and_returns_the_elapsed_time(window):
    window.wait(100)
    assert 0.005 < window.wait(100) < 1


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
