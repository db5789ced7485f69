"""Runs with each logger, read back with the logger's own library or from its files."""

import csv
import json
import os
import shutil
import struct
import sys
import warnings
from pathlib import Path

import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import particle_grid
from particle_grid import report, train
from particle_grid.experiments.sweep_report import load_run, load_sweep
from particle_grid.learn.loggers import LOGGERS, SERVICES, csv_file
from particle_grid.learn.loggers.mlflow import MlflowLogger
from particle_grid.runs.curves import read_scalars
from particle_grid.runs.folder import FINISHED, RunFolder
from particle_grid.runs.load import load_checkpoint
from tests.test_train import BATCH, TINY

MLFLOW = pytest.param("mlflow", marks=pytest.mark.slow)  # creates a database in seconds
ALL = [MLFLOW if name == "mlflow" else name for name in LOGGERS]
SMALL = [*TINY, "task=center", "policy=mlp", "clips=0"]
STEPS = [BATCH, 2 * BATCH, 3 * BATCH, 4 * BATCH]
FILMED = "trainer.total_steps=5120"  # enough for one film
TAGS = {"env/score", "env/normalised_score", "policy/entropy", "perf/steps_per_second", "eval/sampled"}


def read_tensorboard(folder):
    """Return the scalars of each tag as (step, value), the hyperparameters, and the number of films."""
    events = EventAccumulator(str(folder.path)).Reload()
    films = len(events.Images("video/policy")) if "video/policy" in events.Tags()["images"] else 0
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}, None, films


def read_csv(folder):
    with folder.scalars.open(newline="") as file:
        rows = list(csv.DictReader(file))
    scalars = {}
    for row in rows:
        scalars.setdefault(row["name"], []).append((int(row["step"]), float(row["value"])))
    return scalars, None, None


def read_wandb(folder):
    """Read all offline files of a run, whose records are framed as in LevelDB's log."""
    from wandb.proto import wandb_internal_pb2

    scalars, config = {}, {}
    films = 0
    for path in sorted(folder.path.glob("wandb/offline-run-*/*.wandb"), key=os.path.getmtime):
        for content in wandb_records(path.read_bytes()):
            record = wandb_internal_pb2.Record.FromString(content)
            if record.HasField("run"):
                config |= {item.key: json.loads(item.value_json) for item in record.run.config.update}
            config |= {item.key: json.loads(item.value_json) for item in record.config.update}
            row = {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
            film = any(name.startswith("video/policy") for name in row)
            films += film
            for name in row.keys() - {"global_step"}:
                if not film and not name.startswith("_"):
                    scalars.setdefault(name, []).append((row["global_step"], row[name]))
    return scalars, config, films


def wandb_records(content):
    assert content[:4] == b":W&B"
    place, whole = 7, b""
    while place + 7 <= len(content):
        if 32768 - place % 32768 < 7:  # a record never starts at the very end of a block
            place += 32768 - place % 32768
            continue
        _, length, kind = struct.unpack("<IHB", content[place : place + 7])
        whole += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield whole
            whole = b""


def read_trackio(folder):
    from trackio.sqlite_storage import SQLiteStorage

    name = folder.read_service_runs()["trackio"]
    scalars, films = {}, 0
    for row in SQLiteStorage.get_logs("particle_grid", name):
        films += "video/policy" in row
        for key in row.keys() - {"step", "timestamp", "video/policy"}:
            scalars.setdefault(key, []).append((row["step"], row[key]))
    return scalars, SQLiteStorage.get_run_config("particle_grid", name), films


def read_mlflow(folder):
    client, run = mlflow_run(folder)
    histories = {name: client.get_metric_history(run.info.run_id, name) for name in run.data.metrics}
    scalars = {name: [(each.step, each.value) for each in history] for name, history in histories.items()}
    films = client.list_artifacts(run.info.run_id, "video/policy")
    for film in films:
        with Image.open(client.download_artifacts(run.info.run_id, film.path)) as gif:
            assert gif.n_frames > 10
    return scalars, run.data.params, len(films)


def mlflow_run(folder):
    import mlflow

    client = mlflow.MlflowClient()
    return client, client.get_run(folder.read_service_runs()["mlflow"])


READ = {
    "tensorboard": read_tensorboard,
    "csv": read_csv,
    "wandb": read_wandb,
    "trackio": read_trackio,
    "mlflow": read_mlflow,
}


@pytest.fixture
def log(call, tmp_path, monkeypatch):
    """Return a function that trains a small run whose services are offline, in an empty folder."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    for name in ("WANDB_DIR", "WANDB_NAME", "WANDB_RUN_GROUP", "TRACKIO_PROJECT", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)

    def run(*arguments, folder="run"):
        code, out, err = call(train.main, *arguments, f"hydra.run.dir={folder}")
        assert code == 0, err
        return RunFolder(Path(folder)), out

    return run


def need(name, monkeypatch, tmp_path):
    """Skip the test if a library is missing. Its own deprecation warnings are no errors of ours."""
    if name in SERVICES:
        warnings.simplefilter("ignore")
        module = pytest.importorskip(name)
        if name == "trackio":
            from trackio import sqlite_storage, utils

            for place in (sqlite_storage, utils):  # which read the environment when they are imported
                monkeypatch.setattr(place, "TRACKIO_DIR", tmp_path / "trackio")
            monkeypatch.setattr(utils, "MEDIA_DIR", tmp_path / "trackio" / "media")
        if name == "mlflow":
            module.set_tracking_uri(None)


@pytest.mark.parametrize("name", ALL)
def test_each_logger_keeps_scalars_hyperparameters_and_films(log, monkeypatch, tmp_path, name):
    need(name, monkeypatch, tmp_path)
    folder, _ = log(*SMALL, FILMED, "clips=1", f"logger=[csv,{name}]")
    scalars, config, films = READ[name](folder)
    expected = read_csv(folder)[0]
    assert set(scalars) >= TAGS
    assert set(expected) <= set(scalars)
    for tag, points in expected.items():
        assert [step for step, _ in points] == [step for step, _ in scalars[tag]]
        assert [value for _, value in points] == pytest.approx([value for _, value in scalars[tag]], rel=1e-6)
    if config is not None:
        assert str(config["trainer.learning_rate"]) == "0.002"
        assert config["task.name"] == "center"
    assert films == (None if name == "csv" else 2)  # during training, and at its end
    assert bool(folder.events()) == (name == "tensorboard")


@pytest.mark.parametrize("name", LOGGERS)
def test_a_run_resumed_in_its_own_folder_continues_what_its_logger_has(log, monkeypatch, tmp_path, name):
    need(name, monkeypatch, tmp_path)
    log(*SMALL, f"trainer.total_steps={2 * BATCH}", f"logger={name}", "trainer.anneal=false")
    shutil.copytree("run", "copy")
    more = f"trainer.total_steps={4 * BATCH}"
    folder, _ = log("resume=run/checkpoint.pt", more)
    assert load_checkpoint(folder.checkpoint).config.logger == (name,)
    points = dict(READ[name](folder)[0]["policy/entropy"])
    assert sorted(points) == STEPS
    if name in SERVICES:
        other, _ = log("resume=copy/checkpoint.pt", more, folder="other")
        first, second = folder.read_service_runs(), other.read_service_runs()
        assert first.keys() == second.keys() == {name}
        assert first[name] != second[name]
        again = dict(READ[name](other)[0]["policy/entropy"])
        assert again == {step: value for step, value in points.items() if step > 2 * BATCH}


@pytest.mark.parametrize("name", ["tensorboard", "csv", MLFLOW])
def test_a_run_that_was_killed_after_its_checkpoint_has_every_step_once(log, monkeypatch, tmp_path, name):
    need(name, monkeypatch, tmp_path)
    folder, _ = log(*SMALL, f"trainer.total_steps={2 * BATCH}", f"logger={name}", "trainer.anneal=false")
    early = folder.checkpoint.read_bytes()
    more = ["resume=run/checkpoint.pt", f"trainer.total_steps={4 * BATCH}"]
    log(*more)
    folder.checkpoint.write_bytes(early)
    folder.results.unlink()
    log(*more)
    steps = [step for step, _ in READ[name](folder)[0]["policy/entropy"]]
    assert sorted(set(steps)) == STEPS
    assert len(steps) == len(STEPS) + (name == "mlflow")  # which has the very last step twice, with the same value


@pytest.mark.slow
def test_a_run_says_in_mlflow_whether_it_finished_and_names_its_sweep(log, call, monkeypatch, tmp_path):
    need("mlflow", monkeypatch, tmp_path)
    folder, _ = log(*SMALL, f"trainer.total_steps={BATCH}", "logger=mlflow")
    assert mlflow_run(folder)[1].info.status == "FINISHED"
    swept = ["-m", *SMALL, f"trainer.total_steps={BATCH}", "logger=mlflow", "hydra.sweep.dir=sweep"]
    assert call(train.main, *swept)[0] == 0
    [job] = Path("sweep").glob("center*")
    assert mlflow_run(RunFolder(job))[1].data.tags["group"] == "sweep"
    MlflowLogger("other", run_id=folder.read_service_runs()["mlflow"]).close()
    assert mlflow_run(folder)[1].info.status == "KILLED"


@pytest.mark.slow
def test_a_server_that_fails_is_noticed_and_called_no_more(log, monkeypatch, tmp_path):
    need("mlflow", monkeypatch, tmp_path)
    import mlflow

    calls = []

    def fail(self, *_, **__):
        calls.append(1)
        raise ConnectionError("no route to the server")

    monkeypatch.setattr(mlflow.MlflowClient, "log_batch", fail)
    folder, out = log(*SMALL, f"trainer.total_steps={4 * BATCH}", "logger=[mlflow,csv]")
    assert "mlflow failed and logs nothing more (no route to the server): the run continues without it." in out
    assert len(calls) == 1
    assert folder.results.exists()
    assert len(read_csv(folder)[0]["policy/entropy"]) == 4


def test_a_service_that_cannot_start_is_reported_before_training(call, monkeypatch, tmp_path):
    need("mlflow", monkeypatch, tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    code, out, err = call(train.main, *SMALL, "logger=mlflow", "hydra.run.dir=run")
    assert code == 1
    assert "logger=mlflow cannot start (API request to" in err
    assert err.rstrip().endswith("check its settings and the network, or leave it out.")
    assert "steps" not in out
    assert not Path("run/checkpoint.pt").exists()


@pytest.mark.parametrize("name", SERVICES)
def test_a_library_that_is_missing_is_named_with_its_extra_before_anything_is_written(call, monkeypatch, name):
    monkeypatch.setitem(sys.modules, name, None)
    code, _, err = call(train.main, *SMALL, f"logger=[tensorboard,{name}]", "hydra.run.dir=run")
    expected = f'error: logger={name} needs {name}, which is not installed: pip install "particle-grid[{name}]"\n'
    assert (code, err) == (1, expected)
    assert not Path("run").exists()


def test_an_unknown_logger_is_refused_with_the_nearest_name(call):
    for value in ("logger=tensorbord", "logger=[csv,tensorbord]"):
        code, _, err = call(train.main, *SMALL, value)
        assert (code, err.count("\n")) == (1, 1)
        assert "There is no logger 'tensorbord'. Did you mean tensorboard?" in err
    code, _, err = call(train.main, *SMALL, "logger=null")
    assert code == 1
    assert "logger=null does not name loggers: choose from " in err


def test_a_run_without_loggers_leaves_its_results(log):
    folder, out = log(*SMALL, f"trainer.total_steps={BATCH}", "logger=[]")
    assert folder.results.exists()
    assert not folder.events()
    assert "tensorboard" not in out


def test_reports_read_curves_from_csv_files_and_need_none(log, call):
    folder, _ = log(*SMALL, f"trainer.total_steps={4 * BATCH}", "logger=csv", folder="sweep/a")
    log(*SMALL, f"trainer.total_steps={2 * BATCH}", "logger=[]", folder="sweep/b")
    run = load_run(folder)
    assert list(run.steps) == STEPS
    assert run.scores[-1] == read_csv(folder)[0]["env/normalised_score"][-1][1]
    assert call(report.main, "sweep")[0] == 0
    assert {run.name: run.status for run in load_sweep(Path("sweep")).runs} == {"a": FINISHED, "b": FINISHED}


def test_a_run_that_changes_its_logger_when_it_is_resumed_keeps_one_curve(log):
    log(*SMALL, f"trainer.total_steps={2 * BATCH}", "trainer.anneal=false")
    folder, _ = log("resume=run/checkpoint.pt", f"trainer.total_steps={4 * BATCH}", "logger=csv")
    assert sorted(read_scalars(folder)["policy/entropy"]) == STEPS


def test_a_sweep_finds_its_runs_again_whatever_their_logger(log, call):
    arguments = ["-m", *SMALL, f"trainer.total_steps={BATCH}", "hydra.sweep.dir=sweep"]
    assert call(train.main, *arguments)[0] == 0
    code, out, _ = call(train.main, *arguments, "logger=csv")
    assert code == 0
    assert "ended earlier, nothing to train" in out


def test_a_run_of_another_program_keeps_its_csv_file(call):
    Path("run").mkdir()
    Path("run/scalars.csv").write_text("mine\n")
    code, _, err = call(train.main, *SMALL, "logger=csv", "hydra.run.dir=run")
    assert code == 1
    assert "run holds scalars.csv, which is damaged or not from this program" in err
    assert Path("run/scalars.csv").read_text() == "mine\n"


def test_python_takes_loggers_as_the_command_line_does(log, tmp_path):
    config = particle_grid.make_config(*SMALL, f"trainer.total_steps={BATCH}", "logger=[csv]", "evaluations=0")
    assert config.logger == ("csv",)
    assert particle_grid.train_policy(config, tmp_path / "python").config == config
    assert csv_file.read_rows(tmp_path / "python" / "scalars.csv", "")
