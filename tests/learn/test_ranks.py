"""Each process finds its place among those of its run in the variables of what started it."""

import os

import pytest

from particle_grid.learn.ranks import Ranks, first_host, leave_group, ranks, tasks_per_node

TORCHRUN = {"RANK": "1", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}
SRUN = {  # what srun sets for task 5 of 6 on three nodes
    "SLURM_JOB_ID": "70001", "SLURM_STEP_ID": "2", "SLURM_STEP_NUM_TASKS": "6", "SLURM_NTASKS": "6",
    "SLURM_PROCID": "5", "SLURM_LOCALID": "0", "SLURM_NODEID": "2", "SLURM_STEP_NODELIST": "gpu-[03-04,11]",
    "SLURM_STEP_TASKS_PER_NODE": "3,2,1", "SLURM_JOB_NODELIST": "gpu-[01-16]",
}  # fmt: skip
BATCH = {"ENVIRONMENT": "BATCH", "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NTASKS": "6"}
FEW = {"SLURM_PROCID": "1", "SLURM_NTASKS": "2", "SLURM_LOCALID": "1"}


@pytest.fixture
def started(monkeypatch):
    """Set the variables of a process, and no others of torchrun or Slurm."""

    def start(variables):
        for name in [*os.environ]:
            if name in {*TORCHRUN, *BATCH, "MASTER_ADDR", "MASTER_PORT"} or name.startswith("SLURM_"):
                monkeypatch.delenv(name)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return start


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, Ranks()),
        ({"RANK": "1"}, Ranks()),  # other programs set it, too
        (TORCHRUN, Ranks(1, 4, 1, 2)),
        (SRUN, Ranks(5, 6, 0, 1, ("gpu-03", 20003))),
        (SRUN | {"SLURM_NODEID": "0"}, Ranks(5, 6, 0, 3, ("gpu-03", 20003))),
        (SRUN | {"SLURM_NODEID": "0", "SLURM_CPUS_PER_TASK": "8"}, Ranks(5, 6, 0, 1, ("gpu-03", 20003))),
        (SRUN | {"MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "29500"}, Ranks(5, 6, 0, 1, ("10.0.0.1", 29500))),
        (SRUN | TORCHRUN, Ranks(1, 4, 1, 2)),  # torchrun in a task of srun
        (SRUN | {"WORLD_SIZE": "1", "RANK": "0"}, Ranks()),
        (FEW, Ranks(1, 2, 1, 2, ("localhost", 20000))),
        (FEW | {"SLURM_NTASKS": "1", "SLURM_PROCID": "0"}, Ranks()),
        (BATCH, Ranks()),  # a command in a batch script, without srun
        (BATCH | {"SLURM_STEP_ID": "4294967291"}, Ranks()),  # how some versions number the script itself
        (BATCH | SRUN, Ranks(5, 6, 0, 1, ("gpu-03", 20003))),  # srun in a batch script
    ],
)
def test_ranks_are_those_that_torchrun_or_srun_set(started, variables, expected):
    started(variables)
    assert ranks() == expected
    leave_group()
    assert ranks() == Ranks()


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"WORLD_SIZE": "abc"}, "The environment variable WORLD_SIZE=abc is not a number: unset it, or"),
        ({"WORLD_SIZE": "2", "RANK": "2"}, "RANK=2 is not below WORLD_SIZE=2: start the processes with"),
        (FEW | {"SLURM_NTASKS": "-1"}, "The environment variable SLURM_NTASKS=-1 is not a number"),
        (FEW | {"MASTER_PORT": "99999"}, "MASTER_PORT=99999 is not a port: choose a free one up to 65535, or unset"),
        (FEW | {"SLURM_PROCID": "7"}, "SLURM_PROCID=7 is not below SLURM_NTASKS=2: start the processes with"),
    ],
)
def test_variables_that_neither_program_sets_like_this_are_refused(started, variables, message):
    started(variables)
    with pytest.raises(ValueError, match=message):
        ranks()


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("node7", "node7"),
        ("a,b", "a"),
        ("gpu-[03-06,11],login1", "gpu-03"),
        ("rack[1-2]node[08,10-12]-ib", "rack1node08-ib"),
        ("n[5]", "n5"),
        ("n[5", "n5"),  # cut off
        ("", ""),
    ],
)
def test_the_first_host_of_a_list_in_slurms_notation_is_found(nodes, first):
    assert first_host(nodes) == first


def test_tasks_per_node_in_slurms_notation_are_expanded():
    assert tasks_per_node("2(x3),1") == [2, 2, 2, 1]
    assert tasks_per_node("4") == [4]
    assert tasks_per_node("") == []
