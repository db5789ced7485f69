"""One run of a sweep: a run that has ended is not repeated, and a run that was started is resumed."""

from particle_grid.experiments.training import train
from particle_grid.runs.folder import PRUNED, RunFolder
from particle_grid.runs.load import Checkpoint, load_checkpoint
from particle_grid.settings.invocation import Invocation
from particle_grid.settings.run_config import RunConfig


def run_in_sweep(config: RunConfig, call: Invocation, saved: Checkpoint | None) -> float | None:
    """Train a job of a sweep unless it has ended, and return its final normalised score, if any.

    Raises:
        OccupiedError: if its folder holds a run with other settings.
    """
    folder = RunFolder(call.folder)
    with folder.for_sweep(config):
        if folder.ended and not call.side_by_side:
            print(f"{folder.name}: ended earlier, nothing to train")
        if not folder.ended:
            own = load_checkpoint(folder.checkpoint, resume=True) if folder.checkpoint.exists() else saved
            train(config, call, own)
        return folder.read_results().mean("sampled")


def ending(result: float | Exception | None, folder: RunFolder) -> str:
    """Describe how a run ended, from its score, its error, or None if it has no score."""
    match result:
        case None:
            return "pruned" if folder.status() == PRUNED else "not evaluated"
        case Exception():
            return f"failed: {result}"
    return f"normalised score {result:z.3f}"
