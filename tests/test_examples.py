"""The examples run, and what they train improves."""

import ast
import importlib
import importlib.util
from pathlib import Path

import pufferlib.vector
import pytest
import torch

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture
def load():
    """Load an example by its name, and restore the torch settings that it changes afterwards."""
    threads = torch.get_num_threads()

    def module(name):
        spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
        loaded = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(loaded)
        return loaded

    yield module
    torch.set_num_threads(threads)


@pytest.mark.parametrize("name", ["ppo_gymnasium", "ppo_pufferlib"])
def test_the_single_file_training_loops_raise_the_mean_reward(load, name):
    scores = load(name).main(updates=20)
    assert len(scores) == 20
    assert scores[0] < -0.5
    assert scores[-1] > scores[0] + 0.15


def test_stable_baselines3_raises_the_mean_reward_and_logs_that_of_episodes(load, capsys):
    before, after = load("ppo_sb3").main(steps=160_000)
    assert before < -0.5
    assert after > before + 0.15
    logged = capsys.readouterr().out
    assert all(name in logged for name in ("rollout/", "ep_rew_mean", "ep_len_mean"))


@pytest.mark.slow
def test_the_parts_of_torchrl_raise_the_mean_reward(load):
    scores = load("ppo_torchrl").main(updates=20)
    assert scores[0] < -0.5
    assert scores[-1] > scores[0] + 0.15


def test_the_loss_of_torchrl_accepts_what_its_example_collects(load):
    assert len(load("ppo_torchrl").main(updates=2)) == 2


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # BenchMARL triggers warnings in TorchRL
@pytest.mark.usefixtures("load")  # restores the settings of torch
def test_benchmarl_trains_every_team_of_a_task(monkeypatch, tmp_path):
    pytest.importorskip("benchmarl")
    monkeypatch.syspath_prepend(EXAMPLES)  # BenchMARL pickles the task, whose module must be importable
    example = importlib.import_module("benchmarl_mappo")
    assert example.main(iterations=1, task="predator_prey", folder=str(tmp_path)) == pytest.approx(0, abs=1)
    assert -30 < example.main(iterations=1, folder=str(tmp_path)) < -20


def test_the_pufferlib_example_also_runs_with_processes(load, monkeypatch):
    example = load("ppo_pufferlib")
    serial = example.main(updates=2)
    monkeypatch.setattr(example, "BACKEND", pufferlib.vector.Multiprocessing)
    assert example.main(updates=2) == pytest.approx(serial, abs=1e-6)


def test_the_gymnasium_example_runs_on_every_kind_of_task(load):
    assert len(load("ppo_gymnasium").main(updates=1, task="predator_prey")) == 1


def test_an_example_has_few_statements():
    """Statements count, not lines, so that no example packs them."""
    for path in EXAMPLES.glob("*.py"):
        statements = [node for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.stmt)]
        assert len(statements) <= 80, path.name
