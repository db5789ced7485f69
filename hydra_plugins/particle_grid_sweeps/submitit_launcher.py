"""hydra/launcher=submitit_local: run jobs as submitit does on a cluster, but in processes on this machine.

Hydra's own plugin (hydra-submitit-launcher 1.2.0) does not report how jobs ended, and leaves them running when it ends.
"""

import os
import signal
import time
from contextlib import suppress
from typing import Any

from hydra.core.utils import JobReturn, env_override

from hydra_plugins.particle_grid_sweeps.side_by_side import THREADS, Jobs, SideBySideLauncher, lost, say, without_ctrl_c


class Submitted:
    """The jobs of a sweep as submitit takes them. `checkpoint` lets it restart a job that hit its time limit."""

    def __init__(self, jobs: Jobs) -> None:
        self.jobs = jobs

    def __call__(self, number: int, overrides: list[str]) -> JobReturn:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # submitit ignores it, and trainers do not handle ignored signals
        return self.jobs(number, overrides)

    def checkpoint(self, number: int, overrides: list[str]) -> Any:
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, number, overrides)


class LocalLauncher(SideBySideLauncher):
    """Runs jobs with submitit.

    submitit_folder: for submitit's own output. parameters: as submitit calls them.
    """

    def __init__(self, submitit_folder: str, **parameters: Any) -> None:
        self.folder, self.parameters = submitit_folder, parameters

    def run(self, jobs: Jobs, batch: list[tuple[int, list[str]]]) -> list[JobReturn]:
        from particle_grid.learn.fast import cores
        from particle_grid.support import lifeline, optional

        submitit = optional.load("submitit", "sweep", "hydra/launcher=submitit_local")
        executor = submitit.AutoExecutor(self.folder, cluster="local")
        executor.update_parameters(**self.parameters)
        share = str(max(1, cores() // len(batch)))
        with lifeline.leading():
            # Each job has a process of submitit's, which would answer Ctrl-C by killing the job a second later.
            with without_ctrl_c(), env_override(dict.fromkeys(THREADS, share)):
                submitted = executor.map_array(Submitted(jobs), *zip(*batch, strict=True))
            try:
                return [say(outcome(number, job)) for (number, _), job in zip(batch, submitted, strict=True)]
            except KeyboardInterrupt:
                stop(submitted)
                raise


def outcome(number: int, job: Any) -> JobReturn:
    """Wait for a job and return its result."""
    from submitit.core.utils import UncompletedJobError

    try:
        return job.result()
    except UncompletedJobError as error:  # or raised because the job failed outside the function that Hydra calls
        return lost(number, str(error).splitlines()[0])


def stop(submitted: list[Any]) -> None:
    """Ask jobs to save their work and end, and wait until they have.

    submitit's processes pass the signal on once they have started a job.
    """
    while running := [job for job in submitted if not job.done()]:
        for job in running:
            with suppress(ProcessLookupError):
                os.kill(int(job.job_id), signal.SIGTERM)
        time.sleep(0.5)
