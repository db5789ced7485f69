"""Invalid input to the environment raises one clear sentence, and unusual but valid input works."""

import copy
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from particle_grid import ParticleGrid
from particle_grid.sim import memory
from particle_grid.sim.memory import needed
from particle_grid.sim.world import World
from tests.cases import CASES, random_actions, small

SIZE = World().observation_size
BUFFERS = ("observations", "rewards", "terminals", "truncations", "masks", "actions")
every_case = pytest.mark.parametrize(("task", "action"), CASES)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"task": "grup"}, r"no task 'grup'. Did you mean group\? There are: center, forage"),
        ({"action": "both"}, r"no action form 'both'. Choose one of: discrete, continuous"),
        ({"action": np.array([1, 2])}, r"no action form array"),
        ({"render_mode": np.array([1, 2])}, r"no render_mode array"),
        ({"task": "puffer", "image": 5}, r"image=5 of task puffer should be a text, or None"),
        ({"agents": 5000, "height": 64, "width": 64}, r"agents=5000 do not fit.*4096 free cells"),
        ({"height": 10}, r"height=10 is smaller than the window.*11 x 11"),
        ({"vision": 600}, r"smaller than the window|too large"),
        ({"agents": 0}, r"agents=0 is too small"),
        ({"agents": 2.5}, r"agents=2.5 is not a whole number"),
        ({"speed": float("nan")}, r"speed=nan is out of range"),
        ({"speed": -1}, r"speed=-1 is out of range"),
        ({"lifespan": 0.5}, r"lifespan=0.5 is out of range"),
        ({"walls": 1.5}, r"walls=1.5 is out of range"),
        ({"dynamics": "orbital"}, r"no dynamics 'orbital'. Choose one of: kinematic, inertial"),
        ({"acceleration": 0.0}, r"acceleration=0.0 is out of range"),
        ({"drag": 1.5}, r"drag=1.5 is out of range"),
        ({"height": 50_000, "width": 50_000}, r"height=50000 and width=50000 is too large"),
        ({"scal": 1}, r"Task group has no parameter 'scal'. Did you mean scale\? Its parameters are: colours, scale"),
        ({"heigth": 64}, r"There is no setting 'heigth'. Did you mean height\?"),
        ({"xyz": 64}, r"Task group has no parameter 'xyz'. Its parameters"),
        ({"colours": 9}, r"colours=9 is out of range"),
        ({"colours": "many"}, r"colours='many' of task group should be like 4"),
        ({"colours": 2.5}, r"colours=2.5 of task group is not a whole number"),
        ({"seed": -1}, r"seed=-1 is not a seed"),
        ({"height": 64.5}, r"height=64.5 is not a whole number"),
        ({"speed": "a"}, r"speed='a' is not a number"),
        ({"lifespan": None}, r"lifespan=None is not a number"),
        ({"task": "puffer", "gamma": 5.0}, r"gamma=5.0 is out of range"),
        ({"task": "forage", "food": 1.0}, r"food=1.0 is out of range"),
        ({"task": "forage", "food": 0.999, "agents": 9000}, r"do not fit"),
        ({"task": "predator_prey", "predators": 2.0}, r"predators=2.0 is out of range"),
        ({"task": "scatter", "packing": 0.0}, r"packing=0.0 is out of range"),
        ({"task": "puffer", "text": "\u9b5a"}, r"characters without a pixel font"),
        ({"task": "puffer", "text": " "}, r"has no letters"),
        ({"width": 2**20, "speed": 0.03}, r"speed=0.03 is too small for a 128 x 1048576 field.*Use at least 1"),
        ({"width": 2**20, "dynamics": "inertial"}, r"acceleration=0.25 is too small for a 128 x 1048576 field"),
        ({"speed": 1e-39}, r"speed=1e-39 is too small for a 128 x 128 field"),
        ({"speed": True}, r"speed=True is not a number"),
        ({"speed": np.complex64(1)}, r"speed=.* is not a number"),
        ({"worlds": np.int32(70_000), "agents": np.int32(70_000), "height": 300, "width": 300}, r"are too many"),
        ({"max_episode_steps": 2**70}, r"max_episode_steps=1180591620717411303424 is too large"),
        ({"scale": float("nan")}, r"scale=nan of task group is not a finite float32"),
        ({"scale": 1e39}, r"scale=1e\+39 of task group is not a finite float32"),
        ({"scale": 10**400}, r"scale=1000*. of task group is not a finite float32"),
        ({"colours": True}, r"colours=True of task group should be like 4"),
        ({"task": "forage", "food_reward": np.float64("inf")}, r"food_reward=.*inf.* is not a finite float32"),
        ({"task": []}, r"There is no task '\[\]'"),
        ({"worlds": 1000, "agents": 2**21, "height": 2**15, "width": 2**15}, r"need 1424.1 GiB of memory, but only"),
        ({"task": "puffer", "image": "missing.png"}, r"image=missing.png: there is no such file"),
    ],
)
def test_invalid_arguments_raise_one_clear_sentence(arguments, message):
    with pytest.raises((ValueError, TypeError), match=message) as caught:
        ParticleGrid(**({"agents": 16, "height": 128, "width": 128} | arguments))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("seed", [-1, 1.5, "a", True])
def test_reset_refuses_invalid_seeds(seed):
    with pytest.raises(ValueError, match="is not a seed: use a whole number of at least 0"):
        small("group", "discrete").reset(seed)


@pytest.mark.parametrize(
    ("score", "what"),
    [
        (lambda state, layout: 3.0, r"returned scores of shape \[\]"),
        (lambda state, layout: np.zeros(2), r"returned scores of shape \[2\]"),
        (lambda state, layout: np.full(120, np.nan), "gave agent 0 the score nan: look for a division by 0"),
    ],
)
def test_invalid_scores_are_refused_with_the_name_of_the_task(score, what, monkeypatch):
    env = small("center", "discrete")
    env.reset(0)
    monkeypatch.setattr(type(env.task), "score", staticmethod(score))
    with pytest.raises(ValueError, match=f"Task center {what}"):
        env.score()


def test_a_script_with_a_non_finite_aim_is_refused(monkeypatch):
    def scripted(self, observations, layout, rng, aim):
        aim[7, 1] = np.nan

    env = small("center", "continuous")
    env.reset(0)
    monkeypatch.setattr(type(env.task), "scripted", scripted)
    with pytest.raises(ValueError, match=r"The script of task center aims at \[ 0. nan\] for agent 7"):
        env.scripted_actions(np.zeros(1, np.uint64))


@every_case
def test_actions_of_the_wrong_shape_or_kind_raise(task, action):
    env = small(task, action)
    env.reset(0)
    good = random_actions(env, np.random.default_rng(0))
    with pytest.raises(ValueError, match=r"shape \(119, 2\).*need \(120, 2\)"):
        env.step(good[1:])
    with pytest.raises(TypeError, match="this action form needs"):
        env.step(good.astype(np.float32 if action == "discrete" else np.int32))
    with pytest.raises(TypeError, match="this action form needs"):
        env.step(good.astype(str))
    for ragged in ([[0, 1], [2]], torch.zeros(120, 2, requires_grad=True)):
        with pytest.raises(
            TypeError, match=r"actions are a \w+ that does not convert to an array .*give a NumPy array \[120, 2\]"
        ):
            env.step(ragged)


def test_a_state_of_other_settings_is_refused_and_changes_nothing():
    env, other = small("group", "discrete"), small("group", "discrete", agents=61)
    env.reset(0), other.reset(0)
    before = env.state_dict()
    with pytest.raises(ValueError, match="build it with the settings it was saved with"):
        env.load_state_dict(other.state_dict())
    assert all((before[name] == array).all() for name, array in env.state_dict().items())


@every_case
def test_a_closed_environment_is_refused(task, action):
    env = small(task, action)
    env.reset(0)
    saved = env.state_dict()
    env.close()
    env.close()
    for method, argument in (("step", env.actions), ("reset", 0), ("load_state_dict", saved)):
        with pytest.raises(RuntimeError, match=f"has been closed: build another one before {method}"):
            getattr(env, method)(argument)


@every_case
def test_integers_and_floats_of_any_width_are_accepted(task, action):
    kinds = (np.uint8, np.int16, np.int64, np.uint64) if action == "discrete" else (np.float16, np.float64)
    env, twin = small(task, action), small(task, action)
    for kind in kinds:
        env.reset(0), twin.reset(0)
        actions = np.random.default_rng(0).integers(0, 2, (env.num_agents, 2))
        stepped = env.step(actions.astype(kind))[0]
        assert (stepped == twin.step(actions.astype(env.actions.dtype))[0]).all()
    if action == "continuous":
        env.step(np.full((env.num_agents, 2), 1e300))
        assert (env.state.displacement == 0).all()


def test_a_step_before_the_first_reset_is_refused():
    env = small("group", "discrete")
    with pytest.raises(RuntimeError, match=r"call reset\(\) before step\(\)"):
        env.step(np.ones((env.num_agents, 2), np.int32))


@pytest.mark.parametrize(
    "name",
    ["position", "displacement", "order", "grid", "colour", "under", "food_debt", "two in one cell", "edge", "rewards"],
)
def test_a_damaged_state_is_refused_and_changes_nothing(name):
    env = small("group", "discrete")
    env.reset(0)
    before, saved = env.state_dict(), env.state_dict()
    if name == "rewards":
        del saved[name]
    elif name == "two in one cell":
        mine, other = np.flatnonzero(saved["colour"] == saved["colour"][0])[:2]
        saved["position"][:, other] = saved["position"][:, mine]
    elif name == "edge":  # an agent in the margin around the field, where the grid has it too
        row, column = saved["position"][:, 0].astype(int)
        saved["grid"][0, row, column], saved["grid"][0, 0, 0] = 0, saved["colour"][0]
        saved["position"][:, 0] = 0.5
    elif name == "food_debt":
        saved[name][0] = 10**12
    else:
        saved[name].flat[3] = 120 if name not in ("position", "displacement") else np.nan
    with pytest.raises(ValueError, match=r"damaged|has no 'rewards'"):
        env.load_state_dict(saved)
    assert all((before[k] == array).all() for k, array in env.state_dict().items())


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("observations", np.zeros((20, 64), np.uint8)),
        ("observations", np.zeros((20, SIZE), np.int8)),
        ("observations", np.zeros((40, SIZE), np.uint8)[::2]),
        ("rewards", np.zeros(20)),
        ("truncations", np.zeros(3, bool)),
        ("actions", np.zeros((1, 2), np.int32)),
    ],
)
def test_buffers_of_the_wrong_shape_or_dtype_are_refused_by_name(name, array):
    wanted = {"observations": ((20, SIZE), np.uint8), "rewards": (20, np.float32), "actions": ((20, 2), np.int32)}
    wanted |= {flag: (20, bool) for flag in ("terminals", "truncations", "masks")}
    buf = {key: np.zeros(*value) for key, value in wanted.items()}
    ParticleGrid("center", "discrete", 1, 20, 64, 64, buf=buf)
    with pytest.raises(ValueError, match=rf"buf\['{name}'\] is"):
        ParticleGrid("center", "discrete", 1, 20, 64, 64, buf=buf | {name: array})


@pytest.mark.parametrize("name", ["observations", "rewards", "terminals", "truncations", "masks", "actions"])
def test_missing_read_only_and_shared_buffers_are_refused_by_name(name):
    buf = {key: getattr(small("center", "discrete"), key) for key in BUFFERS}
    small("center", "discrete", buf=buf)
    other = "masks" if name != "masks" else "truncations"
    raw = np.zeros(buf[name].nbytes + 1, np.uint8)
    unaligned = raw[1:].view(buf[name].dtype).reshape(buf[name].shape)
    wrong = [
        (buf[name].tolist(), TypeError, "is a list"),
        (buf[name].view(np.ma.MaskedArray), TypeError, "is a Masked"),
    ]
    if not unaligned.flags.aligned:
        wrong.append((unaligned, ValueError, "read-only or not aligned"))
    if buf[name].dtype == bool:
        wrong.append((buf[other], ValueError, f"'{name}'.* share memory|'{other}'.* share memory"))
    for array, error, message in wrong:
        with pytest.raises(error, match=message):
            small("center", "discrete", buf=buf | {name: array})
    with pytest.raises(ValueError, match=f"buf has no {name}: give a dict"):
        small("center", "discrete", buf={key: array for key, array in buf.items() if key != name})
    buf[name].flags.writeable = False
    with pytest.raises(ValueError, match=rf"buf\['{name}'\] is read-only"):
        small("center", "discrete", buf=buf)


def test_buffers_must_be_a_dict():
    with pytest.raises(TypeError, match="buf is a int: give a dict of the arrays observations"):
        small("center", "discrete", buf=3)


def test_actions_of_any_memory_layout_are_accepted():
    env, twin = small("group", "discrete"), small("group", "discrete")
    env.reset(0), twin.reset(0)
    good = random_actions(env, np.random.default_rng(0))
    unaligned = np.frombuffer(b"x" + good.tobytes(), np.int32, offset=1).reshape(good.shape)
    odd = [
        unaligned,
        np.asfortranarray(good),
        good.astype(">i4"),
        good.tolist(),
        np.repeat(good, 2, 0)[::2],
        env.actions,
    ]
    for actions in odd:
        expected = twin.step(np.array(actions, np.int32))[0]
        assert (env.step(actions)[0] == expected).all()
    with pytest.raises(TypeError, match="actions are timedelta64"):
        env.step(good.astype("m8[s]"))


@every_case
def test_calls_that_need_a_started_world_are_refused_before_the_first_reset(task, action):
    env = small(task, action)
    for call, name in (
        (env.score, "score"),
        (lambda: env.scripted_actions(np.zeros(1, np.uint64)), "scripted_actions"),
    ):
        with pytest.raises(RuntimeError, match=rf"call reset\(\) before {name}\(\)"):
            call()


@every_case
def test_scripts_handle_meaningless_observations(task, action):
    env = small(task, action)
    env.reset(0)
    for code in (0, 7, 255):
        env.observations[:] = code
        assert np.isfinite(env.scripted_actions(np.zeros(1, np.uint64))).all()


@pytest.mark.parametrize(
    "generator", [None, 0, np.zeros(0, np.uint64), np.zeros(2, np.uint64), np.zeros(1), np.random.default_rng(0)]
)
def test_scripts_refuse_invalid_generators(generator):
    env = small("forage", "discrete")
    env.reset(0)
    with pytest.raises(
        ValueError, match="is not a generator for a scripted policy: use a writable array of one uint64"
    ):
        env.scripted_actions(generator)


@pytest.mark.parametrize("k", [-1, 1, 2, None, "a"])
def test_unknown_teams_are_refused(k):
    with pytest.raises(ValueError, match=r"There is no team .*: task group has the teams 0 to 0"):
        small("group", "discrete").team(k)


@pytest.mark.parametrize("method", ["reward", "scripted"])
def test_a_task_method_that_returns_instead_of_writing_is_refused(method, monkeypatch):
    env = small("center", "discrete")
    env.reset(0)

    def wrong(self, *arguments):
        return arguments[-1] + 1

    wrong.__name__ = method
    monkeypatch.setattr(type(env.task), method, wrong)
    with pytest.raises(TypeError, match=f"`{method}` of task center returns a ndarray: write into its last"):
        env.step(env.actions) if method == "reward" else env.scripted_actions(np.zeros(1, np.uint64))


@pytest.mark.parametrize("task", ["group", "predator_prey", "puffer"])
def test_the_memory_that_worlds_need_is_estimated_correctly(task):
    env = small(task, "discrete")
    arrays = [*env.state, *(getattr(env, name) for name in BUFFERS)]
    assert needed(env.world) == sum(array.nbytes for array in arrays)


def test_worlds_that_do_not_fit_into_memory_are_refused_with_both_figures(monkeypatch):
    monkeypatch.setattr(memory, "available", lambda: 2 << 30)
    with pytest.raises(
        ValueError, match=r"agents=16777216.* need 3.\d GiB of memory, but only 2.0 GiB are available: use"
    ):
        ParticleGrid("center", "discrete", agents=1 << 24, height=8192, width=8192)
    monkeypatch.setattr(memory, "available", lambda: None)  # unknown
    small("center", "discrete")


def test_the_memory_limit_of_a_control_group_applies(monkeypatch, tmp_path):
    free = memory.available()
    assert free is None or 1 << 20 < free < 1 << 60
    (tmp_path / "memory").mkdir()
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        (tmp_path / name).write_text("123456789\n")
    monkeypatch.setattr(memory, "GROUPS", tmp_path)
    assert not Path("/proc/self/cgroup").exists() or memory.available() == 123456789


def test_changing_a_layout_after_use_has_no_effect():
    env, twin = small("group", "discrete", lifespan=3.0), small("group", "discrete", lifespan=3.0)
    env.layout.spawn[:] = 10**6
    env.layout.colour[:] = 255
    env.layout.walls[:] = True
    both = env, copy.deepcopy(env)
    for each in (*both, twin):
        each.reset(0)
    for _ in range(20):
        observations = twin.step(twin.actions)[0]
        assert all((each.step(each.actions)[0] == observations).all() for each in both)


def test_a_fast_agent_at_the_edge_is_looked_up_inside_the_map():
    """Displacements of several substeps are rounded, so the computed origin may lie slightly outside the field."""
    env = small("puffer", "continuous", speed=4.0)
    env.reset(0)
    edge = env.vision + env.world.height
    env.state.position[0], env.state.displacement[0] = np.float32(edge - 3), np.float32(-3.00001)
    env.task.reward(env.state, env.layout, env.rewards)
    inside = env.rewards.copy()
    env.state.displacement[0] = np.float32(-2.9999)
    env.task.reward(env.state, env.layout, env.rewards)
    assert np.array_equal(env.rewards, inside)


@every_case
def test_the_representation_of_an_environment_makes_an_equal_one(task, action):
    env = small(task, action, walls=0.1, lifespan=20)
    assert repr(env).startswith(f"ParticleGrid(task={task!r}, action={action!r}, worlds=")
    twin = eval(repr(env), {"ParticleGrid": ParticleGrid})
    assert (twin.world, twin.task, twin.discrete) == (env.world, env.task, env.discrete)
    assert "scale=0.5" in repr(ParticleGrid("group", scale=0.5, agents=4, height=16, width=16))
    assert "speed" not in repr(ParticleGrid("group", agents=4, height=16, width=16))


def test_actions_that_are_nan_are_reported_once():
    env = small("center", "continuous")
    env.reset(0)
    actions = np.zeros((env.num_agents, 2), np.float32)
    actions[:3, 0] = np.nan, np.inf, -np.inf
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        for _ in range(100):
            env.step(actions)
    assert [str(each.message) for each in told] == [
        f"3 of {env.num_agents} actions are NaN or infinite: those agents stay."
    ]
