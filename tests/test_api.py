"""The public names: load, evaluate, film and train policies in a few lines."""

import doctest
import importlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import particle_grid
from particle_grid import api
from particle_grid.env import ParticleGrid
from particle_grid.learn import checkpoint
from particle_grid.runs.load import shipped_path
from particle_grid.support.renamed import MODULES
from particle_grid.tasks import load
from tests.cases import CASES


def test_every_example_in_the_docstrings_of_the_public_names_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for module in (particle_grid, api):
        result = doctest.testmod(module, extraglobs={"np": np}, verbose=False)
        assert result.attempted > 1
        assert not result.failed
    assert Path("forage.gif").stat().st_size > 0
    assert Path("center_run/checkpoint.pt").exists()


def test_every_public_name_is_documented():
    assert sorted(particle_grid.__all__) == sorted(particle_grid.HOMES)
    for name in particle_grid.__all__:
        assert getattr(particle_grid, name).__doc__, name
        assert name in dir(particle_grid)


def test_importing_the_package_loads_no_slow_library():
    code = "import sys, particle_grid; print(*sys.modules)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "gymnasium" in said  # a quarter of a second with NumPy, for which the tasks are registered in any case
    assert not set(said) & {"torch", "numba", "hydra", "pufferlib", "particle_grid.sim.tasks", "particle_grid.env"}


def test_checkpoints_and_shipped_policies_are_loaded_in_the_same_way():
    by_name, by_path = (
        particle_grid.load_policy("center"),
        particle_grid.load_policy(shipped_path("center", "discrete")),
    )
    assert by_name.config == by_path.config
    weights = zip(by_name.policy.state_dict().values(), by_path.policy.state_dict().values(), strict=True)
    assert all((one == other).all() for one, other in weights)


@pytest.mark.parametrize(("task", "action"), CASES)
def test_every_policy_that_ships_is_loaded_by_its_full_name(task, action):
    policy = particle_grid.load_policy(f"pretrained/{task}-{action}")
    assert (policy.config.task, policy.config.action) == (task, action)


def test_a_page_is_written_if_the_path_ends_in_html(tmp_path):
    policy = particle_grid.load_policy("center")
    env = policy.make_env(agents=16, height=32, width=32)
    particle_grid.record(policy, tmp_path / "center.html", env, steps=4)
    assert "<html" in (tmp_path / "center.html").read_text("utf-8")


def test_an_environment_accepts_tasks_and_worlds_by_name_or_as_objects():
    policy = particle_grid.load_policy("group")
    world = particle_grid.World(agents=16, height=32, width=32)
    env = policy.make_env(task="scatter", agents=16, height=32, width=32)
    assert type(env.task) is load("scatter")
    assert policy.make_env(task=load("scatter")(), world=world).world == world


def test_an_environment_that_does_not_fit_the_policy_is_refused():
    policy = particle_grid.load_policy("center", action="continuous")
    discrete = ParticleGrid("center", "discrete", agents=16, height=32, width=32)
    with pytest.raises(particle_grid.UserError, match="has continuous actions: use an environment with"):
        particle_grid.evaluate(policy, discrete)
    farther = ParticleGrid("center", "continuous", agents=16, height=32, width=32, vision=6)
    with pytest.raises(particle_grid.UserError, match="sees 5 cells in each direction, not 6: use vision=5"):
        policy.player(farther)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("grup", "There is no policy 'grup'. Did you mean group?"),
        (Path("grup"), "There is no policy 'grup'. Did you mean group?"),
        (None, "name=None does not name a policy: give a task such as 'group', or a path"),
        ("", "name='' does not name a policy: give a task such as 'group', or a path"),
        (["group"], r"name=\['group'\] does not name a policy"),
        ("none.pt", "There is no checkpoint none.pt"),
        ("a" * 5000, "There is no policy"),  # too long for a path
        ("a" * 5000 + ".pt", "There is no checkpoint"),
        ("pretrained/grup-discrete", "Did you mean pretrained/group-discrete"),
    ],
)
def test_an_unknown_policy_is_refused(name, reason):
    with pytest.raises(particle_grid.UserError, match=reason):
        particle_grid.load_policy(name)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"action": "both"}, "There is no action form 'both'. Choose one of: discrete, continuous"),
        ({"device": "tpu"}, "device=tpu is not known"),
        ({"allow": 5}, "allow=5 does not name classes: give module:Class, or a list of them"),
        ({"allow": ["center"]}, r"allow=\[center\] does not name classes"),
    ],
)
def test_an_invalid_argument_of_load_policy_is_refused(arguments, reason):
    with pytest.raises(particle_grid.UserError, match=reason):
        particle_grid.load_policy("center", **arguments)


@pytest.mark.parametrize("old", MODULES)
def test_importing_a_moved_module_names_its_new_place(old):
    new = f"particle_grid.{MODULES[old]}"
    assert importlib.util.find_spec(new)
    with pytest.raises(ImportError, match=f"particle_grid.{old} is now {new}: see CHANGELOG.md"):
        importlib.import_module(f"particle_grid.{old}")


@pytest.mark.parametrize(
    ("override", "reason"),
    [
        ("world.horizon=3", "world.horizon is now called world.max_episode_steps: use that name"),
        ("foo=3", "There is no key 'foo'"),
        ("+foo=3", "There is no key 'foo'"),
        ("~seed", "~seed would remove a setting"),
        ("=3", "=3 has no name: write KEY=VALUE"),
        ("task", "'task' is not a setting: write KEY=VALUE"),
        ("resume=run/checkpoint.pt", "is not a setting of a run, but of the command train: leave it out"),
        ("hydra.run.dir=run", "is not a setting of a run, but of the command train: leave it out"),
        ("task=null", "cannot be null or a number: choose one, as in task=NAME"),
        ("seed=???", "seed is required: add seed=VALUE.$"),
        (["task=group"], "is not an override: give texts such as 'task=group'"),
    ],
)
def test_an_invalid_override_is_refused_in_a_sentence(override, reason):
    with pytest.raises(particle_grid.UserError, match=reason):
        particle_grid.make_config(override)


def test_a_class_that_only_a_checkpoint_names_is_imported_only_if_it_is_allowed(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(
        "from particle_grid.contrib.optimize import Optimize\n\nclass Mine(Optimize): ...\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    state = checkpoint.load(shipped_path("optimize", "discrete"))
    state["config"]["task"]["name"] = "mine:Mine"
    checkpoint.save(tmp_path / "own.pt", state)
    with pytest.raises(particle_grid.UserError, match=r"add allow=\[mine:Mine\]"):
        particle_grid.load_policy(tmp_path / "own.pt")
    assert "mine" not in sys.modules
    assert particle_grid.load_policy(tmp_path / "own.pt", allow="mine:Mine").config.task == "mine:Mine"


@pytest.mark.parametrize("path", ["", None, 5, b"center.gif"])
def test_what_is_not_a_path_is_refused(path):
    policy = particle_grid.load_policy("center")
    with pytest.raises(particle_grid.UserError, match=r"path=.* is not a path: name a file that ends in .gif"):
        particle_grid.record(policy, path)
    with pytest.raises(particle_grid.UserError, match=r"path=.* is not a path: name a file that ends in .onnx"):
        particle_grid.export_policy(policy, path)
    with pytest.raises(particle_grid.UserError, match=r"folder=.* is not a path: name a new folder"):
        particle_grid.train_policy(policy.config, path)


def test_arguments_of_another_kind_are_refused(tmp_path):
    policy = particle_grid.load_policy("center")
    for call in (particle_grid.evaluate, particle_grid.record, particle_grid.export_policy):
        with pytest.raises(particle_grid.UserError, match="policy has the type str, not TrainedPolicy: load one"):
            call("center", *([] if call is particle_grid.evaluate else [tmp_path / "center.gif"]))
    for call in (lambda env: particle_grid.evaluate(policy, env), policy.player):
        with pytest.raises(
            particle_grid.UserError, match=r"env has the type str, not ParticleGrid: use policy.make_env\(\)"
        ):
            call("center")
    with pytest.raises(particle_grid.UserError, match="config has the type str, not RunConfig: make one"):
        particle_grid.train_policy("task=center", tmp_path)
    with pytest.raises(particle_grid.UserError, match="seeds has the type int, not Iterable: give several"):
        particle_grid.evaluate(policy, seeds=3)


@pytest.mark.parametrize(
    ("show", "reason"),
    [
        ({"step": 3}, "There is no key 'step' in show. Did you mean steps?"),
        ({"steps": "three"}, "show.steps=three is invalid: give a whole number, such as 300"),
        ({"agent": object()}, "show.agent is invalid .*: give plain numbers, texts and lists"),
    ],
)
def test_an_invalid_setting_of_a_recording_is_refused(show, reason, tmp_path):
    with pytest.raises(particle_grid.UserError, match=reason):
        particle_grid.record(particle_grid.load_policy("center"), tmp_path / "center.gif", **show)


def test_unknown_players_and_invalid_numbers_are_refused():
    policy = particle_grid.load_policy("center")
    env = policy.make_env(agents=16, height=32, width=32)
    with pytest.raises(particle_grid.UserError, match="seed=-1 is not a seed"):
        policy.player(env, seed=-1)
    with pytest.raises(particle_grid.UserError, match="greedy has the type str, not bool: give True or False"):
        policy.player(env, greedy="no")
    with pytest.raises(particle_grid.UserError, match="There is no player 'script'"):
        particle_grid.Results().mean("script")
    with pytest.raises(particle_grid.UserError, match="steps=0"):
        particle_grid.evaluate(policy, env, steps=0)


def test_a_class_in_place_of_a_task_is_refused():
    with pytest.raises(particle_grid.UserError, match=r"task=Group is a class: give a task of it, as in Group\(\)"):
        ParticleGrid(load("group"))
