"""hydra/launcher=ray: each job is a task of a Ray cluster.

Hydra's own plugin (hydra-ray-launcher 1.2.2) pins cloudpickle 2.2.1, which joblib refuses, and drags cloud SDKs along.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus, run_job, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict


class RayLauncher(Launcher):
    """init: of ray.init, where the cluster is. task: of ray.remote, what a job needs of it."""

    def __init__(self, init: DictConfig, task: DictConfig) -> None:
        self.init: Any = OmegaConf.to_container(init, resolve=True)
        self.task: Any = OmegaConf.to_container(task, resolve=True)

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.context, self.function, self.config = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        from particle_grid import extras

        ray = extras.load("ray", "ray", "hydra/launcher=ray")
        setup_globals()
        Path(self.config.hydra.sweep.dir).mkdir(parents=True, exist_ok=True)
        ray.init(ignore_reinit_error=True, **self.init)
        threads = str(max(1, int(self.task.get("num_cpus", 1))))
        variables = dict.fromkeys(("NUMBA_NUM_THREADS", "OMP_NUM_THREADS"), threads)
        remote = ray.remote(runtime_env={"env_vars": variables}, **self.task)(execute)
        shared = (os.getcwd(), self.context, self.config, self.function, Singleton.get_state())
        tasks = [remote.remote(initial_job_idx + k, list(each), *shared) for k, each in enumerate(job_overrides)]
        try:
            return [outcome(ray, task) for task in tasks]
        except KeyboardInterrupt:
            for task in tasks:
                ray.cancel(task)  # raises KeyboardInterrupt in a job, which saves what it has
            ray.wait(tasks, num_returns=len(tasks), timeout=60)
            raise


def outcome(ray: Any, task: Any) -> JobReturn:
    """What a task returned; for one that Ray lost, a failed job, so that the others go on."""
    try:
        result: JobReturn = ray.get(task)
    except ray.exceptions.RayError as error:
        result = JobReturn(status=JobStatus.FAILED)
        result.return_value = RuntimeError(f"Ray lost a job: {str(error).splitlines()[0]}")
    return result


def execute(
    number: int,
    overrides: list[str],
    folder: str,
    context: HydraContext,
    config: DictConfig,
    function: TaskFunction,
    state: dict[Any, Any],
) -> JobReturn:
    """One job, in a process of Ray. folder: that paths are relative to."""
    os.chdir(folder)
    setup_globals()
    Singleton.set_state(state)
    job = context.config_loader.load_sweep_config(config, overrides)
    with open_dict(job):
        job.hydra.job.id, job.hydra.job.num = f"{job.hydra.job.name}_{number}", number
    HydraConfig.instance().set_config(job)
    return run_job(
        hydra_context=context,
        config=job,
        task_function=function,
        job_dir_key="hydra.sweep.dir",
        job_subdir_key="hydra.sweep.subdir",
    )
