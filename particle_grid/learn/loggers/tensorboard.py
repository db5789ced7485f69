"""Logging to TensorBoard."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.event_file_writer import _AsyncWriterThread
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

METRICS = ("eval/sampled", "eval/greedy", "env/normalised_score")  # shown next to hyperparameters


class TensorBoardLogger:
    """Writes scalars to TensorBoard, over agent-steps.

    Args:
        folder: where to write the events.
        step: where a resumed run continues. TensorBoard then hides what the interrupted run wrote into the same folder
            after that step.

    Raises:
        OSError: from every method, in one sentence, if events can no longer be written.
    """

    essential = True

    def __init__(self, folder: str | Path, step: int = 0) -> None:
        self.folder = folder
        self.writer = SummaryWriter(str(folder), purge_step=step + 1 if step else None, flush_secs=10)
        self._hook = threading.excepthook
        threading.excepthook = self._failed
        self._end: Summary | None = None

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        """Write each scalar under its name, at `step` agent-steps."""
        with self._writing():
            for name, value in scalars.items():
                self.writer.add_scalar(name, value, step)

    def hyperparameters(self, values: Mapping[str, str | bool | float]) -> None:
        """Write the hyperparameters that the HParams tab shows next to METRICS."""
        experiment, start, self._end = hparams(dict(values), dict.fromkeys(METRICS, 0.0))
        self._add(experiment)
        self._add(start)

    def finished(self) -> None:
        """Mark the run as complete in the HParams tab."""
        if self._end:
            self._add(self._end)

    def log_gif(self, name: str, gif: bytes, step: int) -> None:
        """Write an animation under a name."""
        image = Summary.Image(colorspace=3, encoded_image_string=gif)
        self._add(Summary(value=[Summary.Value(tag=name, image=image)]), step)

    def _add(self, summary: Summary, step: int | None = None) -> None:
        with self._writing():
            self.writer._get_file_writer().add_summary(summary, step)

    def close(self) -> None:
        """Write what is left and close the file."""
        try:
            with self._writing():
                self.writer.close()
        finally:
            threading.excepthook = self._hook

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise OSError(
                f"Events cannot be written to {self.folder} ({error.strerror}): check the folder and its free space, "
                f"and resume from the run's last checkpoint."
            ) from error

    def _failed(self, what: threading.ExceptHookArgs) -> None:
        """Ignore an OSError in TensorBoard's writer thread: the next method that is called raises it."""
        if not (isinstance(what.thread, _AsyncWriterThread) and isinstance(what.exc_value, OSError)):
            self._hook(what)
