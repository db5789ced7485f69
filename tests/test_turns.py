"""Only one call at a time changes an environment, from whichever thread."""

import copy
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from tests.cases import random_actions, small

BUSY = "This environment is in the middle of another call"


def within(env, call):
    """Return the errors that `call` raises in another thread during a step, which completes nevertheless."""
    raised, reward = [], env.task.reward

    def other():
        try:
            call()
        except RuntimeError as error:
            raised.append(str(error))

    def slow(*arguments):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        reward(*arguments)

    object.__setattr__(env.task, "reward", slow)
    env.step(env.actions)
    del vars(env.task)["reward"]
    return raised


@pytest.mark.parametrize("name", ["step", "reset", "state_dict", "load_state_dict", "__getstate__"])
def test_a_second_thread_is_refused_at_once_and_the_first_continues(name):
    env, twin = small("group", "discrete"), small("group", "discrete")
    env.reset(0), twin.reset(0)
    arguments = {"step": [env.actions], "load_state_dict": [env.state_dict()]}.get(name, [])
    assert [BUSY in message for message in within(env, lambda: getattr(env, name)(*arguments))] == [True]
    twin.step(twin.actions)
    after, same = env.state_dict(), twin.state_dict()
    assert all((after[key] == same[key]).all() for key in same)
    env.step(env.actions)


def test_a_task_that_steps_its_own_environment_is_refused():
    env = small("group", "discrete")
    env.reset(0)
    object.__setattr__(env.task, "reward", lambda *_: env.step(env.actions))
    with pytest.raises(RuntimeError, match=BUSY):
        env.step(env.actions)
    del vars(env.task)["reward"]
    env.reset()
    env.step(env.actions)


def test_many_threads_at_once_leave_the_world_valid():
    env = small("forage", "discrete", agents=400, height=80, width=80)
    env.reset(0)
    refused = []

    def play(seed):
        generator = np.random.default_rng(seed)
        for _ in range(100):
            try:
                env.step(random_actions(env, generator))
            except RuntimeError as error:
                refused.append(str(error))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(play, range(4)))
    assert all(BUSY in message for message in refused)
    env.load_state_dict(env.state_dict())  # which checks the whole state


def test_threads_that_take_turns_play_like_one_thread():
    env, twin = small("group", "continuous"), small("group", "continuous")
    env.reset(0), twin.reset(0)
    generator = np.random.default_rng(0)
    for _ in range(6):
        actions = random_actions(env, generator)
        with ThreadPoolExecutor(1) as pool:
            step = pool.submit(env.step, actions).result()
        assert all((a == b).all() for a, b in zip(step[:4], twin.step(actions)[:4], strict=True))


def interrupted(env, raised):
    """Return the environment after a step whose reward raises."""

    def reward(*_):
        raise raised

    object.__setattr__(env.task, "reward", reward)
    with pytest.raises(type(raised)):
        env.step(env.actions)
    del vars(env.task)["reward"]
    return env


@pytest.mark.parametrize("raised", [KeyError("map"), KeyboardInterrupt()])
@pytest.mark.parametrize("task", ["center", "group"])
def test_an_interrupted_step_is_neither_continued_nor_saved_nor_copied(task, raised):
    env = small(task, "discrete")
    env.reset(0)
    saved = env.state_dict()
    interrupted(env, raised)
    for each in (env, copy.deepcopy(env)):
        for name, arguments in (("step", [env.actions]), ("state_dict", []), ("score", [])):
            with pytest.raises(RuntimeError, match=rf"interrupted halfway: call reset\(\), .* before {name}\(\)\."):
                getattr(each, name)(*arguments)
    env.load_state_dict(saved)
    assert all((array == saved[name]).all() for name, array in env.state_dict().items())
    env.step(env.actions)
    interrupted(env, raised).reset()
    env.load_state_dict(env.state_dict())


def test_an_interrupted_reset_has_to_be_repeated(monkeypatch):
    env, twin = small("group", "discrete"), small("group", "discrete")
    env.reset(0), twin.reset(0)
    with monkeypatch.context() as patch:
        patch.setattr(env, "rewards", np.zeros(0), raising=True)  # which a reset writes last
        patch.setattr(env, "truncations", None)
        with pytest.raises(TypeError):
            env.reset(3)
    with pytest.raises(RuntimeError, match="interrupted halfway"):
        env.step(env.actions)
    assert (env.reset(3)[0] == twin.reset(3)[0]).all()


def test_a_step_that_raises_leaves_the_environment_usable():
    env = small("group", "discrete", checked=True)
    env.reset(0)
    with pytest.raises(ValueError, match="is not within"):
        env.step(np.full((env.num_agents, 2), 9))
    env.step(np.ones((env.num_agents, 2), np.int32))
