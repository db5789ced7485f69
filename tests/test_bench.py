"""The programs in bench/ start promptly, and end with one word when they are interrupted."""

import importlib
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from particle_grid.env import action_space
from particle_grid.learn.policy import make_policy
from tests.cases import needs_jit

BENCH = Path(__file__).parents[1] / "bench"
QUICK = {
    "browser": ["--agents", "64", "--seconds", "1"],
    "gallery": ["--out", "docs"],
    "learn": ["--out", "learn", "--tasks", "center", "--seeds", "1"],
    "peers": ["--seconds", "1"],
    "search": ["--out", "search", "--tasks", "center", "--seeds", "1"],
    "sim": ["--agents", "64", "--seconds", "1"],
    "soak": ["--minutes", "0.1"],
    "start": ["--runs", "1"],
    "train": ["--agents", "1024", "--size", "128", "--seconds", "1", "--baseline", str(BENCH.parent)],
}


def test_every_program_is_tested():
    programs = [path.stem for path in BENCH.glob("*.py") if "__main__" in path.read_text("utf-8")]
    assert sorted(programs) == sorted(QUICK)


@pytest.mark.slow
@needs_jit("compiled kernels are what they measure")
@pytest.mark.parametrize("name", QUICK)
def test_an_interrupted_program_prints_one_word_and_exits_with_code_130(name, tmp_path):
    process = subprocess.Popen(
        [sys.executable, str(BENCH / f"{name}.py"), *QUICK[name]],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    guard = threading.Timer(120, os.killpg, (process.pid, signal.SIGKILL))
    guard.start()
    try:
        first = process.stdout.readline()
        assert first.strip()
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all processes in the foreground
        rest = process.communicate()[0]
    finally:
        guard.cancel()
        process.kill()
    assert "Traceback" not in first + rest
    assert rest.splitlines()[-1] == "interrupted"
    assert process.returncode == 130


@pytest.mark.slow
@needs_jit("compiled kernels are what they measure")
def test_the_trainer_takes_turns_with_a_baseline_and_is_compared_with_its_bound(tmp_path):
    small = ["--agents", "64", "--size", "32", "--minibatch", "2048", "--seconds", "0"]
    chosen = ["--cases", "discrete, fp32", "--baseline", str(BENCH.parent), "--threads", "1", "--cores", "8"]
    path = tmp_path / "figures.json"
    command = [sys.executable, str(BENCH / "train.py"), *small, *chosen, "--json", str(path)]
    process = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert process.returncode == 0, process.stderr
    figures = json.loads(path.read_text("utf-8"))
    rows = {row["case"]: row for row in figures["rows"]}
    own = rows["conv_lstm discrete, fp32"]
    assert {"baseline discrete, fp32", "matmuls alone, fp32"} < rows.keys()
    assert own["times slower"] == 1
    assert own["times the baseline"] > 0
    assert 0 < own["of the bound"] < 1
    assert all(name in process.stdout for name in rows)
    cores = {(row["minibatch"], row["cores"]): row["gain"] for row in figures["cores"]}
    assert cores.keys() == {(2048, 1), (2048, 8), (8192, 1), (8192, 8)}
    assert cores[2048, 1] == pytest.approx(1)  # all parts add up


@needs_jit("the bound imports compiled kernels")
def test_the_bound_counts_each_product_of_the_conv_lstm_forward_twice_and_backward_once(monkeypatch):
    monkeypatch.syspath_prepend(BENCH)
    from bound import layers, work

    policy = make_policy("conv_lstm", 5, action_space("discrete"))
    conv = 288 * 32
    recurrent = 128 * 512
    joint = (32 + 7 + 1) * 512 + recurrent
    assert sum(layer.forward for layer in layers(policy)) == 2 * (conv + joint)
    assert sum(layer.backward for layer in layers(policy)) == 2 * (conv + joint + conv + recurrent + 32 * 512)
    assert work(policy) == 753_664  # FLOP


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--threads", "0"], "--threads [0]: give 1 to"),
        (["--baseline", "no/such/folder"], "is not the root of a checkout"),
        (["--cases", "unknown"], "matches none of these: conv_lstm discrete"),
        (["--minibatch", "33"], "must be a multiple of trainer.rollout_length=32"),
    ],
)
def test_options_that_cannot_be_measured_are_refused_in_a_sentence(options, message, monkeypatch, capsys):
    monkeypatch.syspath_prepend(BENCH)
    monkeypatch.setattr(sys, "argv", ["train.py", "--agents", "64", "--size", "32", *options])
    with pytest.raises(SystemExit) as stopped:
        importlib.import_module("train").main()
    assert message in str(stopped.value.code) + capsys.readouterr().err


@pytest.mark.parametrize(
    ("scores", "steps"),
    [([0, 0.4, 0.8, 1.2], 4e6), ([0, 0, 0, 0], np.nan), ([2, 0, 1, 0], 3e6), ([1, 1, 1, 1], 1e6)],
)
def test_a_search_counts_steps_until_a_score_is_reached_from_below(scores, steps, monkeypatch):
    monkeypatch.syspath_prepend(BENCH)
    module = importlib.import_module("curves")
    curves = object.__new__(module.Curves)
    curves.steps = np.arange(1, 5) * 1_000_000
    curves.seconds = curves.steps / 1e5
    curves.updates = curves.steps // 2048
    row = curves.times(np.array(scores, float))
    np.testing.assert_equal(row["steps_to_1.0"], steps)
    np.testing.assert_equal(row["seconds_to_1.0"], steps / 1e5)
