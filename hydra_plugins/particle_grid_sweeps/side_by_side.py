"""The common part of the launchers that run jobs in other processes."""

import os
import signal
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus, run_job, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict

THREADS = ("NUMBA_NUM_THREADS", "OMP_NUM_THREADS")  # environment variables: how many threads a process may use


@dataclass
class Jobs:
    """The jobs of a sweep, without their overrides: what a worker process needs to run one.

    folder: the folder that paths are relative to.
    """

    context: HydraContext
    function: TaskFunction
    config: DictConfig
    state: dict[Any, Any] = field(default_factory=Singleton.get_state)
    folder: str = field(default_factory=os.getcwd)

    def __call__(self, number: int, overrides: list[str]) -> JobReturn:
        """Run one job, in this process."""
        from particle_grid.learn.ranks import leave_group

        leave_group()  # a worker may have been started by srun, as one of many that run jobs of their own
        os.chdir(self.folder)
        setup_globals()
        Singleton.set_state(self.state)
        job = self.context.config_loader.load_sweep_config(self.config, overrides)
        with open_dict(job):
            job.hydra.job.id, job.hydra.job.num = f"{job.hydra.job.name}_{number}", number
        HydraConfig.instance().set_config(job)
        return run_job(
            hydra_context=self.context,
            config=job,
            task_function=self.function,
            job_dir_key="hydra.sweep.dir",
            job_subdir_key="hydra.sweep.subdir",
        )


class SideBySideLauncher(Launcher):
    """Runs jobs in separate processes."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.context = hydra_context
        self.function = task_function
        self.config = config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        setup_globals()
        Path(self.config.hydra.sweep.dir).mkdir(parents=True, exist_ok=True)
        batch = [(initial_job_idx + k, list(overrides)) for k, overrides in enumerate(job_overrides)]
        return self.run(Jobs(self.context, self.function, self.config), batch)

    @abstractmethod
    def run(self, jobs: Jobs, batch: list[tuple[int, list[str]]]) -> list[JobReturn]:
        """Run a batch of numbered overrides, and print how each job ended.

        On KeyboardInterrupt, let the jobs save their work before passing it on.
        """


@contextmanager
def without_ctrl_c() -> Iterator[None]:
    """Let processes that are started inside ignore Ctrl-C.

    The terminal sends it to each of them, but their parent asks them to stop. A trainer responds to it nevertheless.
    """
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)


def lost(number: int, reason: str) -> JobReturn:
    """Return a failure as the result of a job whose process died, so that the others continue."""
    result = JobReturn(status=JobStatus.FAILED)
    result.return_value = RuntimeError(f"Job {number} was lost: {reason}")
    return result


def say(result: JobReturn) -> JobReturn:
    """Print how a job ended; return its result."""
    from particle_grid.experiments.sweep import ending
    from particle_grid.runs.folder import RunFolder

    folder = RunFolder(Path(result.hydra_cfg.hydra.runtime.output_dir) if result.hydra_cfg else Path())
    value = result._return_value  # the property prints, and raises, the error of a failed job
    print(f"{folder.name}: {ending(value, folder)}".removeprefix(": "), flush=True)
    return result
