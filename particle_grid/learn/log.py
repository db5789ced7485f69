"""TensorBoard logging."""

from collections.abc import Mapping
from pathlib import Path

from tensorboard.compat.proto.summary_pb2 import Summary
from torch.utils.tensorboard import SummaryWriter


class Logger:
    """Writes scalars to TensorBoard, over agent-steps. A context manager: leaving it writes what is left.

    step: where a resumed run goes on. What its interrupted predecessor wrote into the same folder behind that point
    is hidden by TensorBoard.
    """

    def __init__(self, folder: str | Path, step: int = 0) -> None:
        self.writer = SummaryWriter(str(folder), purge_step=step + 1 if step else None, flush_secs=10)

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        """Writes each scalar under its name. step: agent-steps so far."""
        for name, value in scalars.items():
            self.writer.add_scalar(name, value, step)

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
