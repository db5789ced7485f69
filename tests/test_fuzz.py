"""Any value for any config key gives either a valid run or one clear sentence."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from particle_grid import train
from particle_grid.evaluation import match
from particle_grid.settings.compose import composed
from tests.cases import CASES, small
from tests.test_train import BATCH, TINY

KEYS = sorted([*composed(["task=forage", "action=continuous"]).flat(), "resume", "allow"])
GROUPS = ["task", "action", "policy", "trainer", "world", "experiment"]
LONG = ("trainer.total_steps", "trainer.epochs", "evaluations", "task.food_reward")  # large values make a long run
HUGE = ["10000000000000", "1e300", "9223372036854775808", "99999999999999999999", "inf"]
JUNK = ["null", "true", "a", "'1'", "''", "[]", "[1,2]", "{}", "{a:1}", "-1", "0", "1", "2", "3", "0.5", "-0.5", "1e-9"]
JUNK += ["???", "${foo:1}", "'${a:'", "abc", "maybe", "[a]", "1.5", "[[1]]", "{a:{b:1}}"]
JUNK += ["nan", "-inf", "${seed}", "${nothing}", "../x", "fish", "\u00fc", "a:B", "1e5", "33", "64", "1000"]


@st.composite
def overrides(draw):
    """Draw a config key and something that a user might write for it."""
    key = draw(st.sampled_from([*KEYS, *GROUPS]))
    values = st.sampled_from(JUNK if key in LONG else JUNK + HUGE)
    numbers = st.integers(-100, 100).map(str) | st.floats(-100, 100).map(str)
    return f"{key}={draw(values | numbers)}"


def check(call, override):
    code, _, err = call(train.main, *TINY, f"trainer.total_steps={BATCH}", "clips=0", "evaluations=1", override)
    assert code in (0, 1), override
    if code:
        assert err.startswith("error: "), (override, err)
        assert err.count("\n") == 1, (override, err)
        assert "Traceback" not in err
    else:
        assert err == "", (override, err)


def fuzz(examples):
    """Return a test of this many overrides, each in its own run."""

    @settings(max_examples=examples, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(override=overrides())
    def test(override, invoke, monkeypatch):
        monkeypatch.setattr(match, "STEPS", 8)
        check(invoke, override)

    return test


test_some_overrides_are_a_valid_run_or_one_sentence = pytest.mark.slow(fuzz(15))
test_many_overrides_are_a_valid_run_or_one_sentence = pytest.mark.release(fuzz(200))


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("task=null", "A group of the config cannot be null or a number: choose one, as in task=NAME"),
        ("action=null", "A group of the config cannot be null"),
        *(
            (f"seed={seed}", f"error: seed={seed} is invalid: give a whole number, 0 or more.")
            for seed in ("a", "-1", "1.5")
        ),
        (f"seed={1 << 63}", f"error: seed={1 << 63} is invalid: give at most {(1 << 63) - 1}."),
        ("task.text=null", "text"),
        ("world.agents=10000000000000", "agents=10000000000000 do not fit"),
        ("world.worlds=10000000000000", "worlds=10000000000000 of agents=32"),
        ("trainer.threads=1000000", "trainer.threads=1000000 is out of range"),
        ("policy.hidden=10000000000", "hidden=10000000000 is not a number of units"),
        ("evaluations=10000000000", "evaluations=10000000000 is invalid: give at most 10000"),
        ("trainer.total_steps=abc", "trainer.total_steps=abc is invalid: give a whole number, such as 6000000."),
        ("trainer.anneal=maybe", "trainer.anneal=maybe is invalid: give true or false, such as true."),
        ("trainer.fast=null", "trainer.fast=null is invalid: give a word, such as auto."),
        (
            "trainer.rollout_length={a:1}",
            "trainer.rollout_length={'a': 1} is invalid: give a whole number, such as 32.",
        ),
        ("trainer.gamma=nan", "trainer.gamma=nan is invalid: give a finite number."),
        ("world.agents=1.5", "world.agents=1.5 is invalid: give a whole number, such as 4096."),
        ("seed=???", "seed is required: add seed=VALUE"),
        ("world.agents='${foo:1}'", "world.agents cannot be resolved (Unsupported interpolation type foo)"),
        ("world.agents=${foo}", "${foo} refers to a setting that does not exist: write a value instead."),
        ("seed=${world.foo}", "${world.foo} refers to a setting that does not exist: write a value instead."),
        ("task=${foo}", "A group of the config cannot be an interpolation: choose one, as in task=NAME."),
        ("seed='${a:'", "seed has an interpolation that cannot be read: write a value without ${...}."),
        ("world=5", "A group of the config cannot be null or a number"),
        ("trainer=[1]", "trainer=[1] is a list: choose one, as in trainer=NAME."),
        ("~policy.name", "~policy.name would remove a setting"),
        ("resume=5", "resume=5 is not a path: give one, or leave it out."),
        ("resume=", "resume= is not a path: give one, or leave it out."),
        ("hydra.run.dir=[1]", "hydra.run.dir cannot have this value"),
    ],
)
def test_overrides_that_once_caused_a_traceback_give_a_sentence(invoke, override, words):
    task = ["task=puffer", "task.text=A"] if "task.text" in override else []
    code, _, err = invoke(train.main, *TINY, *task, override)
    assert code == 1
    assert words in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(("task", "action"), CASES)
@settings(max_examples=10)
@given(data=st.data())
def test_any_array_of_actions_is_played_or_refused_and_the_world_stays_valid(task, action, data):
    env = small(task, action)
    env.reset(0)
    shape = data.draw(st.sampled_from([env.actions.shape, (env.num_agents,), (env.num_agents, 3), (0, 2), ()]))
    kind = data.draw(st.sampled_from(["i4", "i8", "u1", "f4", "f8", "f2", "c8", "?", "U1", "O"]))
    odd = [0, 1, 2, -1, 127, 2**31 - 1, -(2**31)] if kind[0] in "iu" else [0.5, np.nan, np.inf, -np.inf, 1e300, -1e-300]
    generator = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    with np.errstate(all="ignore"):
        actions = np.asarray(generator.choice(odd, shape)).astype(kind)
    if shape != env.actions.shape or not np.issubdtype(actions.dtype, np.integer if env.discrete else np.floating):
        with pytest.raises((ValueError, TypeError)):
            env.step(actions)
        return
    observations, rewards, *_ = env.step(actions)
    assert np.isfinite(rewards).all()
    env.load_state_dict(env.state_dict())  # refuses every invalid state, such as two agents in a cell
    assert observations[:, : (2 * env.vision + 1) ** 2].max() <= 6
