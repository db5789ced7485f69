"""What several test files share."""

import logging
import sys

import pytest
from hypothesis import settings

# The same examples each time, so that a change is judged by what it changes; new ones: --hypothesis-profile=explore.
settings.register_profile("repeatable", deadline=None, derandomize=True)
settings.register_profile("explore", deadline=None)
settings.load_profile("repeatable")


@pytest.fixture
def invoke(monkeypatch, capsys, tmp_path):
    """Runs the main of a command with arguments, in an empty folder: exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)

    def run(main, *arguments):
        monkeypatch.setattr(sys, "argv", ["command", *map(str, arguments)])
        handlers = logging.root.handlers[:]
        try:
            main()
            code = 0
        except SystemExit as exit:
            code = exit.code
        finally:  # Hydra leaves a handler that writes to the stdout of this moment
            logging.root.handlers[:] = handlers
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def call(invoke, monkeypatch):
    """Runs a command's main in an empty folder, with short evaluations: exit code, stdout, stderr."""
    monkeypatch.setattr("particle_grid.evaluation.match.STEPS", 8)
    return invoke
