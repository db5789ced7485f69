"""Compare each kernel with the plain oracle, byte for byte, in random worlds."""

import os
import platform
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from particle_grid.sim import rng, simd
from particle_grid.sim.advance import compile_stages
from particle_grid.sim.state import allocate, make_rules
from particle_grid.sim.world import DYNAMICS, Layout, World
from tests.cases import needs_jit
from tests.sim.oracle import Generator, WorldOracle


@st.composite
def layouts(draw):
    vision = draw(st.sampled_from([1, 2, 3, 5, 5, 5, 8]))
    side = 2 * vision + 1
    height, width = draw(st.integers(side, side + 8)), draw(st.integers(side, side + 8))
    agents = draw(st.integers(1, height * width // 3))
    world = World(
        worlds=draw(st.integers(1, 3)),
        agents=agents,
        height=height,
        width=width,
        vision=vision,
        speed=draw(st.sampled_from([0.3, 0.999, 1.0, 1.7, 3.0])),
        lifespan=draw(st.sampled_from([0, 1, 3.5, 40])),
        max_episode_steps=draw(st.sampled_from([0, 0, 1, 4])),
        walls=draw(st.sampled_from([0.0, 0.1])),
        dynamics=draw(st.sampled_from(DYNAMICS)),
        acceleration=draw(st.sampled_from([0.05, 0.3, 2.0])),
        drag=draw(st.sampled_from([0.0, 0.2, 1.0])),
    )
    layout = Layout(world)
    layout.mix_colours(draw(st.integers(1, 4)))
    kind = draw(st.sampled_from(["food", "targets", "blob"]))
    if kind == "food":
        layout.food = draw(st.sampled_from([0.0, 0.1, 0.5]))
    elif kind == "targets":
        layout.targets = np.zeros((height, width), bool)
        layout.targets[: height // 4] = True
        layout.walls[-1, ::3] = True
    else:
        layout.blob(draw(st.sampled_from([0.2, 1.0])), draw(st.sampled_from([0.0, 0.5, 1.0])))
    return layout


def random_actions(generator, n, discrete):
    """Return mostly sensible actions, mixed with invalid ones."""
    if discrete:
        return generator.integers(0, 3, (n, 2), dtype=np.int32) + generator.choice(
            np.array([0, 7, -9], np.int32), (n, 2), p=[0.96, 0.02, 0.02]
        )
    actions = generator.uniform(-1.3, 1.3, (n, 2)).astype(np.float32)
    wild = generator.random((n, 2)) < 0.03
    actions[wild] = generator.choice(np.array([np.nan, np.inf, -np.inf, 1e30], np.float32), wild.sum())
    return actions


def assert_same(state, worlds, when):
    agents = [agent for world in worlds for agent in world.agents]
    got = {
        "grid": [world.grid for world in worlds],
        "position": [[a.row for a in agents], [a.column for a in agents]],
        "displacement": [[a.moved_row for a in agents], [a.moved_column for a in agents]],
        "under": [a.under for a in agents],
        "eaten": [a.eaten for a in agents],
        "order": [number for world in worlds for number in world.order],
        "expiry": [a.expiry for a in agents],
        "born": [a.born for a in agents],
        "episode_return": [a.total for a in agents],
        "tick": [world.tick for world in worlds],
        "rng": [world.generator.state for world in worlds],
        "origin": [world.origin for world in worlds],
        "food_debt": [world.debt for world in worlds],
        "finished": [world.finished for world in worlds],
    }
    for name, expected in got.items():
        actual = getattr(state, name)
        assert actual.tobytes() == np.array(expected, actual.dtype).tobytes(), f"{name} differs {when}"


class Buffers:
    """The buffers of an environment, for the kernels alone."""

    def __init__(self, world, discrete):
        n = world.worlds * world.agents
        self.actions = np.zeros((n, 2), np.int32 if discrete else np.float32)
        self.truncations, self.rewards = np.zeros(n, bool), np.zeros(n, np.float32)
        self.observations = np.zeros((n, world.observation_size), np.uint8)

    def stages(self, state, rules, sight):
        arrays = self.actions, self.truncations, self.observations, self.rewards
        return compile_stages(state, rules, *arrays, sight, threads=1)


@pytest.mark.parametrize("discrete", [True, False], ids=["discrete", "continuous"])
@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(layout=layouts(), seed=st.integers(0, 2**32))
def test_kernels_equal_the_plain_oracle(layout, seed, discrete):
    world = layout.world
    rules = make_rules(layout, discrete)
    state = allocate(layout)
    state.rng[:] = rng.seeded(seed, world.worlds)
    clocks = [world.max_episode_steps * w // world.worlds for w in range(world.worlds)]
    oracles = [WorldOracle(rules, world.lifespan, layout.colour, state.rng[w], clock) for w, clock in enumerate(clocks)]
    generator = np.random.default_rng(seed)
    sight = seed % 2 == 0
    buffers = Buffers(world, discrete)
    start, move, look, finish = buffers.stages(state, rules, sight)
    start()
    assert_same(state, oracles, "after the start")
    for step in range(6):
        actions = random_actions(generator, len(buffers.rewards), discrete)
        move(actions)
        by_world = actions.reshape(world.worlds, world.agents, 2)  # [worlds * agents, 2]
        expected = [flag for oracle, part in zip(oracles, by_world, strict=True) for flag in oracle.step(part)]
        assert buffers.truncations.tolist() == expected
        assert_same(state, oracles, f"after step {step}")
        rewards = generator.uniform(-1, 1, len(expected)).astype(np.float32)
        buffers.rewards[:] = rewards
        for stage in (look, finish) if sight else (finish, look):
            assert not stage()
        check_sight(state, oracles, buffers, np.where(buffers.truncations, np.float32(0), rewards), sight)


def check_sight(state, oracles, buffers, rewards, counted):
    agents = [(oracle, agent) for oracle in oracles for agent in oracle.agents]
    assert (buffers.rewards == rewards).all()
    for i, (oracle, agent) in enumerate(agents):
        window, own, others = oracle.sight(agent)
        assert buffers.observations[i].tolist() == window + oracle.features(agent, rewards[i])
        assert (state.own_in_sight[i], state.others_in_sight[i]) == ((own, others) if counted else (0, 0))
        agent.total += rewards[i]
        assert state.episode_return[i] == agent.total


@pytest.mark.parametrize(
    "vision",
    [
        pytest.param(4, marks=pytest.mark.release),
        5,
        pytest.param(6, marks=pytest.mark.release),
        pytest.param(7, marks=pytest.mark.slow),  # compiles for a quarter of a minute
        8,
    ],
)
@settings(max_examples=40)
@given(seed=st.integers(0, 2**32))
def test_vector_windows_equal_plain_windows(vision, seed):
    world = World(worlds=2, agents=30, height=2 * vision + 3, width=2 * vision + 5, vision=vision)
    layout = Layout(world)
    layout.mix_colours(4)
    rules, state = make_rules(layout, True), allocate(layout)
    state.rng[:] = rng.seeded(seed, 2)
    plain, seen = rules._replace(window_rows=np.zeros(0, np.uint8)), []
    Buffers(world, True).stages(state, plain, sight=True).start()
    for those in (rules, plain):
        buffers = Buffers(world, True)
        buffers.stages(state, those, sight=True).look()
        seen.append([x.tobytes() for x in (buffers.observations, state.own_in_sight, state.others_in_sight)])
    assert seen[0] == seen[1]


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="the vector path is for x86-64")
@needs_jit("the vector path is machine code")
def test_the_usual_visions_use_the_vector_path():
    assert [vision for vision in range(1, 12) if simd.fits(vision)] == [4, 5, 6, 7]


@pytest.mark.release  # compiles every kernel again
def test_an_older_processor_gives_the_same_trajectory():
    program = (
        "from particle_grid import ParticleGrid\n"
        "env = ParticleGrid('group', 'discrete', agents=50, height=32, width=32)\n"
        "env.reset(0)\n"
        "print(env.step(env.actions)[0].tobytes().hex())"
    )
    said = [
        subprocess.run([sys.executable, "-c", program], env=os.environ | asked, capture_output=True, check=True).stdout
        for asked in ({}, {"NUMBA_CPU_NAME": "generic"})
    ]
    assert said[0] == said[1]


@given(seed=st.integers(0, 2**64 - 1), n=st.integers(1, 2**32 - 1), lifespan=st.floats(0, 1e6))
def test_random_numbers_equal_the_plain_oracle(seed, n, lifespan):
    state, plain = np.array([seed], np.uint64), Generator(seed)
    for _ in range(5):
        assert rng.below(state, 0, n) == plain.below(n)
        assert rng.lifetime(state, 0, rng.decay(lifespan)) == plain.lifetime(lifespan)
        assert int(rng.next_u64(state, 0)) == plain.bits()


def test_lifetimes_have_the_expected_mean():
    state = np.array([1], np.uint64)
    lives = np.array([rng.lifetime(state, 0, rng.decay(20.0)) for _ in range(20_000)])
    assert lives.min() == 1
    assert abs(lives.mean() - 20) < 0.6  # four standard errors


def test_rewards_that_are_not_finite_or_out_of_range_are_counted():
    layout = Layout(World(agents=4, height=16, width=16))
    rules = make_rules(layout, True)
    state = allocate(layout)
    buffers = Buffers(layout.world, True)
    stages = buffers.stages(state, rules, sight=False)
    stages.start()
    buffers.rewards[:] = np.nan, np.inf, 1.5, -1
    assert stages.finish() == 3
    assert np.isfinite(state.episode_return).all()
