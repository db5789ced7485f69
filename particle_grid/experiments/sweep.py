"""Runs whose command may be repeated, those of a sweep and those with resume=auto.

A run that has ended is not repeated, and a run that was started is resumed.
"""

from particle_grid.experiments.training import assist, train
from particle_grid.learn.distributed import ProcessGroup
from particle_grid.runs.folder import PRUNED, RunFolder
from particle_grid.runs.load import Checkpoint, load_checkpoint
from particle_grid.settings.invocation import Invocation
from particle_grid.settings.run_config import RunConfig

ENDED = "ended"  # what the first process tells the others of a run that needs nothing more


def run_once(
    config: RunConfig, call: Invocation, saved: Checkpoint | None, group: ProcessGroup, watch: bool = False
) -> float | None:
    """Train unless the run in this folder has ended, and return its final normalised score, if any.

    Args:
        config, call, group, watch: as for `train`.
        saved: the checkpoint to start from if the folder has none.

    Raises:
        OccupiedError: if the folder holds a run with other settings.
    """
    folder = RunFolder(call.folder)
    with folder.for_repeated_run(config, call.swept):
        if folder.ended:
            group.share(ENDED)
            if not call.side_by_side:
                print(f"{folder.path if call.repeatable else folder.name}: ended earlier, nothing to train")
        else:
            path = str(folder.checkpoint) if folder.checkpoint.exists() else ""
            group.share(path)
            train(config, call, load_checkpoint(path, resume=True) if path else saved, group, watch)
        return folder.read_results().mean("sampled")


def assist_once(config: RunConfig, group: ProcessGroup) -> None:
    """Take part in a run that another process leads by `run_once`."""
    path = group.share("")
    if path != ENDED:
        assist(config, load_checkpoint(path, resume=True) if path else None, group)


def ending(result: float | Exception | None, folder: RunFolder) -> str:
    """Describe how a run ended, from its score, its error, or None if it has no score."""
    match result:
        case None:
            return "pruned" if folder.status() == PRUNED else "not evaluated"
        case Exception():
            return f"failed: {result}"
    return f"normalised score {result:z.3f}"
