"""Processes that train together do so in one folder, and alike, whatever started them."""

import os
import random
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from particle_grid.learn import checkpoint
from tests.test_train import BATCH, ROOT, TINY

TRAIN = ["-m", "particle_grid.train", *TINY, "task=center", "clips=0", f"trainer.total_steps={4 * BATCH}"]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run"]


def free_port():
    """Return a port that nothing listens on."""
    with socket.socket() as server:
        server.bind(("localhost", 0))
        return server.getsockname()[1]


def torchrun(nodes, processes):
    """Return the commands that start some processes on each of several nodes, each with its own agent."""
    if nodes == 1:
        return [([*TORCHRUN, "--standalone", f"--nproc-per-node={processes}"], {})]
    meeting = [f"--nnodes={nodes}", f"--master-port={free_port()}", "--master-addr=localhost"]
    return [([*TORCHRUN, *meeting, f"--node-rank={k}", f"--nproc-per-node={processes}"], {}) for k in range(nodes)]


def srun(tasks):
    """Return the commands of the tasks of srun, with the variables that it sets."""
    job = str(random.randrange(1 << 20))
    common = {"SLURM_JOB_ID": job, "SLURM_STEP_ID": "0", "SLURM_NTASKS": str(tasks), "SLURM_STEP_NODELIST": "localhost"}
    common |= {"ENVIRONMENT": "BATCH", "SLURM_STEP_TASKS_PER_NODE": str(tasks)}
    return [
        ([sys.executable], common | {"SLURM_PROCID": str(k), "SLURM_LOCALID": str(k), "SLURM_NODEID": "0"})
        for k in range(tasks)
    ]


def start_all(commands, folder, *arguments):
    """Start commands, each in a session of its own."""
    folder.mkdir(exist_ok=True)
    return [
        subprocess.Popen(
            [*command, *arguments],
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=os.environ | {"PYTHONPATH": str(ROOT)} | variables,
            start_new_session=True,
        )
        for command, variables in commands
    ]


def run_all(commands, folder, *arguments):
    """Run commands at the same time until all have ended, and return them with what they printed."""
    processes = start_all(commands, folder, *arguments)
    try:
        return [(process, process.communicate(timeout=300)[0]) for process in processes]
    finally:
        for process in processes:
            process.kill()


@pytest.mark.parametrize(
    "processes", [pytest.param(2, marks=pytest.mark.slow), pytest.param(4, marks=pytest.mark.release)]
)
def test_processes_train_alike_in_one_folder_whatever_starts_them(tmp_path, processes):
    ways = {"one": torchrun(1, processes), "agents": torchrun(2, processes // 2), "srun": srun(processes)}
    saved = []
    for name, commands in ways.items():
        ended = run_all(commands, tmp_path / name, *TRAIN)
        said = "".join(output for _, output in ended)
        assert [process.returncode for process, _ in ended] == [0] * len(commands), said
        assert said.count("results.json\n") == 1
        [folder] = (tmp_path / name / "outputs").iterdir()
        saved.append((folder / "checkpoint.pt").read_bytes())
        assert [path.name for path in (tmp_path / name).iterdir()] == ["outputs"]
    assert len(checkpoint.load(folder / "checkpoint.pt")["others"]) == processes - 1
    assert saved[0] == saved[1] == saved[2]


@pytest.mark.slow
def test_tasks_of_srun_that_do_not_find_each_other_end_with_a_sentence(tmp_path):
    code = (
        "from datetime import timedelta\nfrom particle_grid import train\nfrom particle_grid.learn import distributed\n"
    )
    code += "distributed.PATIENCE = timedelta(seconds=2)\ntrain.main()"
    [(process, said)] = run_all(srun(2)[1:], tmp_path, "-c", code, *TRAIN[2:])
    assert process.returncode == 1
    assert "error: Task 1 of 2 did not meet the others at localhost:" in said
    assert "within 2 s (" in said
    assert "start all of them with srun" in said
    assert "Traceback" not in said
    assert list(Path(tmp_path).iterdir()) == []
