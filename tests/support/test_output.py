"""Results survive the loss of a terminal, a pipe or a folder, because they are saved before they are shown."""

import io
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from particle_grid import eval as evaluation
from particle_grid import report, train
from particle_grid.learn import checkpoint
from particle_grid.support.errors import UserError
from tests.test_train import BATCH, ROOT, TINY

RUN = [*TINY, f"trainer.total_steps={2 * BATCH}", "clips=0", "evaluations=1", "hydra.run.dir=run"]


def start(folder, *arguments):
    """Start training in a new process, in a folder, with short evaluations."""
    code = "from particle_grid import train; from particle_grid.evaluation import match; match.STEPS = 8; train.main()"
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


@pytest.mark.parametrize(("encoding", "sign"), [("ascii", b"+-"), ("latin-1", b"\xb1"), ("utf-8", b"\xc2\xb1")])
def test_characters_missing_in_a_terminal_are_replaced_and_results_are_saved(call, monkeypatch, encoding, sign):
    shown = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(shown, encoding))
    code, _, err = call(train.main, *RUN, "name='\u4f60'")
    assert (code, err) == (0, "")
    assert b"mean " + sign + b" standard deviation" in shown.getvalue()
    assert Path("run/results.json").exists()
    monkeypatch.setattr(sys, "argv", ["report", "."])
    report.main()
    assert b"1 finished" in shown.getvalue()


def test_a_run_continues_when_the_reader_of_its_output_ends(call, monkeypatch):
    read, write = os.pipe()
    os.close(read)
    with open(write, "w") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        assert call(train.main, *RUN) == (0, "", "")
    assert json.loads(Path("run/results.json").read_text())["sampled"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_run_continues_without_a_disk_for_its_output_and_says_so_once(call, monkeypatch):
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        code, _, err = call(train.main, *RUN)
    assert (code, err) == (0, "Output cannot be written (No space left on device) and is omitted from here on.\n")
    assert Path("run/results.json").exists()


@pytest.mark.slow
def test_a_process_survives_the_end_of_its_pipe(tmp_path):
    process = start(tmp_path, *RUN)
    process.stdout.readline()
    process.stdout.close()
    err = process.stderr.read()
    process.stderr.close()
    assert (process.wait(60), err) == (0, b"")
    assert (tmp_path / "run/results.json").exists()


def test_results_are_saved_before_they_are_shown(call, monkeypatch):
    def fail(*_):
        assert Path("run/results.json").exists()
        raise UserError("there is no terminal")

    monkeypatch.setattr("particle_grid.evaluation.scoring.show_results", fail)
    code, _, err = call(train.main, *RUN)
    assert (code, err) == (1, "error: there is no terminal\n")


@pytest.mark.slow
def test_removing_the_folder_during_training_gives_one_sentence(tmp_path):
    process = start(tmp_path, *RUN, "trainer.total_steps=1e9")
    deadline = time.monotonic() + 100
    while not any(b"perf/" in path.read_bytes() for path in tmp_path.glob("run/events*")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
    while (tmp_path / "run").exists():  # the run may write a file after its others have been removed
        assert time.monotonic() < deadline
        shutil.rmtree(tmp_path / "run", ignore_errors=True)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert err.decode().count("\n") == 1, err
    assert err.startswith(b"error: ")
    assert b"run" in err


def test_a_run_without_evaluations_is_finished_without_scores(call):
    code, out, err = call(train.main, *RUN, "evaluations=0")
    assert (code, err) == (0, "")
    assert "policy, sampled" not in out
    assert json.loads(Path("run/results.json").read_text()) == {"version": 2}
    assert checkpoint.load("run/checkpoint.pt")["steps"] == 2 * BATCH
    assert call(evaluation.main, "checkpoint=run/checkpoint.pt", "seeds=1", "steps=2")[0] == 0


def test_a_sweep_without_evaluations_ends_and_repeats_nothing(call, monkeypatch):
    sweep = ["-m", *RUN[:-1], "evaluations=0", "seed=0,1", "hydra.sweep.dir=sweep", "hydra/hydra_logging=disabled"]
    for _ in range(2):
        code, out, err = call(train.main, *sweep)
        assert (code, err) == (0, "")
        assert out.count("not evaluated") == 2
    assert out.count("ended earlier, nothing to train") == 2
    assert out.count("\n") == 4
    monkeypatch.setattr(sys, "argv", ["report", "sweep"])
    report.main()


def test_a_search_without_evaluations_is_refused(call):
    pytest.importorskip("optuna")
    search = ["-m", "hydra/sweeper=optuna", "hydra.sweeper.trials=1", "hydra.sweep.dir=sweep", "seed=0,1"]
    code, _, err = call(train.main, *search, *RUN[:-1], "evaluations=0", "hydra/hydra_logging=disabled")
    assert code == 1
    assert "evaluations=0 leaves no score for hydra/sweeper=optuna to compare: give 1 or more." in err
