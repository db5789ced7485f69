"""The loggers that a run has asked for."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from filelock import FileLock

from particle_grid.learn.loggers import LOGGERS, SERVICES
from particle_grid.learn.loggers.csv_file import CsvLogger
from particle_grid.learn.loggers.mlflow import MlflowLogger
from particle_grid.learn.loggers.several import Loggers, RunLogger, reason
from particle_grid.learn.loggers.tensorboard import TensorBoardLogger
from particle_grid.learn.loggers.trackio import TrackioLogger
from particle_grid.learn.loggers.wandb import WandbLogger
from particle_grid.runs.folder import RunFolder
from particle_grid.settings.invocation import Invocation
from particle_grid.settings.run_config import RunConfig
from particle_grid.support import optional
from particle_grid.support.errors import UserError

SERVICES_LOCK = ".services.lock"  # in a sweep's folder: two runs must not create MLflow's database at the same time


def check_installed(config: RunConfig) -> None:
    """Raise UserError if a run asks for a logger whose library is not installed."""
    for name in SERVICES:
        if name in config.logger:
            optional.load(name, name, f"logger={name}")


@contextmanager
def open_loggers(
    config: RunConfig, folder: RunFolder, call: Invocation, step: int, say: Callable[[str], None]
) -> Iterator[Loggers]:
    """Yield the loggers of a run, and close them.

    A run in a service is continued by every process that trains in the same folder.

    Args:
        config: the settings of the run, which name the loggers.
        folder: of the run.
        call: what its command was, for the names of a run and its group.
        step: where a resumed run continues.
        say: prints a sentence about a logger that failed.

    Raises:
        UserError: if a service refuses the run or cannot be reached, or a file to continue is damaged.
        OSError: if a file cannot be written.
    """
    with Loggers(say) as loggers:
        for name in LOGGERS:  # services first: they have what a file could not take
            if name in config.logger:
                loggers.add(name, _open(name, folder, call, step))
        yield loggers


def _open(name: str, folder: RunFolder, call: Invocation, step: int) -> RunLogger:
    match name:
        case "tensorboard":
            return TensorBoardLogger(folder.path, step)
        case "csv":
            return CsvLogger(folder.scalars, step)
    if not call.swept:
        return _open_service(name, folder, None)
    sweep = call.folder.parent
    with FileLock(sweep / SERVICES_LOCK):
        return _open_service(name, folder, sweep.name)


def _open_service(name: str, folder: RunFolder, group: str | None) -> RunLogger:
    """Start or continue a run in a service."""
    run_ids = folder.read_service_runs()
    run_id = run_ids.get(name)
    logger: WandbLogger | TrackioLogger | MlflowLogger
    try:
        match name:
            case "wandb":
                logger = WandbLogger(folder.name, folder.path, group, run_id)
            case "trackio":
                logger = TrackioLogger(folder.name, group, run_id)
            case _:
                logger = MlflowLogger(folder.name, group, run_id)
    except UserError:
        raise
    except Exception as error:  # each library has its own
        again = f", remove {folder.service_runs} to start a new run there" if run_id else ""
        raise UserError(
            f"logger={name} cannot start ({reason(error)}): check its settings and the network{again}, or leave it out."
        ) from error
    folder.write_service_runs(run_ids | {name: logger.run_id})
    return logger
