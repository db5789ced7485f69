"""hydra/launcher=joblib: run jobs in parallel processes on this machine.

Hydra's own plugin (hydra-joblib-launcher 1.2.0), whose name this one takes, kills its processes at Ctrl-C before they
can save their work, and when one process dies, all others are lost with it.
"""

import multiprocessing
import os
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Any

import cloudpickle
from hydra.core.utils import JobReturn, env_override

from hydra_plugins.particle_grid_sweeps.side_by_side import THREADS, Jobs, SideBySideLauncher, lost, say, without_ctrl_c


class Worker:
    """A process that runs one job after another. If it is killed, the job is repeated in a new process.

    environment: variables that belong to this worker, such as its GPU.
    """

    def __init__(self, environment: dict[str, str]) -> None:
        self.environment = environment
        self.stopped = False
        self.start()

    def start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, other = context.Pipe()
        self.process = context.Process(target=serve, args=(other, self.environment), daemon=True)
        self.process.start()
        other.close()  # otherwise the end of the process would not be noticed

    def run(self, jobs: Jobs, number: int, overrides: list[str]) -> JobReturn:
        """Run a job to its end, and print how it ended unless it was asked to stop."""
        from particle_grid.experiments.pool import ATTEMPTS, is_killed, why_ended

        job = cloudpickle.dumps((jobs, number, overrides))
        for left in reversed(range(ATTEMPTS)):
            result = self.attempt(job)
            if result or self.stopped or not (left and is_killed(self.process.exitcode)):
                break
        if result is None:
            result = lost(number, f"{why_ended(self.process.exitcode)}.")
        return result if self.stopped else say(result)

    def attempt(self, job: bytes) -> JobReturn | None:
        """Run a job, and return its result, or None if the process ended before that."""
        if not (self.process.is_alive() or self.stopped):
            self.start()
        try:
            self.connection.send_bytes(job)
            return cloudpickle.loads(self.connection.recv_bytes())
        except (EOFError, OSError):
            self.process.join()
            return None

    def stop(self) -> None:
        """Ask the process to save its work and end."""
        self.stopped = True
        self.process.terminate()


def serve(connection: Connection, environment: dict[str, str]) -> None:
    """Run the jobs that arrive, until one is interrupted."""
    os.environ.update(environment)  # before a job imports what reads it
    while True:
        try:
            jobs, number, overrides = cloudpickle.loads(connection.recv_bytes())
            result = jobs(number, overrides)
        except (EOFError, KeyboardInterrupt):
            return
        connection.send_bytes(cloudpickle.dumps(result))


class JoblibLauncher(SideBySideLauncher):
    """Runs jobs in worker processes.

    n_jobs: processes at a time, or -1 for as many as there are cores.
    """

    def __init__(self, n_jobs: int, **_: Any) -> None:
        from particle_grid.support.errors import UserError

        if type(n_jobs) is not int or (n_jobs < 1 and n_jobs != -1):
            raise UserError(
                f"hydra.launcher.n_jobs={n_jobs} is invalid: give a number of processes, or -1 for all cores."
            )
        self.n_jobs = n_jobs
        self.workers: list[Worker] = []  # kept for the next batch of a search

    def run(self, jobs: Jobs, batch: list[tuple[int, list[str]]]) -> list[JobReturn]:
        from particle_grid.learn.distributed import gpu_for
        from particle_grid.learn.fast import cores
        from particle_grid.support import lifeline

        count = cores() if self.n_jobs == -1 else self.n_jobs
        share = str(max(1, cores() // count))
        with lifeline.leading(), env_override(dict.fromkeys(THREADS, share)):
            with without_ctrl_c():
                self.workers += [Worker(gpu_for(k)) for k in range(len(self.workers), min(count, len(batch)))]
            return self.share_out(jobs, batch)

    def share_out(self, jobs: Jobs, batch: list[tuple[int, list[str]]]) -> list[JobReturn]:
        """Give a job to each free worker."""
        free: SimpleQueue[Worker] = SimpleQueue()
        for worker in self.workers:
            free.put(worker)

        def run_one(number: int, overrides: list[str]) -> JobReturn:
            worker = free.get()
            try:
                return worker.run(jobs, number, overrides)
            finally:
                free.put(worker)

        with ThreadPoolExecutor(len(self.workers)) as threads:  # waits at its end for the running jobs
            futures = [threads.submit(run_one, *each) for each in batch]
            try:
                return [future.result() for future in futures]
            except KeyboardInterrupt:
                for future in futures:
                    future.cancel()
                for worker in self.workers:
                    worker.stop()
                raise
