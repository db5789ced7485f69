"""The engines that run the jobs of a sweep in parallel."""

import json
import os
import signal
import subprocess
import sys
from importlib.util import find_spec
from types import SimpleNamespace

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import MissingConfigException

from hydra_plugins.particle_grid_sweeps.joblib_launcher import JoblibLauncher
from particle_grid.learn.fast import cores
from particle_grid.settings.compose import VERSION_BASE, config_folder, register_groups
from particle_grid.settings.errors import explain
from tests.experiments.test_sweep import QUIET, ROOT, SMALL, score_of
from tests.experiments.test_sweep import call as call
from tests.test_train import BATCH


@pytest.mark.filterwarnings("ignore:(?s).*validated against ConfigStore schema")
@pytest.mark.parametrize(
    ("argument", "module", "extra"),
    [
        ("sweeper=optuna", "optuna", "sweep"),
        ("launcher=ray", "ray", "ray"),
        ("launcher=submitit_local", "submitit", "sweep"),
    ],
)
def test_a_missing_engine_is_reported_with_the_command_that_installs_it(call, monkeypatch, argument, module, extra):
    monkeypatch.setitem(sys.modules, module, None)
    code, _, err = call("-m", f"hydra/{argument}", "seed=0,1", QUIET)
    assert code == 1
    assert err.startswith(f"error: hydra/{argument} needs ")
    assert err.endswith(f'which is not installed: pip install "particle-grid[{extra}]"\n')


@pytest.mark.filterwarnings("ignore:(?s).*validated against ConfigStore schema")
def test_a_missing_plugin_of_hydra_is_reported_with_the_command_that_installs_it(call, monkeypatch):
    missing = MissingConfigException("", missing_cfg_file="hydra/launcher/submitit_slurm", options=["basic"])
    assert explain(missing) == (
        "hydra/launcher/submitit_slurm needs hydra-submitit-launcher, which is not installed: "
        'pip install "particle-grid[sweep]"'
    )
    monkeypatch.setattr(Plugins.instance(), "class_name_to_class", {})
    code, _, err = call("-m", "hydra/launcher=submitit_slurm", "seed=0,1", "hydra/sweeper=basic", QUIET)
    assert code == 1
    assert 'pip install "particle-grid[sweep]"' in err
    assert err.count("\n") == 1


def test_runs_that_need_a_gpu_do_not_wait_for_one_on_a_machine_without(call, monkeypatch):
    ray = SimpleNamespace(init=lambda **_: None, cluster_resources=lambda: {"CPU": 2.0})
    monkeypatch.setitem(sys.modules, "ray", ray)
    code, _, err = call("-m", "hydra/launcher=ray", "hydra.launcher.task.num_gpus=0.5", "seed=0,1", QUIET)
    assert code == 1
    assert err.startswith("error: hydra.launcher.task.num_gpus=0.5 cannot be had, because Ray finds 0 GPU(s)")


@pytest.mark.parametrize("n_jobs", [0, -2, 1.5, "two", True, None])
def test_a_number_of_processes_that_is_none_is_refused(n_jobs):
    with pytest.raises(
        ValueError, match=rf"hydra\.launcher\.n_jobs={n_jobs} is invalid: give a number of processes, or"
    ):
        JoblibLauncher(n_jobs)


@pytest.mark.parametrize("variables", [{"WORLD_SIZE": "2"}, {"SLURM_PROCID": "1", "SLURM_NTASKS": "2"}])
def test_a_sweep_in_several_processes_is_refused(call, monkeypatch, variables):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    code, _, err = call("-m", "seed=0,1")
    assert code == 1
    assert err.startswith("error: -m makes many runs, and torchrun and srun start 2 processes that share a single one")


@pytest.mark.filterwarnings("ignore:(?s).*validated against ConfigStore schema")
def test_the_slurm_preset_requests_what_a_job_needs():
    register_groups()
    with initialize_config_dir(str(config_folder()), **VERSION_BASE):
        hydra = compose("train", ["hydra/launcher=submitit_slurm"], return_hydra_config=True).hydra
    launcher = hydra.launcher
    assert launcher._target_.endswith("SlurmLauncher")
    assert (launcher.nodes, launcher.tasks_per_node, launcher.cpus_per_task) == (1, 1, 2)
    assert launcher.max_num_timeout > 0
    assert "NUMBA_NUM_THREADS=$SLURM_CPUS_PER_TASK" in launcher.setup[0]


def run_sweep(folder, *arguments):
    """Run a sweep by its command in a new process, with the default number of threads for each run."""
    small = [each for each in SMALL if not each.startswith("trainer.threads")]
    return subprocess.run(
        [sys.executable, "-m", "particle_grid.train", "-m", *small, *arguments, "hydra.sweep.dir=sweep"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.parametrize(
    "launcher",
    [
        pytest.param("joblib", marks=pytest.mark.slow),
        pytest.param("submitit_local", marks=pytest.mark.release),
        pytest.param("ray", marks=pytest.mark.release),
    ],
)
def test_a_launcher_runs_all_jobs_reports_their_outcomes_and_repeats_nothing(tmp_path, launcher):
    if not find_spec({"submitit_local": "submitit", "ray": "ray"}.get(launcher, "particle_grid")):
        pytest.skip(f"{launcher} is not installed")
    times = []
    for _ in range(2):
        process = run_sweep(tmp_path, f"hydra/launcher={launcher}", "seed=0,0,1", "trainer.epochs=1,-1")
        assert process.returncode == 1, process.stderr
        times.append({path: path.stat().st_mtime_ns for path in tmp_path.glob("sweep/*/results.json")})
        for path in times[-1]:
            assert f"{path.parent.name}: normalised score {score_of(path.parent):.3f}\n" in process.stdout
        failed = [path.parent.name for path in tmp_path.glob("sweep/*/error.txt")]
        assert len(failed) == 2
        for name in failed:
            assert f"{name}: failed: trainer.epochs=-1 is out of range: it must" in process.stdout
    assert times[0] == times[1]
    assert len(times[0]) == 2
    share = max(1, cores() // {"joblib": cores(), "submitit_local": 6, "ray": cores()}[launcher])
    for path in times[0]:
        threads = "one thread" if share == 1 else f"up to {share} threads"
        assert f"on {threads}." in (path.parent / "output.txt").read_text()


class Fake:
    """Stands in for the jobs of a sweep: notes the GPU of its process, and is killed in its first attempts."""

    def __init__(self, folder):
        self.folder = folder

    def __call__(self, number, overrides):
        notes = self.folder / str(number)
        with notes.open("a") as file:
            file.write(f"{os.environ.get('CUDA_VISIBLE_DEVICES')}\n")
        if len(notes.read_text().splitlines()) <= int(overrides[0]):
            os.kill(os.getpid(), signal.SIGKILL)
        if overrides[1:]:
            os._exit(3)
        result = JobReturn(status=JobStatus.COMPLETED)
        result.return_value = 0.5
        return result


@pytest.mark.slow
def test_workers_take_turns_with_the_gpus_and_resume_killed_jobs_a_few_times(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    launcher = JoblibLauncher(2)
    batch = [(0, ["0"]), (1, ["0"]), (2, ["1"]), (3, ["9"]), (4, ["0", "exit"])]
    try:
        results = launcher.run(Fake(tmp_path), batch)
    finally:
        for worker in launcher.workers:
            worker.process.kill()
    notes = [(tmp_path / str(number)).read_text().splitlines() for number in range(5)]
    assert [len(lines) for lines in notes] == [1, 1, 2, 3, 1]
    assert {line for lines in notes for line in lines} == {"4", "7"}
    assert all(len(set(lines)) == 1 for lines in notes)  # a new process of a worker keeps its GPU
    assert [result.status for result in results] == [JobStatus.COMPLETED] * 3 + [JobStatus.FAILED] * 2
    said = capsys.readouterr().out
    assert said.count("normalised score 0.500\n") == 3
    assert "Job 3 was lost: its process was killed 3 times, by signal 9 (9: is there enough memory?).\n" in said
    assert "Job 4 was lost: its process ended with code 3.\n" in said


@pytest.mark.slow
def test_optuna_with_several_processes_prunes_and_uses_its_budget(tmp_path):
    pytest.importorskip("optuna")
    arguments = ["hydra/sweeper=optuna", "hydra/launcher=joblib", f"trainer.total_steps={20 * BATCH}"]
    arguments += ["hydra.sweeper.pruner.n_startup_trials=2", "hydra.sweeper.pruner.n_warmup_steps=1"]
    process = run_sweep(tmp_path, *arguments, "hydra.sweeper.trials=8")
    assert process.returncode == 0, process.stderr
    pruned, finished = (len(list(tmp_path.glob(f"sweep/*/{name}"))) for name in ("pruned.txt", "results.json"))
    assert pruned + finished == 8
    assert pruned > 0
    assert process.stdout.count(": pruned\n") == pruned
    for path in tmp_path.glob("sweep/*/results.json"):
        assert json.loads(path.read_text())["sampled"]
