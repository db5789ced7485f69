"""Logging to MLflow, in a local database or on a tracking server."""

import os
import tempfile
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from particle_grid.support import optional

EVERY = "perf/steps_per_second"  # a scalar of each iteration


class MlflowLogger:
    """Writes a run to MLflow, in its own thread, because a server may take longer than an iteration.

    Its environment variables apply, such as MLFLOW_TRACKING_URI and MLFLOW_EXPERIMENT_NAME.

    Args:
        name: of a new run.
        group: of a new run, if any; the tag `group`.
        run_id: of the run to continue, or None for a new one. Steps that MLflow already has are skipped.

    Attributes:
        run_id: by which the run can be continued.

    Raises:
        Exception: from `log`, `log_gif` and `close`: what an earlier call has raised in the meantime.
    """

    essential = False

    def __init__(self, name: str, group: str | None = None, run_id: str | None = None) -> None:
        mlflow = optional.load("mlflow", "mlflow", "logger=mlflow")
        self._entities = mlflow.entities
        self._client = mlflow.MlflowClient()
        self._new = run_id is None
        self._last_step = 0
        self._status = "KILLED"
        if run_id is None:
            tags = {"group": group} if group else {}
            experiment = _experiment(self._client, mlflow.MlflowException)
            self.run_id = self._client.create_run(experiment, tags=tags, run_name=name).info.run_id
        else:
            self.run_id = run_id
            self._client.update_run(run_id, "RUNNING")
            self._last_step = self._read_last_step()
        self._failed = False
        self._pool = ThreadPoolExecutor(1)
        self._calls: deque[Future[None]] = deque()

    def _read_last_step(self) -> int:
        """Return the last step that MLflow has."""
        return max((point.step for point in self._client.get_metric_history(self.run_id, EVERY)), default=0)

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        """Write each scalar under its name, at `step` agent-steps."""
        if step < self._last_step:
            return
        now = int(time.time() * 1000)
        metrics = [self._entities.Metric(name, value, now, step) for name, value in scalars.items()]
        self._start(self._client.log_batch, self.run_id, metrics)

    def hyperparameters(self, values: Mapping[str, str | bool | float]) -> None:
        """Write the hyperparameters of a new run. MLflow does not change those of an earlier one."""
        if self._new:
            params = [self._entities.Param(name, str(value)) for name, value in values.items()]
            self._start(self._client.log_batch, self.run_id, params=params)

    def log_gif(self, name: str, gif: bytes, step: int) -> None:
        """Write an animation as an artifact in a folder with its name."""
        self._start(self._write_gif, name, gif, step)

    def _write_gif(self, name: str, gif: bytes, step: int) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"{step}.gif"
            path.write_bytes(gif)
            self._client.log_artifact(self.run_id, str(path), name)

    def finished(self) -> None:
        """Let the run count as finished, not as killed."""
        self._status = "FINISHED"

    def close(self) -> None:
        """Wait until everything is written."""
        self._start(self._client.set_terminated, self.run_id, self._status)
        self._pool.shutdown()
        for call in self._calls:
            call.result()

    def _start(self, call: Callable[..., None], *arguments: Any, **named: Any) -> None:
        """Make a call in the thread, after all earlier ones. Raise what one of these has raised."""
        while self._calls and self._calls[0].done():
            self._calls.popleft().result()
        self._calls.append(self._pool.submit(self._make, call, *arguments, **named))

    def _make(self, call: Callable[..., None], *arguments: Any, **named: Any) -> None:
        """Make a call, unless an earlier one has failed: MLflow may have tried for minutes."""
        if self._failed:
            return
        try:
            call(*arguments, **named)
        except BaseException:
            self._failed = True
            raise


def _experiment(client: Any, refused: type[Exception]) -> str:
    """Return the id of the experiment in the environment variables, or of our own. A new one is created.

    mlflow.set_experiment would do so too, but binds all later runs of the process to it.
    """
    if number := os.environ.get("MLFLOW_EXPERIMENT_ID"):
        return number
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "particle_grid")
    if client.get_experiment_by_name(name) is None:
        with suppress(refused):  # another run of a sweep was faster
            client.create_experiment(name)
    return str(client.get_experiment_by_name(name).experiment_id)
