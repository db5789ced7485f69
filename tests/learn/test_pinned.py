"""An environment's buffers in one block of memory reach a device by one copy, and work as any others."""

from copy import deepcopy

import numpy as np
import pytest
import torch

from particle_grid.env import ParticleGrid
from particle_grid.learn.gpu.pinned import ALIGNMENT, DeviceCopy, arrays_in_block, host_memory
from particle_grid.sim.memory import buffer_shapes
from tests.cases import CASES, play, small

CPU = torch.device("cpu")
NAMES = ("observations", "rewards", "terminals", "truncations")


def in_block(task, action):
    """Return an environment whose buffers are parts of one block, and a twin with buffers of its own."""
    twin = small(task, action)
    shapes = buffer_shapes(twin.world, twin.single_action_space.dtype)
    return small(task, action, buf=arrays_in_block(shapes)), twin


def arrays(env):
    return [getattr(env, name) for name in NAMES]


@pytest.mark.parametrize(("task", "action"), CASES)
def test_buffers_in_a_block_hold_what_others_hold_and_are_copied_at_once(task, action):
    env, twin = in_block(task, action)
    copy = DeviceCopy(arrays(env), CPU)
    assert len(copy.copies) == 1
    for _ in zip(play(env, 15), play(twin, 15), strict=True):
        copy.fetch()
        for got, expected in zip(copy.tensors, arrays(twin), strict=True):
            np.testing.assert_array_equal(got.numpy(), expected)


def test_a_copy_keeps_what_was_fetched_until_the_next_fetch():
    env, _ = in_block("group", "discrete")
    copy = DeviceCopy(arrays(env), CPU)
    copy.fetch()
    env.reset(0)
    assert not copy.tensors[0].any()
    copy.fetch()
    assert copy.tensors[0].any()


def test_other_buffers_are_copied_one_by_one():
    own = small("group", "discrete")
    memory = np.zeros(own.rewards.nbytes, np.uint8)
    mixed = [own.observations, memory.view(np.float32), own.terminals, own.truncations]
    for given in (arrays(own), mixed, mixed[::-1]):
        copy = DeviceCopy(given, CPU)
        assert len(copy.copies) == 4
        given[1][:] = 3
        copy.fetch()
        for got, expected in zip(copy.tensors, given, strict=True):
            np.testing.assert_array_equal(got.numpy(), expected)


def test_arrays_in_a_block_are_aligned_and_apart():
    made = arrays_in_block({"a": ((3, 5), np.uint8), "b": ((7,), np.float32), "c": ((2,), np.bool_)})
    assert [(x.shape, x.dtype) for x in made.values()] == [((3, 5), np.uint8), ((7,), np.float32), ((2,), np.bool_)]
    assert not any(x.any() for x in made.values())
    addresses = [x.ctypes.data for x in made.values()]
    assert np.diff(addresses).tolist() == [ALIGNMENT] * 2


def test_memory_that_cannot_be_locked_is_ordinary_memory(monkeypatch):
    """Without a driver, torch refuses to lock pages."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    if torch.version.cuda is None:
        assert host_memory([3], torch.float32).tolist() == [0, 0, 0]


def test_a_copied_environment_has_buffers_of_its_own():
    env, _ = in_block("group", "discrete")
    twin = deepcopy(env)
    assert isinstance(twin, ParticleGrid)
    assert not np.may_share_memory(twin.observations, env.observations)
    assert len(DeviceCopy(arrays(twin), CPU).copies) == 4
