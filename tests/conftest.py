"""Fixtures that several test files share."""

import logging
import signal
import sys

import pytest
from hypothesis import settings

# Use the same examples every time, so that a failure is caused by a change. For new ones: --hypothesis-profile=explore.
settings.register_profile("repeatable", deadline=None, derandomize=True)
settings.register_profile("explore", deadline=None)
settings.load_profile("repeatable")


@pytest.fixture
def heeded(number):
    """Heed a signal that tests in the background, or below nohup, ignore."""
    before = signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    yield
    signal.signal(number, before)


@pytest.fixture
def invoke(monkeypatch, capsys, tmp_path):
    """Run a command's main function with arguments in an empty folder; return exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])  # particle-grid adds the current folder

    def run(main, *arguments):
        monkeypatch.setattr(sys, "argv", ["command", *map(str, arguments)])
        handlers = logging.root.handlers[:]
        try:
            main()
            code = 0
        except SystemExit as exit:
            code = exit.code
        finally:  # Hydra leaves a handler that writes to the current stdout
            logging.root.handlers[:] = handlers
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def call(invoke, monkeypatch):
    """Run a command's main function with short evaluations in an empty folder; return exit code, stdout and stderr."""
    monkeypatch.setattr("particle_grid.evaluation.match.STEPS", 8)
    return invoke
