"""hydra/launcher=ray: run each job as a task on a Ray cluster.

Hydra's own plugin (hydra-ray-launcher 1.2.2) pins cloudpickle 2.2.1, which joblib refuses, and requires cloud SDKs.
"""

from typing import Any

from hydra.core.utils import JobReturn
from omegaconf import DictConfig, OmegaConf

from hydra_plugins.particle_grid_sweeps.side_by_side import THREADS, Jobs, SideBySideLauncher, lost, say


class RayLauncher(SideBySideLauncher):
    """Runs jobs on a Ray cluster.

    init: arguments of ray.init, such as the address. task: arguments of ray.remote, such as the cores of a job.
    """

    def __init__(self, init: DictConfig, task: DictConfig) -> None:
        self.init: Any = OmegaConf.to_container(init, resolve=True)
        self.task: Any = OmegaConf.to_container(task, resolve=True)

    def run(self, jobs: Jobs, batch: list[tuple[int, list[str]]]) -> list[JobReturn]:
        from particle_grid.support import lifeline, optional

        ray = optional.load("ray", "ray", "hydra/launcher=ray")
        ray.init(ignore_reinit_error=True, **self.init)
        self._check_gpus(ray)
        share = str(max(1, int(self.task.get("num_cpus", 1))))
        remote = ray.remote(runtime_env={"env_vars": dict.fromkeys(THREADS, share)}, **self.task)(run_job)
        with lifeline.leading():
            tasks = [remote.remote(jobs, *each) for each in batch]
            try:
                return [say(outcome(ray, number, task)) for (number, _), task in zip(batch, tasks, strict=True)]
            except KeyboardInterrupt:
                for task in tasks:
                    ray.cancel(task)  # raises KeyboardInterrupt in a job, which saves its progress
                ray.wait(tasks, num_returns=len(tasks), timeout=60)
                raise

    def _check_gpus(self, ray: Any) -> None:
        """Raise UserError if jobs need GPUs that a cluster on this machine does not have; others may still grow."""
        from particle_grid.support.errors import UserError

        wanted, there = self.task.get("num_gpus") or 0, ray.cluster_resources().get("GPU", 0)
        if there < wanted and self.init.get("address") == "local":
            raise UserError(
                f"hydra.launcher.task.num_gpus={wanted} cannot be had, because Ray finds {there:g} GPU(s) on this "
                f"machine: give 0, or the address of a cluster as hydra.launcher.init.address."
            )


def run_job(jobs: Jobs, number: int, overrides: list[str]) -> JobReturn:
    """Run a job in a process of Ray."""
    return jobs(number, overrides)


def outcome(ray: Any, number: int, task: Any) -> JobReturn:
    """Wait for a task and return its result."""
    try:
        return ray.get(task)
    except ray.exceptions.RayError as error:
        return lost(number, str(error).splitlines()[0])
