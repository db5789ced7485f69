"""Sweeps: folders, resuming, failures and pruning, in worlds small enough to take seconds."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from particle_grid import train
from particle_grid.evaluation import match, record
from particle_grid.experiments import training
from particle_grid.experiments.pool import Job
from particle_grid.experiments.pruning import Pruning
from particle_grid.learn import checkpoint
from particle_grid.learn.config import TrainerConfig
from particle_grid.learn.loggers.tensorboard import METRICS
from particle_grid.learn.policy import make_policy
from particle_grid.learn.trainer import Stop, Trainer
from particle_grid.runs.folder import RunFolder
from particle_grid.settings.compose import VERSION_BASE, config_folder, register_groups
from particle_grid.settings.resolvers import digest
from particle_grid.settings.run_config import RunConfig
from tests.cases import small
from tests.test_train import BATCH, TINY

ROOT = Path(__file__).parents[2]
SMALL = [*TINY, "task=center", "clips=0", f"trainer.total_steps={4 * BATCH}"]
QUIET = "hydra/hydra_logging=disabled"
# Ends its own process in the second run, between its first and second checkpoint.
KILLED = """
import os
from particle_grid import train
from particle_grid.evaluation import match
from particle_grid.evaluation.clips import Clips
match.STEPS = 8
log = Clips.log
def killing(self, step, scalars):
    log(self, step, scalars)
    finished = [name for name in os.listdir("sweep") if os.path.exists(f"sweep/{{name}}/results.json")]
    if step == {step} and finished:
        os.kill(os.getpid(), {number})
Clips.log = killing
train.main()
"""


@pytest.fixture
def call(invoke, monkeypatch):
    """Run train's main function in an empty folder, with short evaluations and no film; return exit code and output."""
    monkeypatch.setattr(record, "record", lambda *_, **__: None)
    monkeypatch.setattr(match, "STEPS", 8)
    return lambda *arguments: invoke(train.main, *arguments)


@pytest.fixture
def trained(monkeypatch):
    """The steps at which each call of the trainer's loop started."""
    starts, run = [], Trainer.run
    monkeypatch.setattr(Trainer, "run", lambda self: (starts.append(self.steps), run(self))[1])
    return starts


def score_of(folder):
    return RunFolder(folder).read_results().mean("sampled")


def code_of(*overrides):
    """Return the code that stands for a config in the name of its folder."""
    register_groups()
    with initialize_config_dir(str(config_folder()), **VERSION_BASE):
        return digest(_root_=compose("train", list(overrides)))


def test_the_folder_of_a_run_depends_only_on_its_config():
    codes = [code_of(f"seed={seed}", f"trainer.gamma={gamma}") for seed in (0, 1) for gamma in (0.9, 0.95)]
    assert len(set(codes)) == 4
    assert code_of("trainer.gamma=0.95", "seed=1", "task=group") == codes[3]
    assert code_of("trainer.learning_rate=2e-3") == code_of("trainer.learning_rate=0.002") == codes[0]


def test_a_repeated_sweep_trains_only_new_runs(call, trained):
    code, _, err = call("-m", *SMALL, "seed=0,1", "hydra.sweep.dir=sweep")
    assert (code, err, trained) == (0, "", [0, 0])
    written = {path: path.stat().st_mtime_ns for path in Path("sweep").glob("*/results.json")}
    code, out, err = call("-m", *SMALL, "seed=2,1,0", "hydra.sweep.dir=sweep", QUIET)
    assert (code, err, trained) == (0, "", [0, 0, 0])
    assert all(path.stat().st_mtime_ns == time for path, time in written.items())
    lines = [line for line in out.splitlines() if ": normalised score" in line]
    assert [line.partition("_seed")[2][0] for line in lines] == ["2", "1", "0"]
    for path in written:
        assert f"{path.parent.name}: normalised score {score_of(path.parent):.3f}" in out


def test_a_repeated_sweep_touches_no_file_of_a_run_that_has_ended(call, trained):
    assert call("-m", *SMALL, "seed=0", "hydra.sweep.dir=sweep")[0] == 0
    [run] = [path for path in Path("sweep").iterdir() if path.is_dir()]
    written = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in run.rglob("*") if path.is_file()}
    assert run / ".hydra" / "config.yaml" in written
    code, out, err = call("-m", *SMALL, "seed=0", "logger=csv", "hydra.sweep.dir=sweep", QUIET)
    assert (code, err, trained) == (0, "", [0])
    assert f"{run.name}: ended earlier, nothing to train" in out
    now = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in run.rglob("*") if path.is_file()}
    assert {path for path in now.keys() | written.keys() if now.get(path) != written.get(path)} <= {run / ".lock"}


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_sweep_repeats_nothing_and_ends_with_the_same_weights(call, trained, tmp_path, number):
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


def test_a_run_that_died_before_its_first_checkpoint_restarts_without_its_old_curve(call):
    arguments = ["-m", *SMALL, "seed=0", "hydra.sweep.dir=sweep"]
    assert call(*arguments)[0] == 0
    [folder] = Path("sweep").glob("*_seed0_*")
    for name in ("results.json", "checkpoint.pt"):
        (folder / name).unlink()
    assert call(*arguments)[0] == 0
    assert len(list(folder.glob("events.*"))) == 1
    assert curve_of(folder) == [BATCH * k for k in (1, 2, 3, 4)]


def curve_of(folder):
    """Return the steps of the learning curve in a folder."""
    return [event.step for event in EventAccumulator(str(folder)).Reload().Scalars("loss/policy")]


@pytest.mark.parametrize("elsewhere", [False, True], ids=["from the start", "from another folder's checkpoint"])
def test_a_run_in_a_folder_where_another_died_has_only_its_own_curve(call, elsewhere):
    assert call(*SMALL, "hydra.run.dir=first")[0] == 0
    assert call(*SMALL, "hydra.run.dir=run")[0] == 0
    for name in ("results.json", "checkpoint.pt"):
        Path("run", name).unlink()
    arguments = ["resume=first/checkpoint.pt", f"trainer.total_steps={6 * BATCH}"] if elsewhere else SMALL
    assert call(*arguments, "hydra.run.dir=run")[0] == 0
    first, last = (5, 6) if elsewhere else (1, 4)
    assert curve_of("run") == [BATCH * k for k in range(first, last + 1)]
    assert RunFolder(Path("run")).read_overrides()[: len(arguments)] == arguments  # not those of the dead run
    assert call("resume=run/checkpoint.pt", f"trainer.total_steps={8 * BATCH}", "hydra.run.dir=run")[0] == 0
    assert curve_of("run") == [BATCH * k for k in range(first, 9)]  # a run resumed in its own folder keeps its curve


def test_a_finished_run_without_its_checkpoint_is_kept(call, trained):
    arguments = [*SMALL, "seed=0"]
    assert call("-m", *arguments, "hydra.sweep.dir=sweep")[0] == 0
    [folder] = Path("sweep").glob("*_seed0_*")
    (folder / "checkpoint.pt").unlink()
    before = curve_of(folder)
    assert call("-m", *arguments, "hydra.sweep.dir=sweep")[0] == 0
    code, _, err = call(*arguments, f"hydra.run.dir={folder}")
    assert (code, trained) == (1, [0])
    assert (
        "holds the results of a run, which this one would overwrite: choose another folder (hydra.run.dir=PATH)." in err
    )
    assert curve_of(folder) == before


def test_a_job_is_resumed_in_a_folder_of_any_name_with_its_own_overrides(call, trained):
    job = Job(RunFolder(Path("a (b)=c, 'd' \"e\" \\f\\") / "0"), tuple(SMALL))
    assert call(*job.arguments)[0] == 0
    job.folder.results.unlink()
    assert call(*job.arguments)[0] == 0
    assert (trained, job.done) == ([0, 4 * BATCH], True)
    job.check()
    with pytest.raises(ValueError, match=r"started with no trainer\.clip, and this one has trainer\.clip=0\.1"):
        Job(job.folder, (*SMALL, "trainer.clip=0.1")).check()


def test_a_failed_run_records_its_reason_and_the_others_run(call):
    code, _, err = call("-m", *SMALL, "trainer.epochs=-1,1", "hydra.sweep.dir=sweep")
    assert code == 1
    assert "trainer.epochs=-1 is out of range" in err
    [reason] = Path("sweep").glob("*/error.txt")
    lines = reason.read_text().splitlines()
    assert lines[0].startswith("Traceback")
    assert lines[-1] == "error: trainer.epochs=-1 is out of range: it must be positive."
    [results] = Path("sweep").glob("*/results.json")
    assert results.parent != reason.parent


def test_a_folder_with_another_run_is_refused_and_unchanged(call, trained):
    place = ["hydra.sweep.dir=sweep", "hydra.sweep.subdir=one"]
    assert call("-m", *SMALL, *place)[0] == 0
    before = {path.name: path.read_bytes() for path in Path("sweep/one").iterdir() if path.is_file()}
    code, _, err = call("-m", *SMALL, *place, "trainer.clip=0.1")
    assert (code, trained) == (1, [0])
    assert "sweep/one holds a run with trainer.clip=0.2, and this one has trainer.clip=0.1: choose another" in err
    assert {path.name: path.read_bytes() for path in Path("sweep/one").iterdir() if path.is_file()} == before


def test_two_processes_never_train_in_one_folder_at_the_same_time(tmp_path, capsys):
    said = []
    held = threading.Event()
    inside = threading.Event()
    config = RunConfig("center", "discrete", "mlp")

    def first():
        with RunFolder(tmp_path).for_repeated_run(config, swept=True):
            inside.set()
            held.wait(10)
            said.append("first has done")

    def second():
        inside.wait(10)
        with RunFolder(tmp_path).for_repeated_run(config, swept=True):
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


def test_a_logger_can_end_a_run_which_saves_its_progress(tmp_path):
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
    """Return how many of ten reports a run makes until a pruner ends it, and the reason, if any."""
    trial, score = study.ask(), 0.0
    pruning = Pruning(trial, 1000)
    for k, score in enumerate(values):
        try:
            pruning.log(100 * (k + 1), {"env/normalised_score": score})
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
    assert steps == 3  # reports that every run may make
    assert reason.startswith("at 300 steps its normalised score of -0.800 is too low")
    assert run_trial(study, [x + 1 for x in rising]) == (10, "")


def test_an_optuna_search_runs_and_resumes(call, trained):
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
    assert "sweep is about other runs (trainer.epochs=" in err


def test_sweeps_that_share_a_database_have_studies_named_after_their_folders(call, tmp_path):
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
    assert "two is about other runs (trainer.clip=" in err
    assert err.endswith("choose another hydra.sweep.dir.\n")


def test_an_interrupted_trial_is_resumed_with_its_values(call, trained, monkeypatch):
    pytest.importorskip("optuna")
    arguments = ["-m", "hydra/sweeper=optuna", *SMALL, "hydra.sweep.dir=sweep", "trainer.gamma=interval(0.5,0.9)"]
    real = training.pruning

    def killing(trial, total):
        judge = real(trial, total)
        log = judge.log

        def kill(step, scalars):
            log(step, scalars)
            if step == 2 * BATCH:
                os.kill(os.getpid(), signal.SIGINT)

        judge.log = kill
        return judge

    monkeypatch.setattr(training, "pruning", killing)
    assert call(*arguments, "hydra.sweeper.trials=1")[0] == 130
    monkeypatch.setattr(training, "pruning", real)
    code, out, _ = call(*arguments, "hydra.sweeper.trials=1", QUIET)
    assert (code, trained) == (0, [0, 2 * BATCH])
    assert "trial 1 of 1: " in out
    assert len(list(Path("sweep").glob("center*"))) == 1


def test_the_hparams_tab_shows_settings_and_scores(call):
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
