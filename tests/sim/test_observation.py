"""Every byte of an observation has one meaning, on which `decode` and the kernels of scripted policies agree."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from particle_grid.learn import policy
from particle_grid.sim import observation
from particle_grid.sim.observation import decode
from particle_grid.sim.world import CODES, World

WORLD = World(agents=1, height=30, width=50, vision=2, speed=0.5)


@given(st.binary(min_size=WORLD.observation_size, max_size=WORLD.observation_size))
def test_kernels_and_decode_read_the_same_numbers(raw):
    one = np.frombuffer(raw, np.uint8)
    seen = decode(one, WORLD)
    assert observation.own_colour(one) == seen.colour == seen.window[2, 2]
    np.testing.assert_allclose(observation.field_position(one, 30, 50), seen.position)
    np.testing.assert_allclose(observation.cell_offset(one), seen.offset)
    moved = np.array(observation.last_direction(one)) / observation.SIGNED_UNIT * WORLD.speed
    np.testing.assert_allclose(moved, seen.displacement, rtol=1e-6)
    np.testing.assert_allclose(observation.last_reward(one), seen.reward, rtol=1e-6)


def test_leading_axes_are_kept():
    observations = np.zeros((3, 4, WORLD.observation_size), np.uint8)
    shapes = {name: array.shape for name, array in decode(observations, WORLD)._asdict().items()}
    one, pair = (3, 4), (3, 4, 2)
    assert shapes == {
        "window": (3, 4, 5, 5),
        "colour": one,
        "position": pair,
        "offset": pair,
        "displacement": pair,
        "reward": one,
    }


def test_every_byte_changes_exactly_one_part():
    plain = np.full(WORLD.observation_size, 7, np.uint8)
    before = decode(plain, WORLD)
    changed = []
    for k in range(len(plain)):
        other = plain.copy()
        other[k] += 1
        after = decode(other, WORLD)._asdict()
        parts = [name for name, array in after.items() if (array != getattr(before, name)).any()]
        changed.append([name for name in parts if name != "colour"])
    features = ["position", "position", "offset", "offset", "displacement", "displacement", "reward"]
    assert changed == [["window"]] * 25 + [[name] for name in features]


def test_encoded_rewards_are_decoded_to_themselves():
    rewards = np.array([-1, -0.25, 0, 0.5, 1], np.float32)
    bytes_ = np.zeros((5, WORLD.observation_size), np.uint8)
    observation.reward_feature(bytes_)[:] = observation.encode_signed(rewards)
    assert np.abs(decode(bytes_, WORLD).reward - rewards).max() <= 0.5 / observation.SIGNED_UNIT
    assert decode(bytes_, WORLD).reward[2] == 0


def test_policies_expect_the_observations_that_the_simulator_writes():
    assert (policy.CELLS, policy.FEATURES) == (CODES, observation.FEATURES)
