"""Processes that train together do so in one folder, and alike, whatever started them."""

import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from particle_grid.learn import checkpoint
from particle_grid.learn.distributed import ProcessGroup
from tests.learn.test_distributed import updated
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
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


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


UPDATE = """
import torch
from particle_grid.learn.distributed import joined
from tests.learn.test_distributed import updated
with joined(cuda=False) as group:
    weights = updated(group)
    if group.rank == 0:
        torch.save(weights, "weights.pt")
"""


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_processes_on_two_nodes_take_the_steps_of_one_process_with_all_agents(tmp_path, processes):
    script = tmp_path / "update.py"
    script.write_text(UPDATE)
    ended = run_all(torchrun(2, processes), tmp_path, str(script))
    assert [process.returncode for process, _ in ended] == [0, 0], ended
    weights = torch.load(tmp_path / "weights.pt")
    for name, expected in updated(ProcessGroup()).items():
        torch.testing.assert_close(weights[name], expected, rtol=1e-4, atol=1e-5, msg=name)


def altered(change):
    """Return a program that trains after a change to the module that lets tasks find each other."""
    imports = ["from datetime import timedelta", "from particle_grid import train"]
    return "\n".join([*imports, "from particle_grid.learn import distributed", change, "train.main()"])


@pytest.mark.slow
def test_tasks_of_srun_that_do_not_find_each_other_end_with_a_sentence(tmp_path):
    code = altered("distributed.PATIENCE, distributed.SILENCE = timedelta(seconds=2), 0.5")
    [(process, said)] = run_all(srun(2)[1:], tmp_path, "-c", code, *TRAIN[2:])
    assert process.returncode == 1
    assert "Task 1 of 2 waits at localhost:" in said
    assert "error: Task 1 of 2 did not meet the others at localhost:" in said
    assert "within 2 s (" in said
    assert "start all of them with srun" in said
    assert "Traceback" not in said
    assert list(Path(tmp_path).iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_task_of_srun_that_waits_for_others_ends_at_a_signal(rank, tmp_path):
    [process] = start_all([srun(2)[rank]], tmp_path, "-c", altered("distributed.SILENCE = 0.0"), *TRAIN[2:])
    try:
        assert any("waits at localhost:" in line for line in iter(process.stdout.readline, ""))
        process.terminate()
        said, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 128 + signal.SIGTERM, said
    assert said.endswith("interrupted\n")


# Substitutes for Slurm's programs. srun starts the tasks of a job, and asks them once to save, as before a time limit.
SRUN = """while [[ $1 == --* ]]; do shift; done
for k in $(seq 0 $((SLURM_NTASKS - 1))); do
    SLURM_STEP_ID=0 SLURM_PROCID=$k SLURM_LOCALID=$k "$@" &
    tasks+=($!)
done
if [ ! -e asked ]; then
    while [ ! -e outputs/large/checkpoint.pt ] && kill -0 "${tasks[0]}"; do sleep 0.05; done
    touch asked
    kill -TERM "${tasks[@]}"
fi
for task in "${tasks[@]}"; do
    wait "$task"
    code=$?
    [ $code -gt ${worst:-0} ] && worst=$code
done
exit ${worst:-0}
"""


@pytest.mark.slow
def test_the_batch_script_of_the_examples_saves_before_its_time_limit_and_resumes_when_it_is_requeued(tmp_path):
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, text in (
        ("srun", SRUN),
        ("scontrol", 'echo "$@" >> requeued'),
        ("python", f'exec {sys.executable} "$@"'),
    ):
        (programs / name).write_text(f"#!/bin/bash\n{text}\n")
        (programs / name).chmod(0o755)
    variables = srun(2)[0][1] | {"SLURM_CPUS_PER_TASK": "1", "PATH": f"{programs}:{os.environ['PATH']}"}
    del variables["SLURM_STEP_ID"]  # as in a batch script
    script = [(["bash", str(ROOT / "examples" / "train.sbatch")], variables)]
    arguments = [*TINY, "task=center", "clips=0", "name=large", f"trainer.total_steps={100 * BATCH}"]
    arguments.append(f"trainer.checkpoint_every={4 * BATCH}")
    codes = []
    for _ in range(3):
        [(process, said)] = run_all(script, tmp_path, *arguments)
        codes.append(process.returncode)
    assert codes == [143, 0, 0], said
    assert (tmp_path / "requeued").read_text() == f"requeue {variables['SLURM_JOB_ID']}\n"
    assert checkpoint.load(tmp_path / "outputs" / "large" / "checkpoint.pt")["steps"] == 100 * BATCH
    assert said.count("ended earlier, nothing to train") == 1
