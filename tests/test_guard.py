"""Tasks that write to the state or to the observations are refused before the simulator uses what they wrote."""

import re
from dataclasses import dataclass

import numpy as np
import pytest

from particle_grid import ParticleGrid, env
from particle_grid.authoring import check_task
from particle_grid.sim.tasks.center import Center
from particle_grid.sim.tasks.predator_prey import PredatorPrey
from particle_grid.support.errors import UserError
from tests.cases import CASES, play, small

NOTHING = np.zeros(1, np.uint64)
SIZE = {"agents": 30, "height": 24, "width": 24}


def shift(state):
    offset = state.position
    offset -= 12


def clear(state):
    state.position[:] = 0


def clear_origin(state):
    state.origin[:] = 0


def recolour(state):
    colour = state.colour
    colour += 1


def crash(state):
    state.position[:] = np.nan
    raise ZeroDivisionError


WRITES = [(shift, "position"), (clear, "position"), (clear_origin, "origin"), (recolour, "colour")]


@pytest.mark.parametrize(("write", "part"), WRITES)
@pytest.mark.parametrize("method", ["reward", "score"])
def test_a_method_that_writes_to_the_state_is_refused_and_the_state_restored(method, write, part, monkeypatch):
    own = getattr(Center, method)
    world = ParticleGrid("center", **SIZE)
    *_, expected = play(ParticleGrid("center", **SIZE), 3)
    kept = [array.copy() for array in expected]

    def in_place(self, state, *others):
        write(state)
        return own(self, state, *others)

    world.reset(0)
    with monkeypatch.context() as patch:
        patch.setattr(Center, method, in_place)
        sentence = f"`{method}` of task center changes state.{part}: work on a copy, as in state.{part}.copy()."
        for _ in range(2):
            with pytest.raises(UserError, match=re.escape(sentence)):
                world.step(world.actions) if method == "reward" else world.score()
            world.reset(0)
    *_, found = play(world, 3)
    for a, b in zip(kept[:4], found[:4], strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_method_that_fails_after_it_wrote_to_the_state_leaves_it_restored(monkeypatch):
    world = ParticleGrid("center", **SIZE)
    world.reset(0)
    before = world.state.position.copy()
    monkeypatch.setattr(Center, "score", lambda self, state, layout: crash(state))
    with pytest.raises(ZeroDivisionError):
        world.score()
    np.testing.assert_array_equal(world.state.position, before)


def test_a_script_that_writes_to_the_observations_is_refused(monkeypatch):
    def scripted(self, observations, layout, rng, aim):
        observations[:] = 7

    world = ParticleGrid("center", **SIZE)
    world.reset(0)
    before = world.observations.copy()
    monkeypatch.setattr(Center, "scripted", scripted)
    with pytest.raises(UserError, match=r"`scripted` of task center changes observations: work on a copy"):
        world.scripted_actions(NOTHING)
    np.testing.assert_array_equal(world.observations, before)


@pytest.mark.parametrize(("task", "action"), CASES)
def test_only_the_first_call_of_a_method_is_compared(task, action, monkeypatch):
    world = small(task, action)
    for _ in play(world, 1):
        world.score()
        world.scripted_actions(NOTHING.copy())
    assert world.proven == {"reward", "score", "scripted"}
    monkeypatch.setattr(env, "guarded", None)  # a call of it would raise
    for _ in play(world, 2):
        world.score()
        world.scripted_actions(NOTHING.copy())


def sighted_reward(self, state, layout, rewards):
    rewards[:] = np.clip(state.others_in_sight / 121, 0, 1)


def sighted_score(self, state, layout):
    return state.own_in_sight.astype(np.float32)


@pytest.mark.parametrize(
    ("method", "uses", "part"),
    [("reward", sighted_reward, "others_in_sight"), ("score", sighted_score, "own_in_sight")],
)
def test_a_method_that_uses_agents_in_sight_that_are_not_counted_is_refused(method, uses, part, monkeypatch):
    monkeypatch.setattr(Center, method, uses)
    world = ParticleGrid("center", **SIZE)
    world.reset(0)
    first = {"reward": lambda: world.step(np.ones((30, 2), np.int32)), "score": world.score}[method]
    with pytest.raises(UserError, match=rf"`{method}` of task center uses state\.{part}, which is not counted"):
        first()


@pytest.mark.parametrize(
    ("method", "other", "reason"),
    [
        (
            "scripted",
            None,
            r"`scripted` of the task .* must be a method that takes \(self, observations, layout, rng, aim\)",
        ),
        ("reward", lambda self, state: None, r"`reward` .* takes \(self, state, layout, rewards\)"),
        ("score", staticmethod(lambda state: None), r"`score` .* takes \(self, state, layout\)"),
    ],
)
def test_a_part_that_is_not_a_method_with_the_parameters_of_a_task_is_refused(method, other, reason, monkeypatch):
    monkeypatch.setattr(Center, method, other)
    with pytest.raises(UserError, match=reason):
        ParticleGrid("center", **SIZE)


def test_check_finds_a_method_that_writes_to_the_state_later(monkeypatch):
    own = Center.reward

    def late(self, state, layout, rewards):
        own(self, state, layout, rewards)
        if state.tick[0] == 20:
            clear(state)

    monkeypatch.setattr(Center, "reward", late)
    subject = check_task.TaskClass("center", [f"world.{key}={value}" for key, value in SIZE.items()])
    with pytest.raises(UserError, match=r"`reward` of task center changes state\.position"):
        check_task.leaves_state_alone(subject)
    tests = [each.test for each in check_task.CHECKS]
    assert tests.index(check_task.leaves_state_alone) < tests.index(check_task.gives_rewards)


@dataclass(frozen=True)
class OneColour(PredatorPrey):
    """Two teams, of which the second is empty."""

    def init(self, layout):
        """Lay out a single team."""


@pytest.mark.parametrize("agents", [1, 8])
def test_a_team_without_agents_is_refused(agents):
    with pytest.raises(UserError, match="has teams=2, but team 2 has no agents: deal colours in `init`"):
        ParticleGrid(OneColour(), agents=agents, height=24, width=24)
