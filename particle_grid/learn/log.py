"""TensorBoard logging."""

from collections.abc import Mapping
from pathlib import Path

from tensorboard.compat.proto.summary_pb2 import Summary
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

METRICS = ("eval/sampled", "eval/greedy", "normalised_score")  # that stand beside hyperparameters


class Logger:
    """Writes scalars to TensorBoard, over agent-steps. A context manager: leaving it writes what is left.

    step: where a resumed run goes on. What its interrupted predecessor wrote into the same folder behind that point
    is hidden by TensorBoard.
    """

    def __init__(self, folder: str | Path, step: int = 0) -> None:
        self.writer = SummaryWriter(str(folder), purge_step=step + 1 if step else None, flush_secs=10)
        self._end: Summary | None = None

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        """Writes each scalar under its name. step: agent-steps so far."""
        for name, value in scalars.items():
            self.writer.add_scalar(name, value, step)

    def hyperparameters(self, values: Mapping[str, str | bool | float]) -> None:
        """Writes what the HParams tab shows of a run, beside METRICS."""
        experiment, start, self._end = hparams(dict(values), dict.fromkeys(METRICS, 0.0))
        for summary in (experiment, start):
            self.writer._get_file_writer().add_summary(summary)

    def finished(self) -> None:
        """Notes, for the HParams tab, that the run is complete."""
        if self._end:
            self.writer._get_file_writer().add_summary(self._end)

    def log_gif(self, name: str, gif: bytes, step: int) -> None:
        """Writes a moving image under a name."""
        image = Summary.Image(colorspace=3, encoded_image_string=gif)
        self.writer._get_file_writer().add_summary(Summary(value=[Summary.Value(tag=name, image=image)]), step)

    def close(self) -> None:
        """Writes what is left and closes the file."""
        self.writer.close()

    def __enter__(self) -> "Logger":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
