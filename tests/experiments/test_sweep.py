"""Sweeps: folders, resuming, failures, pruning, and the engines that run them, on worlds small enough for seconds."""

import json
import os
import signal
import subprocess
import sys
import threading
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.plugins import Plugins
from hydra.errors import MissingConfigException
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from particle_grid import train
from particle_grid.cli import config_folder, digest, explain
from particle_grid.evaluation import results, scores
from particle_grid.experiments import sweep
from particle_grid.experiments.pool import Job
from particle_grid.learn import checkpoint
from particle_grid.learn.fast import cores
from particle_grid.learn.policy import make_policy
from particle_grid.learn.tensorboard import METRICS
from particle_grid.learn.trainer import Stop, Trainer, TrainerConfig
from tests.cases import small
from tests.test_train import BATCH, TINY

ROOT = Path(__file__).parents[2]
SMALL = [*TINY, "task=center", "clips=0", f"trainer.total_steps={4 * BATCH}"]
QUIET = "hydra/hydra_logging=disabled"
# Ends its own process in the second run, behind its first checkpoint and before its second one.
KILLED = """
import os
from particle_grid import train
from particle_grid.evaluation import results, scores
from particle_grid.experiments import sweep
scores.STEPS, results.record = 8, lambda *_, **__: None
class Killer:
    def log(self, step, scalars):
        if step == {step} and os.path.exists("sweep/first"):
            os.kill(os.getpid(), {number})
sweep.pruning = lambda total: [Killer()]
finish, sweep.score = sweep.score, lambda folder: (open("sweep/first", "w").close(), finish(folder))[1]
train.main()
"""


@pytest.fixture
def call(invoke, monkeypatch):
    """Runs train's main in an empty folder, with short evaluations and no film: exit code, stdout, stderr."""
    monkeypatch.setattr(results, "record", lambda *_, **__: None)
    monkeypatch.setattr(scores, "STEPS", 8)
    return lambda *arguments: invoke(train.main, *arguments)


@pytest.fixture
def trained(monkeypatch):
    """The steps at which each call of the trainer's loop began."""
    begun, run = [], Trainer.run
    monkeypatch.setattr(Trainer, "run", lambda self: (begun.append(self.steps), run(self))[1])
    return begun


def code_of(*overrides):
    """What stands for a config in the name of its folder."""
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        return digest(_root_=compose("train", list(overrides)))


def test_the_folder_of_a_run_depends_on_its_config_alone():
    codes = [code_of(f"seed={seed}", f"trainer.gamma={gamma}") for seed in (0, 1) for gamma in (0.9, 0.95)]
    assert len(set(codes)) == 4
    assert code_of("trainer.gamma=0.95", "seed=1", "task=group") == codes[3]
    assert code_of("trainer.learning_rate=2e-3") == code_of("trainer.learning_rate=0.002") == codes[0]


def test_the_same_sweep_again_trains_only_what_is_new(call, trained):
    code, _, err = call("-m", *SMALL, "seed=0,1", "hydra.sweep.dir=sweep")
    assert (code, err, trained) == (0, "", [0, 0])
    written = {path: path.stat().st_mtime_ns for path in Path("sweep").glob("*/results.json")}
    code, out, err = call("-m", *SMALL, "seed=2,1,0", "hydra.sweep.dir=sweep", QUIET)
    assert (code, err, trained) == (0, "", [0, 0, 0])
    assert all(path.stat().st_mtime_ns == time for path, time in written.items())
    lines = [line for line in out.splitlines() if ": normalised score" in line]
    assert [line.partition("_seed")[2][0] for line in lines] == ["2", "1", "0"]
    for path in written:
        assert f"{path.parent.name}: normalised score {sweep.score(path.parent):.3f}" in out


@pytest.mark.parametrize("number", [pytest.param(signal.SIGINT, marks=pytest.mark.slow), signal.SIGKILL])
def test_an_interrupted_sweep_repeats_nothing_and_ends_as_one_that_was_not(call, trained, tmp_path, number):
    many = [*SMALL, f"trainer.total_steps={8 * BATCH}", f"trainer.checkpoint_every={3 * BATCH}", "seed=0,1"]
    code = KILLED.format(step=5 * BATCH, number=int(number))
    process = subprocess.run(
        [sys.executable, "-c", code, "-m", *many, "hydra.sweep.dir=sweep"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert process.returncode == (130 if number == signal.SIGINT else -number), process.stderr
    assert len(list(Path("sweep").glob("*/results.json"))) == 1
    assert call("-m", *many, "hydra.sweep.dir=sweep")[0] == 0
    assert trained == [5 * BATCH if number == signal.SIGINT else 3 * BATCH]
    assert call("-m", *many, "hydra.sweep.dir=whole")[0] == 0
    for path in Path("whole").glob("*/checkpoint.pt"):
        whole, other = checkpoint.load(path), checkpoint.load(Path("sweep") / path.relative_to("whole"))
        assert all(torch.equal(value, other["policy"][name]) for name, value in whole["policy"].items())
        assert (path.parent / "results.json").read_text() == (
            Path("sweep") / path.relative_to("whole").parent / "results.json"
        ).read_text()


def test_a_run_that_died_before_its_first_checkpoint_starts_anew_without_its_old_curve(call):
    arguments = ["-m", *SMALL, "seed=0", "hydra.sweep.dir=sweep"]
    assert call(*arguments)[0] == 0
    [folder] = Path("sweep").glob("*_seed0_*")
    for name in ("results.json", "checkpoint.pt"):
        (folder / name).unlink()
    assert call(*arguments)[0] == 0
    assert len(list(folder.glob("events.*"))) == 1
    assert curve_of(folder) == [BATCH * k for k in (1, 2, 3, 4)]


def curve_of(folder):
    """The steps of all that a folder holds of a learning curve."""
    return [event.step for event in EventAccumulator(str(folder)).Reload().Scalars("loss/policy")]


@pytest.mark.parametrize("elsewhere", [False, True], ids=["from the start", "from another folder's checkpoint"])
def test_a_run_alone_in_a_folder_where_one_died_has_no_curve_but_its_own(call, elsewhere):
    assert call(*SMALL, "hydra.run.dir=first")[0] == 0
    assert call(*SMALL, "hydra.run.dir=run")[0] == 0
    for name in ("results.json", "checkpoint.pt"):
        Path("run", name).unlink()
    arguments = ["resume=first/checkpoint.pt", f"trainer.total_steps={6 * BATCH}"] if elsewhere else SMALL
    assert call(*arguments, "hydra.run.dir=run")[0] == 0
    first, last = (5, 6) if elsewhere else (1, 4)
    assert curve_of("run") == [BATCH * k for k in range(first, last + 1)]
    assert Path("run", "overrides.yaml").exists() != elsewhere  # those of the dead run are not its own
    assert call("resume=run/checkpoint.pt", f"trainer.total_steps={8 * BATCH}", "hydra.run.dir=run")[0] == 0
    assert curve_of("run") == [BATCH * k for k in range(first, 9)]  # one that goes on in its own folder keeps its own


def test_what_a_finished_run_without_its_weights_has_left_is_kept(call, trained):
    arguments = [*SMALL, "seed=0"]
    assert call("-m", *arguments, "hydra.sweep.dir=sweep")[0] == 0
    [folder] = Path("sweep").glob("*_seed0_*")
    (folder / "checkpoint.pt").unlink()
    before = curve_of(folder)
    assert call("-m", *arguments, "hydra.sweep.dir=sweep")[0] == 0
    code, _, err = call(*arguments, f"hydra.run.dir={folder}")
    assert (code, trained) == (1, [0])
    assert "holds the end of a run, which this one would overwrite: choose another hydra.run.dir." in err
    assert curve_of(folder) == before


def test_a_job_goes_on_in_a_folder_of_any_name_with_what_it_was_begun_with(call, trained):
    job = Job(Path("a (b)=c, 'd' \"e\" \\f\\") / "0", tuple(SMALL))
    assert call(*job.arguments)[0] == 0
    (job.folder / "results.json").unlink()
    assert call(*job.arguments)[0] == 0
    assert (trained, job.done) == ([0, 4 * BATCH], True)
    job.check()
    with pytest.raises(ValueError, match=r"begun with no trainer\.clip, and this one has trainer\.clip=0\.1"):
        Job(job.folder, (*SMALL, "trainer.clip=0.1")).check()


def test_a_failed_run_leaves_its_reason_and_the_others_run(call):
    code, _, err = call("-m", *SMALL, "trainer.epochs=-1,1", "hydra.sweep.dir=sweep")
    assert code == 1
    assert "trainer.epochs=-1 is out of range" in err
    [reason] = Path("sweep").glob("*/error.txt")
    lines = reason.read_text().splitlines()
    assert lines[0].startswith("Traceback")
    assert lines[-1] == "error: trainer.epochs=-1 is out of range: it must be positive."
    [results] = Path("sweep").glob("*/results.json")
    assert results.parent != reason.parent


def test_a_folder_that_holds_another_run_is_refused_and_left_as_it_was(call, trained):
    place = ["hydra.sweep.dir=sweep", "hydra.sweep.subdir=one"]
    assert call("-m", *SMALL, *place)[0] == 0
    before = {path.name: path.read_bytes() for path in Path("sweep/one").iterdir() if path.is_file()}
    code, _, err = call("-m", *SMALL, *place, "trainer.clip=0.1")
    assert (code, trained) == (1, [0])
    assert "sweep/one holds a run with trainer.clip=0.2, and this one has trainer.clip=0.1: choose another" in err
    assert {path.name: path.read_bytes() for path in Path("sweep/one").iterdir() if path.is_file()} == before


def test_two_processes_never_train_in_one_folder_at_a_time(tmp_path, capsys):
    said, held, inside = [], threading.Event(), threading.Event()
    config = {"seed": 0} | {group: {} for group in sweep.RUN_GROUPS}

    def first():
        with sweep.turn(tmp_path, config):
            inside.set()
            held.wait(10)
            said.append("first has done")

    def second():
        inside.wait(10)
        with sweep.turn(tmp_path, config):
            said.append("second begins")

    threads = [threading.Thread(target=first), threading.Thread(target=second)]
    for thread in threads:
        thread.start()
    threads[1].join(0.3)
    held.set()
    for thread in threads:
        thread.join(10)
    assert said == ["first has done", "second begins"]
    assert "waiting for another process that trains there" in capsys.readouterr().out


def test_a_logger_can_end_a_run_which_saves_what_it_has(tmp_path):
    class Stopper:
        def log(self, step, scalars):
            if step >= 2 * trainer.batch:
                raise Stop("enough")

    env = small("center", "discrete")
    policy = make_policy("mlp", env.vision, env.single_action_space, hidden=16)
    config = TrainerConfig(total_steps=10**6, rollout_length=8, minibatch=480, device="cpu")
    trainer = Trainer(env, policy, config, [Stopper()], tmp_path / "checkpoint.pt")
    result = trainer.run()
    assert (result.steps, result.interrupted, result.reason) == (2 * trainer.batch, True, "enough")
    assert checkpoint.load(tmp_path / "checkpoint.pt")["steps"] == result.steps


def run_trial(study, values):
    """Ten reports of a run that is judged by a study's pruner: those it got to, and the reason why it ended, if any."""
    trial, score = study.ask(), 0.0
    pruning = sweep.Pruning(trial, 1000)
    for k, score in enumerate(values):
        try:
            pruning.log(100 * (k + 1), {"normalised_score": score})
        except Stop as stop:
            study.tell(trial, state=type(study.trials[0].state).PRUNED)
            return k + 1, str(stop)
    study.tell(trial, score)
    return len(values), ""


def test_a_run_below_the_median_of_the_others_ends_early_and_a_good_one_does_not():
    optuna = pytest.importorskip("optuna")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    pruner = optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=3)
    study = optuna.create_study(direction="maximize", pruner=pruner)
    rising = [0.1 * k for k in range(10)]
    assert [run_trial(study, [x + level for x in rising]) for level in (0, 0.1, 0.2, 0.3)] == [(10, "")] * 4
    steps, reason = run_trial(study, [x - 1 for x in rising])
    assert steps == 3  # tenths that every run may use
    assert reason.startswith("at 300 steps its normalised score of -0.800 is too low")
    assert run_trial(study, [x + 1 for x in rising]) == (10, "")


def test_optuna_searches_and_goes_on_where_it_was(call, trained):
    pytest.importorskip("optuna")
    arguments = ["-m", "hydra/sweeper=optuna", *SMALL, "hydra.sweep.dir=sweep", QUIET]
    space = ["trainer.gamma=interval(0.5,0.9)", "trainer.epochs=1,-1"]
    code, out, _ = call(*arguments, *space, "hydra.sweeper.trials=3")
    told = [line.split()[4] for line in out.splitlines() if line.startswith("trial ")]
    assert len(told) == 3
    assert code == (1 if "fail" in told else 0)
    assert len(trained) == sum(result != "fail" for result in told)
    before = len(trained)
    _, out, _ = call(*arguments, *space, "hydra.sweeper.trials=4")
    assert [line.split()[1] for line in out.splitlines() if line.startswith("trial ")] == ["4"]
    assert len(trained) <= before + 1
    assert "Best: " in out
    for path in Path("sweep").glob("*/error.txt"):
        assert path.read_text().endswith("error: trainer.epochs=-1 is out of range: it must be positive.\n")
    code, _, err = call(*arguments, "trainer.gamma=interval(0.6,0.9)", "hydra.sweeper.trials=5")
    assert code == 1
    assert "sweep is of other runs (trainer.epochs=" in err


def test_sweeps_that_share_a_database_have_a_study_each_named_after_their_folder(call, tmp_path):
    optuna = pytest.importorskip("optuna")
    storage = "sqlite:///studies.db"
    arguments = ["-m", "hydra/sweeper=optuna", *SMALL, f"hydra.sweeper.storage={storage}", "hydra.sweeper.trials=1"]
    for folder, space in (("one", "trainer.gamma=interval(0.5,0.9)"), ("two", "trainer.clip=0.1,0.2")):
        code, out, err = call(*arguments, space, f"hydra.sweep.dir={folder}", QUIET)
        assert (code, err) == (0, "")
        assert "trial 1 of 1: " in out
    assert set(optuna.get_all_study_names(storage)) == {str(tmp_path / "one"), str(tmp_path / "two")}
    code, _, err = call(*arguments, "trainer.clip=0.1,0.3", "hydra.sweep.dir=two", QUIET)
    assert code == 1
    assert "two is of other runs (trainer.clip=" in err
    assert err.endswith("choose another hydra.sweep.dir.\n")


def test_an_interrupted_trial_goes_on_with_its_values_from_its_checkpoint(call, trained, monkeypatch):
    pytest.importorskip("optuna")
    arguments = ["-m", "hydra/sweeper=optuna", *SMALL, "hydra.sweep.dir=sweep", "trainer.gamma=interval(0.5,0.9)"]
    real = sweep.pruning

    class Killer:
        def log(self, step, scalars):
            if step == 2 * BATCH:
                os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(sweep, "pruning", lambda total: [*real(total), Killer()])
    assert call(*arguments, "hydra.sweeper.trials=1")[0] == 130
    monkeypatch.setattr(sweep, "pruning", real)
    code, out, _ = call(*arguments, "hydra.sweeper.trials=1", QUIET)
    assert (code, trained) == (0, [0, 2 * BATCH])
    assert "trial 1 of 1: " in out
    assert len(list(Path("sweep").glob("center*"))) == 1


@pytest.mark.filterwarnings("ignore:(?s).*validated against ConfigStore schema")
@pytest.mark.parametrize(
    ("argument", "module", "extra"),
    [
        ("sweeper=optuna", "optuna", "sweep"),
        ("launcher=ray", "ray", "ray"),
        ("launcher=submitit_local", "submitit", "sweep"),
    ],
)
def test_where_an_engine_is_missing_the_way_to_get_it_is_said(call, monkeypatch, argument, module, extra):
    monkeypatch.setitem(sys.modules, module, None)
    code, _, err = call("-m", f"hydra/{argument}", "seed=0,1", QUIET)
    assert code == 1
    assert err.startswith(f"error: hydra/{argument} needs ")
    assert err.endswith(f'which is not installed: pip install "particle-grid[{extra}]"\n')


@pytest.mark.filterwarnings("ignore:(?s).*validated against ConfigStore schema")
def test_where_a_plugin_of_hydra_is_missing_the_way_to_get_it_is_said(call, monkeypatch):
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


def test_several_processes_of_one_run_and_several_runs_are_not_mixed(call, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    code, _, err = call("-m", "seed=0,1")
    assert code == 1
    assert "torchrun shares one run out, and -m makes many" in err


@pytest.mark.filterwarnings("ignore:(?s).*validated against ConfigStore schema")
def test_the_slurm_preset_says_all_that_a_job_needs():
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        hydra = compose("train", ["hydra/launcher=submitit_slurm"], return_hydra_config=True).hydra
    launcher = hydra.launcher
    assert launcher._target_.endswith("SlurmLauncher")
    assert (launcher.nodes, launcher.tasks_per_node, launcher.cpus_per_task) == (1, 1, 2)
    assert launcher.max_num_timeout > 0
    assert "NUMBA_NUM_THREADS=$SLURM_CPUS_PER_TASK" in launcher.setup[0]


def test_the_hparams_tab_is_told_what_a_run_was_made_with_and_its_scores(call):
    assert call("-m", *SMALL, "trainer.clip=0.1", "seed=3", "hydra.sweep.dir=sweep")[0] == 0
    [folder] = Path("sweep").glob("*_seed3_*")
    events = EventAccumulator(str(folder)).Reload()
    told = {tag: events.SummaryMetadata(tag).plugin_data for tag in events.summary_metadata if "_hparams_" in tag}
    assert {data.plugin_name for data in told.values()} == {"hparams"}
    from tensorboard.plugins.hparams import metadata

    start = metadata.parse_session_start_info_plugin_data(told[metadata.SESSION_START_INFO_TAG].content)
    values = {key: getattr(value, value.WhichOneof("kind")) for key, value in start.hparams.items()}
    expected = {"task.name": "center", "action.name": "discrete", "policy.name": "conv_lstm", "seed": 3}
    assert values.items() >= (expected | {"trainer.learning_rate": 2e-3, "trainer.clip": 0.1}).items()
    experiment = metadata.parse_experiment_plugin_data(told[metadata.EXPERIMENT_TAG].content)
    assert {info.name.tag for info in experiment.metric_infos} == set(METRICS)
    assert set(METRICS) <= set(events.Tags()["scalars"])
    assert metadata.SESSION_END_INFO_TAG in told


def side_by_side(folder, *arguments):
    """Runs a sweep by the command that users type, whose runs have as many threads as they are given."""
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
def test_a_launcher_runs_all_jobs_says_how_each_ended_and_repeats_nothing(tmp_path, launcher):
    if not find_spec({"submitit_local": "submitit", "ray": "ray"}.get(launcher, "particle_grid")):
        pytest.skip(f"{launcher} is not installed")
    times = []
    for _ in range(2):
        process = side_by_side(tmp_path, f"hydra/launcher={launcher}", "seed=0,0,1", "trainer.epochs=1,-1")
        assert process.returncode == 1, process.stderr
        times.append({path: path.stat().st_mtime_ns for path in tmp_path.glob("sweep/*/results.json")})
        for path in times[-1]:
            assert f"{path.parent.name}: normalised score {sweep.score(path.parent):.3f}\n" in process.stdout
        failed = [path.parent.name for path in tmp_path.glob("sweep/*/error.txt")]
        assert len(failed) == 2
        for name in failed:
            assert f"{name}: failed: trainer.epochs=-1 is out of range" in process.stdout
    assert times[0] == times[1]
    assert len(times[0]) == 2
    share = max(1, cores() // {"joblib": cores(), "submitit_local": 6, "ray": cores()}[launcher])
    for path in times[0]:
        threads = "one thread" if share == 1 else f"up to {share} threads"
        assert f"on {threads}." in (path.parent / "output.txt").read_text()


@pytest.mark.slow
def test_optuna_with_processes_side_by_side_prunes_and_fills_its_budget(tmp_path):
    pytest.importorskip("optuna")
    arguments = ["hydra/sweeper=optuna", "hydra/launcher=joblib", f"trainer.total_steps={20 * BATCH}"]
    arguments += ["hydra.sweeper.pruner.n_startup_trials=2", "hydra.sweeper.pruner.n_warmup_steps=1"]
    process = side_by_side(tmp_path, *arguments, "hydra.sweeper.trials=8")
    assert process.returncode == 0, process.stderr
    pruned, finished = (len(list(tmp_path.glob(f"sweep/*/{name}"))) for name in ("pruned.txt", "results.json"))
    assert pruned + finished == 8
    assert pruned > 0
    assert process.stdout.count(": pruned\n") == pruned
    for path in tmp_path.glob("sweep/*/results.json"):
        assert json.loads(path.read_text())["policy, sampled"]
