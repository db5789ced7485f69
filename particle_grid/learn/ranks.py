"""Which of the processes of a run this one is, from the environment variables of `torchrun` or of Slurm's `srun`."""

import os
import re
from dataclasses import dataclass

from particle_grid.support.errors import UserError

TORCHRUN = "WORLD_SIZE"  # set by torchrun, also in the tasks of srun
TASK = "SLURM_PROCID"  # set by srun, and in a batch script
TASKS = ("SLURM_STEP_NUM_TASKS", "SLURM_NTASKS")
NODES = ("SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST", "SLURM_NODELIST")
TASKS_PER_NODE = ("SLURM_STEP_TASKS_PER_NODE", "SLURM_TASKS_PER_NODE")
STEPS = 1 << 31  # numbers of steps are below it; a batch script may have a special one above it
FIRST_PORT = 20_000  # ports from here on are not given to outgoing connections
PORTS = 10_000
LAST_PORT = 65_535


@dataclass(frozen=True)
class Ranks:
    """The place of this process among those of its run. By default there is only this one.

    local_size: number of processes among which the cores that this one may use are divided.
    address: host and port at which the processes meet, or None where torchrun has set this up.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0  #: number of this process among those on its machine
    local_size: int = 1
    address: tuple[str, int] | None = None


def ranks() -> Ranks:
    """Return the place of this process.

    The variables of torchrun take precedence over those of Slurm. A process is alone if neither are set, and in a batch
    script outside srun, whose number of tasks says nothing about it.

    Raises:
        UserError: for variables that these programs do not set like this.
    """
    if os.environ.get(TORCHRUN):
        return _checked(_of_torchrun())
    if os.environ.get(TASK) and not _in_batch_script():
        return _checked(_of_slurm())
    return Ranks()


def leave_group() -> None:
    """Let this process and those that it starts be alone, whatever started it."""
    for name in (TORCHRUN, TASK):
        os.environ.pop(name, None)


def _checked(found: Ranks) -> Ranks:
    if found.size == 1:
        return Ranks()
    if found.rank >= found.size:
        names = "WORLD_SIZE" if found.address is None else "SLURM_NTASKS"
        rank = "RANK" if found.address is None else TASK
        raise UserError(
            f"{rank}={found.rank} is not below {names}={found.size}: start the processes with torchrun or srun."
        )
    return found


def _of_torchrun() -> Ranks:
    size = _number(TORCHRUN)
    if size == 1:
        return Ranks()  # other programs set RANK too
    return Ranks(_number("RANK"), size, _number("LOCAL_RANK"), max(1, _number("LOCAL_WORLD_SIZE", default=1)))


def _of_slurm() -> Ranks:
    size = _number(*TASKS, default=1)
    host = os.environ.get("MASTER_ADDR") or first_host(_text(*NODES) or "localhost")
    usual = FIRST_PORT + (_number("SLURM_JOB_ID") + _number("SLURM_STEP_ID")) % PORTS  # steps run side by side
    port = _number("MASTER_PORT", default=usual)
    if not 0 < port <= LAST_PORT:
        raise UserError(f"MASTER_PORT={port} is not a port: choose a free one up to {LAST_PORT}, or unset it.")
    return Ranks(_number(TASK), size, _number("SLURM_LOCALID"), _tasks_here(size), (host, port))


def _in_batch_script() -> bool:
    """Return whether Slurm runs this process once, as part of a batch script, and not as a task of srun."""
    step = os.environ.get("SLURM_STEP_ID", "")
    return os.environ.get("ENVIRONMENT") == "BATCH" and not (step.isdecimal() and int(step) < STEPS)


def _tasks_here(size: int) -> int:
    """Return the number of tasks that share the cores of this one: none if Slurm gives each its own."""
    if os.environ.get("SLURM_CPUS_PER_TASK"):
        return 1
    counts = tasks_per_node(_text(*TASKS_PER_NODE))
    node = _number("SLURM_NODEID")
    return counts[node] if node < len(counts) else size


def first_host(nodes: str) -> str:
    """Return the first name of a list in Slurm's notation, such as `gpu-03` of `gpu-[03-06,11],login1`."""
    name = re.match(r"(?:[^,\[]|\[[^\]]*\]?)*", nodes)
    return re.sub(r"\[(\w+)[^\]]*\]?", r"\1", name[0] if name else nodes)


def tasks_per_node(text: str) -> list[int]:
    """Return the number of tasks on each node in Slurm's notation, such as 2, 2, 1 for `2(x2),1`."""
    found = re.findall(r"(\d+)(?:\(x(\d+)\))?", text)
    return [int(tasks) for tasks, times in found for _ in range(int(times or 1))]


def _text(*names: str) -> str:
    """Return the first of some environment variables that is set, or nothing."""
    return next(filter(None, map(os.environ.get, names)), "")


def _number(*names: str, default: int = 0) -> int:
    """Return the number in the first of some environment variables that is set."""
    for name in names:
        if text := os.environ.get(name):
            if not text.isdecimal():
                raise UserError(
                    f"The environment variable {name}={text} is not a number: unset it, or start the processes with "
                    f"torchrun or srun."
                )
            return int(text)
    return default
