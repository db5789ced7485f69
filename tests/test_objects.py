"""`ParticleGrid` accepts a `Task` and a `World` object instead of names and settings, with the same defaults."""

import inspect
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import pytest

from particle_grid import ParticleGrid
from particle_grid.adapters.gymnasium import ParticleGridVectorEnv
from particle_grid.sim import tasks
from particle_grid.sim.tasks import RESERVED
from particle_grid.sim.tasks.group import Group
from particle_grid.sim.world import World
from particle_grid.support.errors import UserError
from particle_grid.support.renamed import ARRAYS
from tests.cases import play, small

WORLD = World(agents=20, height=24, width=30, lifespan=9.0)


def test_task_and_world_objects_act_like_their_names_and_settings():
    named = ParticleGrid("group", "continuous", agents=20, height=24, width=30, lifespan=9.0, colours=3, scale=0.2)
    given = ParticleGrid(Group(colours=3, scale=0.2), "continuous", world=WORLD)
    assert (given.task, given.task_name, given.world) == (named.task, named.task_name, named.world)
    for one, other in zip(play(named, 20), play(given, 20), strict=True):
        assert all((a == b).all() for a, b in zip(one[:4], other[:4], strict=True))


def test_a_task_defined_by_a_user_is_named_by_its_place():
    @dataclass(frozen=True)
    class Crowd(Group):
        colours: int = 2

    assert ParticleGrid(Crowd(), world=WORLD).task_name.startswith("tests.test_objects:")
    assert ParticleGrid(tasks.load("herd")(), world=WORLD).task_name == "herd"


def test_the_defaults_of_the_environment_are_those_of_a_world():
    parameters = inspect.signature(ParticleGrid).parameters
    assert {name: parameters[name].default for name in World().__dict__} == World().__dict__
    assert (World().height, World().width, parameters["action"].default) == (512, 512, "discrete")


def test_no_task_parameter_can_shadow_a_keyword_of_the_environment():
    keywords = {name for name in inspect.signature(ParticleGrid).parameters if name != "task_params"}
    assert keywords | {"name"} == RESERVED


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"world": WORLD, "agents": 5}, "agents=5 and world= exclude each other: set agents in the World"),
        ({"world": {"agents": 5}}, r"world=\{'agents': 5\} is not a World"),
        ({"task": Group(), "scale": 0.3}, r"scale=0.3 belongs to the task: .*group"),
        ({"task": Group(colours="two")}, "colours='two' of task group should be like 4"),
        ({"task": replace(Group(), colours=9)}, "colours=9 is out of range"),
        ({"task": Group(), "horizon": 100}, "horizon=100 was renamed"),
        ({"horizon": 100}, "horizon=100 was renamed: use max_episode_steps=100"),
    ],
)
def test_contradictions_and_old_names_are_refused_with_the_remedy(arguments, message):
    with pytest.raises(UserError, match=message):
        ParticleGrid(**arguments)


def test_a_world_and_a_number_of_environments_agree_in_gymnasium():
    assert ParticleGridVectorEnv(world=WORLD).num_envs == ParticleGridVectorEnv(20, world=WORLD).num_envs == 20
    with pytest.raises(UserError, match="num_envs=40 is not the number of agents in world=, which is 20: pass that"):
        ParticleGridVectorEnv(40, world=WORLD)


def test_a_state_saved_under_old_array_names_continues_bit_for_bit():
    env, other = small("forage", "discrete"), small("forage", "discrete")
    for _ in play(env, 3):
        pass
    old = {new: name for name, new in ARRAYS.items()}
    other.load_state_dict({old.get(name, name): array for name, array in env.state_dict().items()})
    stay = np.ones_like(env.actions)
    assert all((a == b).all() for a, b in zip(env.step(stay)[:4], other.step(stay)[:4], strict=True))


def test_contrib_tasks_import_only_what_users_import():
    for path in (Path(__file__).parents[1] / "particle_grid" / "contrib").glob("*.py"):
        imported = {line.split()[1] for line in path.read_text("utf-8").splitlines() if line.startswith("from ")}
        assert {name for name in imported if name.startswith("particle_grid")} <= {"particle_grid.tasks"}


def test_every_setting_of_the_world_arrives_under_its_own_name():
    given = {"worlds": 2, "agents": 3, "height": 41, "width": 43, "vision": 6, "max_episode_steps": 77}
    given |= {"speed": 0.9, "lifespan": 8.0, "walls": 0.01, "acceleration": 0.3, "drag": 0.2, "action_cost": 0.4}
    given |= {"dynamics": "inertial", "action_repeat": 2, "dead_zone": 0.05}
    assert given.keys() == {field.name for field in fields(World)}
    assert vars(ParticleGrid("group", **given).world) == given
