"""A study gives the same results whatever runs it, and whatever is killed meanwhile."""

import contextlib
import csv
import json
import os
import signal
import sys
import uuid
from importlib.util import find_spec
from pathlib import Path

import pytest

from particle_grid.experiments import pool
from particle_grid.experiments.pool import Job, Launched
from particle_grid.runs.folder import RunFolder
from tests.experiments.test_study import SMOKE
from tests.test_signals import MARK, clean_up, left, start, wait_for
from tests.test_train import ROOT

STARTS = 600  # seconds that Ray and the runs on a busy machine may take
# Four runs, long enough to be killed in their middle.
SMALL = SMOKE.replace("trials: 2", "trials: 1").replace("  forage: [task=forage, task.tolerance=0.7]\n", "")
SMALL = SMALL.replace("  inertial: [world.dynamics=inertial, world.action_cost=0.1]\n", "")
SMALL = SMALL.replace("trainer.total_steps=2000", "trainer.total_steps=100_000\n  - trainer.checkpoint_every=4000")
# Stands in for train: runs the listed jobs, of which one fails.
STAND_IN = """
import json, sys
from pathlib import Path
given = dict(argument.split("=", 1) for argument in sys.argv[2:])
print(sys.argv)
if "n_jobs" in given.get("hydra.launcher.n_jobs", "") or given["hydra.launcher.n_jobs"] == "0":
    sys.exit("error: no such number")
for overrides in json.loads(Path(given["hydra.sweeper.file"].strip("'")).read_text()):
    place = dict(each.split("=", 1) for each in overrides)["hydra.sweep.subdir"].strip("'")
    folder = Path(given["hydra.sweep.dir"].strip("'"), place)
    folder.mkdir(parents=True)
    (folder / ("error.txt" if "seed=1" in overrides else "results.json")).write_text("error: it was told to")
"""


@pytest.fixture
def jobs(monkeypatch, tmp_path):
    (tmp_path / "stand_in.py").write_text(STAND_IN)
    monkeypatch.setattr(pool, "TRAIN", [sys.executable, str(tmp_path / "stand_in.py")])
    monkeypatch.setattr(pool, "PERIOD", 0.05)
    return [Job(RunFolder(tmp_path / "out" / "test" / f"center-{k}"), ("task=center", f"seed={k}")) for k in range(3)]


def test_a_launcher_gets_the_jobs_that_are_not_done_and_failures_are_reported(jobs, tmp_path):
    jobs[0].folder.path.mkdir(parents=True)
    jobs[0].folder.results.touch()
    told = {}
    launched = Launched(["joblib", "n_jobs=2"], tmp_path / "out")
    assert launched.run_all(jobs, lambda job, reason: told.update({job.folder.name: reason})) == [jobs[1]]
    assert told == {"center-1": "it was told to", "center-2": ""}
    listed = json.loads((tmp_path / "out" / "jobs.json").read_text())
    assert listed == [
        ["task=center", f"seed={k}", "trainer.threads=1", f"hydra.sweep.subdir='test/center-{k}'"] for k in (1, 2)
    ]
    jobs[1].folder.results.touch()
    assert launched.run_all(jobs, lambda job, reason: told.clear()) == []
    assert told  # nothing was left to report


def test_a_launcher_that_starts_no_run_is_an_error_with_its_reason(jobs, tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(RuntimeError, match=r"joblib started no run \(error: no such number\): see .*launcher\.txt\."):
        Launched(["joblib", "n_jobs=0"], tmp_path / "out").run_all(jobs, lambda job, reason: None)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["smoke", "--launcher", "rya"], "There is no launcher 'rya'. Did you mean ray? There are: joblib, ray"),
        (["--launcher", "joblib", "smoke"], "'smoke' is not a setting of joblib: write KEY=VALUE, and the plan before"),
        (["smoke", "--launcher", "joblib", "--jobs", "2"], "--jobs is for runs without --launcher: set the launcher's"),
    ],
)
def test_a_launcher_that_is_misspelt_or_misplaced_is_refused(trained, capsys, arguments, message):
    assert trained(*arguments) == 1
    assert f"error: {message}" in capsys.readouterr().err
    assert trained.done == []


def study(folder, *arguments):
    """Start a small study."""
    (folder / "small.yaml").write_text(SMALL)
    return start(["particle_grid.study", "small.yaml", "--out", "out", *arguments], folder)


def ended(process, folder):
    """Wait for a study, and return the scores of its runs."""
    assert process.wait(500) == 0, (folder / "output.txt").read_text()[-3000:]
    with (folder / "out" / "results.csv").open() as file:
        rows = [(row["arm"], row["task"], row["seed"], row["sampled"], row["greedy"]) for row in csv.DictReader(file)]
    assert len(set(rows)) == len(rows) == 4
    return rows


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """The scores of the study in processes of its own."""
    folder = tmp_path_factory.mktemp("pool")
    process = study(folder)
    try:
        return ended(process, folder)
    finally:
        clean_up(process)


def training(process):
    """Return the processes of a command that train."""
    found = []
    for pid in left(process):
        with contextlib.suppress(OSError):
            if b"torch" in Path(f"/proc/{pid}/maps").read_bytes():
                found.append(pid)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("launcher", [[], ["joblib", "n_jobs=2"]], ids=["pool", "joblib"])
def test_a_run_of_a_study_whose_process_is_killed_is_repeated_and_counted_once(tmp_path, expected, launcher):
    process = study(tmp_path, *(["--launcher", *launcher] if launcher else []))
    try:
        wait_for(lambda: list(tmp_path.rglob("checkpoint.pt")), process)
        [killed, *_] = [pid for pid in training(process) if is_leaf(pid)]
        os.kill(killed, signal.SIGKILL)
        assert ended(process, tmp_path) == expected
    finally:
        clean_up(process)


def is_leaf(pid):
    """Return whether a process has no children: it trains, and does not start others that do."""
    return not Path(f"/proc/{pid}/task/{pid}/children").read_text().strip()


@pytest.mark.slow
def test_a_study_through_submitit_gives_the_same_results(tmp_path, expected):
    if not find_spec("submitit"):
        pytest.skip("submitit is not installed")
    process = study(tmp_path, "--launcher", "submitit_local")
    try:
        assert ended(process, tmp_path) == expected
    finally:
        clean_up(process)


@pytest.fixture(scope="module")
def cluster():
    """A Ray cluster of two nodes with a core each, on this machine."""
    if not find_spec("ray"):
        pytest.skip("ray is not installed")
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patched:  # what the nodes inherit
        patched.setenv("PYTHONPATH", str(ROOT))
        patched.setenv(MARK, uuid.uuid4().hex)
        made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        made.mark = os.environ[MARK]
        made.second = made.add_node(num_cpus=1)
        yield made
        made.shutdown()


def running_jobs(mark):
    """Return the processes of a cluster that run a job."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            marked = f"{MARK}={mark}".encode() in (path / "environ").read_bytes().split(b"\0")
            if marked and (path / "cmdline").read_bytes().startswith(b"ray::run_job"):
                found.append(int(path.name))
    return found


@pytest.mark.slow
def test_a_run_of_a_ray_sweep_whose_worker_is_killed_is_repeated_and_counted_once(tmp_path, cluster):
    small = ["experiment=smoke", "task=center", "clips=0", "trainer.checkpoint_every=16384", "evaluations=1"]
    small += ["trainer.total_steps=1e6", "seed=0,1", "hydra.sweep.dir=sweep"]
    launcher = ["hydra/launcher=ray", f"hydra.launcher.init.address={cluster.address}"]
    process = start(["particle_grid.train", "-m", *small, *launcher], tmp_path)
    try:
        wait_for(lambda: len(list(tmp_path.glob("sweep/*/checkpoint.pt"))) == 2, process, STARTS)
        os.kill(running_jobs(cluster.mark)[0], signal.SIGKILL)
        assert process.wait(STARTS) == 0, (tmp_path / "output.txt").read_text()[-3000:]
    finally:
        clean_up(process)
    assert len(list(tmp_path.glob("sweep/*/results.json"))) == 2
    assert (tmp_path / "output.txt").read_text().count(": normalised score ") == 2


@pytest.mark.slow
def test_a_study_on_a_ray_cluster_that_loses_a_node_gives_the_same_results(tmp_path, expected, cluster):
    process = study(tmp_path, "--launcher", "ray", f"init.address={cluster.address}")
    try:
        wait_for(lambda: len(list(tmp_path.rglob("checkpoint.pt"))) == 2, process, STARTS)  # one on each node
        cluster.remove_node(cluster.second, allow_graceful=False)
        assert ended(process, tmp_path) == expected
    finally:
        clean_up(process)
