"""Logging to Weights & Biases."""

import io
import os
from collections.abc import Mapping
from pathlib import Path

from particle_grid.support import optional

STEP = "global_step"  # the x-axis, named as in what W&B imports from TensorBoard; W&B's own step counts calls


class WandbLogger:
    """Writes a run to Weights & Biases.

    Its environment variables apply, such as WANDB_PROJECT, WANDB_ENTITY and WANDB_MODE=offline.

    Args:
        name: of a new run, unless WANDB_NAME is set.
        folder: for W&B's own files, unless WANDB_DIR is set.
        group: of a new run, if any, unless WANDB_RUN_GROUP is set.
        run_id: of the run to continue, or None for a new one. Steps that W&B already has are skipped.

    Attributes:
        run_id: by which the run can be continued.
    """

    essential = False

    def __init__(self, name: str, folder: Path, group: str | None = None, run_id: str | None = None) -> None:
        wandb = optional.load("wandb", "wandb", "logger=wandb")
        defaults = {"WANDB_PROJECT": ("project", "particle_grid"), "WANDB_DIR": ("dir", str(folder))}
        if run_id is None:
            defaults |= {"WANDB_NAME": ("name", name), "WANDB_RUN_GROUP": ("group", group or "")}
        chosen = dict(default for variable, default in defaults.items() if variable not in os.environ)
        self._run = wandb.init(
            **{key: value for key, value in chosen.items() if value},
            id=run_id,
            resume="allow",
            reinit="create_new",  # a run that the caller has open is not this one
            settings=wandb.Settings(console="off"),
        )
        self._video = wandb.Video
        self._last_step = self._run.summary.get(STEP, 0) if run_id else 0
        self._exit_code = 1
        self._run.define_metric(STEP, hidden=True)
        self._run.define_metric("*", step_metric=STEP)
        self.run_id = str(self._run.id)

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        """Write each scalar under its name, at `step` agent-steps."""
        if step >= self._last_step:
            self._run.log({**scalars, STEP: step})

    def hyperparameters(self, values: Mapping[str, str | bool | float]) -> None:
        """Write the hyperparameters, which a resumed run may have changed."""
        self._run.config.update(dict(values), allow_val_change=True)

    def log_gif(self, name: str, gif: bytes, step: int) -> None:
        """Write an animation under a name."""
        self._run.log({name: self._video(io.BytesIO(gif), format="gif"), STEP: step})

    def finished(self) -> None:
        """Let the run count as finished, not as failed."""
        self._exit_code = 0

    def close(self) -> None:
        """Wait until everything is written or sent."""
        self._run.finish(exit_code=self._exit_code)
