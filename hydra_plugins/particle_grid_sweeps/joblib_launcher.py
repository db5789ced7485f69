"""hydra/launcher=joblib: run jobs in parallel processes on this machine.

Hydra's own plugin (hydra-joblib-launcher 1.2.0), whose name this one takes, kills its processes at Ctrl-C before they
can save their work, and when one process dies, all others are lost with it.
"""

import multiprocessing
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Any

import cloudpickle
from hydra.core.utils import JobReturn, env_override

from hydra_plugins.particle_grid_sweeps.side_by_side import THREADS, Jobs, SideBySideLauncher, lost, say, without_ctrl_c


class Worker:
    """A process that runs one job after another. If a job ends it, the next one gets a new process."""

    def __init__(self) -> None:
        self.stopped = False
        self.start()

    def start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, other = context.Pipe()
        self.process = context.Process(target=serve, args=(other,), daemon=True)
        self.process.start()
        other.close()  # otherwise the end of the process would not be noticed

    def run(self, jobs: Jobs, number: int, overrides: list[str]) -> JobReturn:
        """Run a job to its end, and print how it ended unless it was asked to stop."""
        if not (self.process.is_alive() or self.stopped):
            self.start()
        try:
            self.connection.send_bytes(cloudpickle.dumps((jobs, number, overrides)))
            result = cloudpickle.loads(self.connection.recv_bytes())
        except (EOFError, OSError):
            self.process.join()
            result = lost(number, f"its process ended with code {self.process.exitcode} (-9: is there enough memory?).")
        return result if self.stopped else say(result)

    def stop(self) -> None:
        """Ask the process to save its work and end."""
        self.stopped = True
        self.process.terminate()


def serve(connection: Connection) -> None:
    """Run the jobs that arrive, until one is interrupted."""
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

        if n_jobs < 1 and n_jobs != -1:
            raise UserError(
                f"hydra.launcher.n_jobs={n_jobs} is invalid: give a number of processes, or -1 for all cores."
            )
        self.n_jobs = n_jobs
        self.workers: list[Worker] = []  # kept for the next batch of a search

    def run(self, jobs: Jobs, batch: list[tuple[int, list[str]]]) -> list[JobReturn]:
        from particle_grid.learn.fast import cores
        from particle_grid.support import lifeline

        count = cores() if self.n_jobs == -1 else self.n_jobs
        share = str(max(1, cores() // count))
        with lifeline.leading(), env_override(dict.fromkeys(THREADS, share)):
            with without_ctrl_c():
                self.workers += [Worker() for _ in range(min(count, len(batch)) - len(self.workers))]
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
