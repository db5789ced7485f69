"""The programs in bench/ start promptly, and end with one word when they are interrupted."""

import csv
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
import torch
from hypothesis import given
from hypothesis import strategies as st

from particle_grid.env import action_space
from particle_grid.learn.heads import HEADS
from particle_grid.learn.policy import make_policy
from tests.cases import needs_browser, needs_jit

BENCH = Path(__file__).parents[1] / "bench"
DOCS = BENCH.parent / "docs"
QUICK = {
    "browser": ["--agents", "64", "--seconds", "1"],
    "distil": ["--out", "distil", "--tasks", "group", "--arms", "discrete", "--seeds", "1"],
    "foreign": ["--out", "foreign", "--env", "Pendulum-v1", "--steps", "100000"],
    "gallery": ["--out", "docs"],
    "gpu": ["--device", "cpu"],
    "learn": ["--out", "learn", "--tasks", "center", "--seeds", "1"],
    "page": ["--agents", "256", "--seconds", "1"],
    "peers": ["--seconds", "1"],
    "search": ["--out", "search", "--tasks", "center", "--seeds", "1"],
    "recording": ["--out", "page.gif"],
    "processes": ["--agents", "1024", "--size", "128", "--seconds", "1"],
    "sim": ["--agents", "64", "--seconds", "1"],
    "soak": ["--minutes", "0.1"],
    "start": ["--runs", "1"],
    "train": ["--agents", "1024", "--size", "128", "--seconds", "1", "--baseline", str(BENCH.parent)],
    "watch": ["--seconds", "1"],
}

IN_BROWSER = ("page", "recording", "watch")


def test_every_program_is_tested():
    programs = [path.stem for path in BENCH.glob("*.py") if "__main__" in path.read_text("utf-8")]
    assert sorted(programs) == sorted(QUICK)


@pytest.mark.slow
@needs_jit("compiled kernels are what they measure")
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[needs_browser] if name in IN_BROWSER else []) for name in QUICK]
)
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
def test_the_benchmark_for_gpus_runs_on_a_cpu_and_names_what_it_skipped(tmp_path):
    path = tmp_path / "gpu.json"
    command = [sys.executable, str(BENCH / "gpu.py"), "--device", "cpu", "--budget", "60", "--json", str(path)]
    process = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert process.returncode == 0, process.stdout + process.stderr
    found = json.loads(path.read_text("utf-8"))
    assert found["rows"]
    assert all(row.get("ok", True) for row in found["rows"])
    names = [row["case"] for row in found["rows"]] + found["skipped"]
    assert len(set(names)) == len(names)
    assert {name.split()[0] for name in names} == {"check", "profile", "matrix", "learn"}


@pytest.fixture
def refused(monkeypatch, capsys):
    """Return a function that runs a program, and returns the exit code and the errors with which it refuses to."""
    monkeypatch.syspath_prepend(BENCH)

    def run(name, *options):
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *options])
        with pytest.raises(SystemExit) as stopped:
            importlib.import_module("interrupt").until_interrupted(importlib.import_module(name).main)
        return stopped.value.code, capsys.readouterr().err

    return run


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_the_benchmark_for_gpus_needs_one(refused):
    code, err = refused("gpu")
    assert code == 1
    assert err.startswith("error: device=cuda is not available, because torch finds no GPU")


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
def test_options_that_cannot_be_measured_are_refused_in_a_sentence(options, message, refused):
    code, err = refused("train", "--agents", "64", "--size", "32", *options)
    assert code
    assert message in err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--processes", "1"], "--processes 1: give 2 or more"),
        (["--minibatch", "0"], "--minibatch 0: give 2 or more"),
        (["--rate", "-1"], "--rate -1.0: give 0 or more"),
        (["--overhead", "nan"], "--overhead nan: give 0 or more"),
        (["--rate", "1e6", "--plan", "8", "0"], "--plan 0: give numbers of processes, 1 or more"),
        (["--rate", "1e6", "--bandwidth", "0"], "--bandwidth 0.0: give more than 0"),
        (["--overhead", "0.001"], "--overhead 0.001 is measured: leave it out, or give --rate, too"),
        (["--rate", "1e6", "--json", "a.json"], "--json a.json is for measurements: leave out --rate"),
    ],
)
def test_processes_that_cannot_be_measured_or_computed_are_refused(options, message, refused):
    code, err = refused("processes", *options)
    assert code == 2
    assert f"error: {message}\n" in err


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("distil --arms unknown", "There is no arm 'unknown' in the plan."),
        ("distil --tasks unknown", "There is no task 'unknown' in the plan."),
        ("distil --plan unknown", "There is no plan 'unknown'."),
        ("distil --seeds 0", "--seeds 0: give 1 or more"),
        ("foreign --env Unknown-v0", "Unknown-v0 cannot be used: Environment `Unknown` doesn't exist."),
        ("foreign --env CartPole-v1", "The actions of CartPole-v1 are Discrete(2), not a Box: choose another --env."),
        ("foreign --env Pendulum-v1 --arms discrete", "Pendulum-v1 has no discrete actions: leave the arm discrete"),
        ("foreign --env Pendulum-v1 --arms beta --steps 1", "No episode of Pendulum-v1 ended in the last"),
        ("foreign --seeds 4", "--seeds 4: give 5 or more"),
    ],
)
def test_arms_that_cannot_be_measured_are_refused(command, message, refused):
    code, err = refused(*command.split())
    assert code
    assert f"error: {message}" in err


def test_rows_that_a_file_has_are_not_measured_again(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(BENCH)
    completed = importlib.import_module("resumable").completed
    measured = []

    def measure(rate, seed):
        measured.append((rate, seed))
        return {"rate": rate, "seed": seed, "score": 10 * rate + seed}

    keys = [(1e-3, 0), (1e-3, 1), (0.5, 0)]
    path = tmp_path / "new" / "rows.csv"
    for count in (0, 2, 3, 3):
        rows = completed("Measuring", path, ("rate", "seed"), keys[:count], measure)
        assert [float(row["score"]) for row in rows] == [10 * rate + seed for rate, seed in keys[:count]]
    assert measured == keys


@pytest.fixture
def gym(monkeypatch):
    """Three copies of Pendulum, which ends after 200 steps, as the trainer sees them."""
    monkeypatch.syspath_prepend(BENCH)
    foreign = importlib.import_module("foreign")
    monkeypatch.setattr(foreign, "COPIES", 3)
    return foreign.Gym("Pendulum-v1", discrete=False)


def test_an_environment_of_gymnasium_truncates_when_it_resets_and_not_before(gym):
    gym.reset(0)
    for step in range(1, 404):
        _, rewards, terminals, truncations, _ = gym.step(np.full((3, 1), 2.0, np.float32))
        resets = step in (201, 402)
        assert (truncations == resets).all()
        assert (rewards[truncations] == 0).all()
        assert not terminals.any()
        assert len(gym.returns) == 3 * sum(step >= end for end in (200, 401))
        assert np.abs(gym.observations.view(np.float32)).max() <= 10


def times(scores, final):
    """Return the times to each level for scores after one, two, ... million steps, and a final score."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCH)
        curves = object.__new__(importlib.import_module("curves").Curves)
    curves.steps = np.arange(1, len(scores) + 1) * 1_000_000
    curves.seconds = curves.steps / 1e5
    curves.updates = curves.steps // 2048
    return curves.times(np.array(scores, float), final)


@pytest.mark.parametrize(
    ("scores", "final", "half", "whole"),
    [
        ([0, 0.4, 0.8, 1.2], 1.2, 3e6, 4e6),
        ([0, 0, 0, 0], 0, np.nan, np.nan),
        ([2, 0, 1, 0], 1, 3e6, 3e6),  # from below
        ([1, 1, 1, 1], 1, 1e6, 1e6),  # never below
        ([0.7, 1.1, 0.3, 0.6], 0.9, 4e6, np.nan),  # only before the teams met
        ([0.7, 1.1, 0.3, 0.6], 1.1, 2e6, 2e6),
        ([0, 0, 0, 0.5], 1.2, 4e6, 4e6),  # only in the evaluation
    ],
)
def test_times_to_a_level_are_counted_from_below_if_the_final_score_reaches_it(scores, final, half, whole):
    row = times(scores, final)
    np.testing.assert_equal((row["steps_to_0.5"], row["steps_to_1.0"]), (half, whole))
    np.testing.assert_equal((row["seconds_to_0.5"], row["seconds_to_1.0"]), (half / 1e5, whole / 1e5))


def agree(row):
    """Return whether the times to a level in a row agree with each other and with its final score."""
    levels = {level: row[f"steps_to_{level}"] for level in (0.5, 1.0)}
    kept = all(np.isfinite(steps) == (row["sampled"] >= level) for level, steps in levels.items())
    return kept and not levels[0.5] > levels[1.0]


@given(st.lists(st.floats(-1, 2), min_size=1, max_size=8), st.floats(-1, 2))
def test_times_never_contradict_each_other_or_the_final_score(scores, final):
    assert agree(times(scores, final) | {"sampled": final})


def test_the_table_of_learning_results_is_that_of_their_rows(monkeypatch):
    monkeypatch.syspath_prepend(BENCH)
    with (DOCS / "learning.csv").open(encoding="utf-8", newline="") as file:
        rows = [
            {key: value if key in ("task", "action") else float(value) for key, value in row.items()}
            for row in csv.DictReader(file)
        ]
    assert all(agree(row) for row in rows)
    whole = importlib.import_module("learn").table([row | {"team": int(row["team"])} for row in rows])
    columns = (0, 1, 2, 3, 5, 6, 9, 10, 11, 12)
    lines = [line.strip("| ").split(" | ") for line in whole.splitlines()[2:]]
    printed = [f"| {' | '.join(line[column] for column in columns)} |" for line in lines]
    assert "\n".join(printed) in (DOCS / "learning.md").read_text("utf-8")


@pytest.fixture
def distil(monkeypatch):
    monkeypatch.syspath_prepend(BENCH)
    return importlib.import_module("distil")


@pytest.mark.parametrize("head", ["discrete", *HEADS])
def test_the_samples_that_a_head_learns_from_are_the_moves_of_the_expert(head, distil):
    form, options = ("discrete", {}) if head == "discrete" else ("continuous", {"head": head})
    policy = make_policy("mlp", 1, action_space(form), hidden=4, **options)
    moves = torch.cartesian_prod(torch.arange(-1.0, 2), torch.arange(-1.0, 2))
    actions = distil.as_vectors(policy.head.to_action(distil.as_samples(policy, moves)))
    np.testing.assert_allclose(actions, moves, atol=0.05 if head in ("beta", "squashed") else 1e-6)
    logp, _ = policy.head.log_prob_and_entropy(torch.zeros(9, policy.head.outputs), distil.as_samples(policy, moves))
    assert torch.isfinite(logp).all()


def test_the_share_of_the_signal_does_not_depend_on_the_number_of_samples(distil):
    generator = torch.Generator().manual_seed(0)
    for count in (2, 64):
        noise = torch.randn(count, 20_000, 4, generator=generator)
        assert distil.share_of_signal(noise) == pytest.approx(0, abs=0.01)
        assert distil.share_of_signal(noise + 1) == pytest.approx(0.5, abs=0.01)
        assert distil.share_of_signal(torch.ones_like(noise)) == pytest.approx(1)
