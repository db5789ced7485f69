"""Logging to Trackio, in a local database or a Hugging Face Space."""

import os
import secrets
import tempfile
from collections.abc import Mapping
from pathlib import Path

from particle_grid.support import optional


class TrackioLogger:
    """Writes a run to Trackio.

    Its environment variables apply, such as TRACKIO_DIR and TRACKIO_SPACE_ID, and so does TRACKIO_PROJECT, which
    Hugging Face's libraries read. Trackio itself deals with failures: it keeps what it cannot send, and warns.

    Args:
        name: of a new run. Some letters follow it, since Trackio continues runs by their name.
        group: of a new run, if any.
        run_id: of the run to continue, or None for a new one. Steps that Trackio already has are written again.

    Attributes:
        run_id: by which the run can be continued.
    """

    essential = False

    def __init__(self, name: str, group: str | None = None, run_id: str | None = None) -> None:
        self._trackio = optional.load("trackio", "trackio", "logger=trackio")
        self.run_id = run_id or f"{name}-{secrets.token_hex(3)}"
        project = os.environ.get("TRACKIO_PROJECT", "particle_grid")
        self._run = self._trackio.init(project, self.run_id, group, resume="allow", embed=False)

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        """Write each scalar under its name, at `step` agent-steps."""
        self._run.log(dict(scalars), step=step)

    def hyperparameters(self, values: Mapping[str, str | bool | float]) -> None:
        """Write the hyperparameters. Trackio sends its config with the first scalars."""
        self._run.config.update(values)

    def log_gif(self, name: str, gif: bytes, step: int) -> None:
        """Write an animation under a name."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "film.gif"
            path.write_bytes(gif)
            self._run.log({name: self._trackio.Video(path)}, step=step)  # which copies the file

    def finished(self) -> None:
        """Write nothing: Trackio's runs have no status."""

    def close(self) -> None:
        """Wait until everything is written or sent, for at most half a minute."""
        self._trackio.finish()
