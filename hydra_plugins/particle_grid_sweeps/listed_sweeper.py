"""hydra/sweeper=listed: run the jobs that are listed in a file, such as those of a study, with any launcher."""

import json
from pathlib import Path
from typing import Any

from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

AT_ONCE = 1000  # jobs that a launcher gets together: by default, Slurm refuses larger arrays


class ListedSweeper(Sweeper):
    """Runs listed jobs.

    file: JSON, a list with the overrides of each job, in addition to those of the command line.
    """

    launcher: Launcher

    def __init__(self, file: str) -> None:
        self.file = Path(file)

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> list[JobReturn]:
        from particle_grid.settings.compose import register_groups

        jobs: list[list[str]] = json.loads(self.file.read_text("utf-8"))
        register_groups({override for job in jobs for override in job})  # users' classes, which the jobs may name
        batch = [[*arguments, *job] for job in jobs]
        returns: list[Any] = []
        for first in range(0, len(batch), AT_ONCE):
            returns += self.launcher.launch(batch[first : first + AT_ONCE], initial_job_idx=first)
        for each in returns:
            _ = each.return_value  # raises the error of a failed job, but only after all have run
        return returns
