"""A task whose reward is plain NumPy has no scores on the page, and a policy that it cannot compute is refused."""

import numpy as np
import pytest

from bench.chromium import OPEN, Page
from particle_grid import play, web
from particle_grid.browser import contents
from particle_grid.browser.describe import world
from particle_grid.env import ACTIONS, ParticleGrid
from particle_grid.learn import checkpoint
from particle_grid.learn.config import TrainerConfig
from particle_grid.learn.trainer import Trainer
from particle_grid.runs.build import build_policy
from particle_grid.settings.run_config import RunConfig
from particle_grid.sim.world import World
from tests.browser.native import SEED, code
from tests.browser.test_page import data_of, press
from tests.cases import needs_browser

OWN = """
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Corner:
    \"\"\"Go to the upper left corner.\"\"\"

    unit = "closeness"
    teams = 1
    sight = False

    def init(self, layout):
        layout.mix_colours(2)

    def reward(self, state, layout, rewards):
        rewards[:] = np.exp(-np.hypot(*state.position) / 50)

    def score(self, state, layout):
        return np.exp(-np.hypot(*state.position) / 50)

    def scripted(self, observations, layout, rng, aim):
        aim[:] = -1
"""


@pytest.fixture
def task(tmp_path, monkeypatch):
    """Return the place of a task of a user's own."""
    (tmp_path / "ours.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    return "ours:Corner"


@pytest.fixture
def own(invoke, task, tmp_path):
    """Return a page with a policy that was trained on the task."""
    config = RunConfig(task, "discrete", "conv", policy_options={"hidden": 16}, world=World(agents=256))
    env = ParticleGrid(task, agents=256)
    trainer = Trainer(env, build_policy(config), TrainerConfig(), run_config=config.to_dict())
    checkpoint.save(tmp_path / "mine.pt", trainer.state_dict())
    code, _, err = invoke(web.main, "out=own.html", "task=center", "checkpoint=mine.pt", f"allow={task}")
    assert (code, err) == (0, "")
    return tmp_path / "own.html"


def test_a_task_with_a_reward_in_numpy_has_worlds_and_policies_but_no_scores(own):
    mine, shipped = data_of(own)["tasks"]
    assert mine["name"] == "ours:Corner"
    assert mine["purpose"] == "Go to the upper left corner."
    assert "no rewards and no scores" in mine["unscored"]
    assert [player["name"] for player in mine["players"]["discrete"]] == ["mine"]
    assert [size["agents"] for size in mine["sizes"]] == list(contents.SIZES)
    stages = [name for name, *_ in mine["sizes"][0]["discrete"]["stages"]]
    assert stages == ["move_discrete", "settle_discrete", "look"]
    assert not shipped["unscored"]


@needs_browser
def test_a_task_with_a_reward_in_numpy_is_played_without_scores(own, tmp_path):
    with Page(own.as_uri(), tmp_path / "profile", (1440, 900)) as browser:
        browser.run("location.hash = '#task=ours:Corner&agents=256&agent=3&left=discrete:mine&right=discrete:random'")
        browser.until(f"page.state.task.name === 'ours:Corner' && {OPEN}")
        assert browser.run("page.state.sides.map(({ player }) => player)") == ["mine", "random"]
        browser.until("page.state.steps > 5")
        assert "no scores" in browser.run("document.getElementById('score-about').textContent")
        assert browser.run("[...document.querySelectorAll('.score')].map((each) => each.textContent)") == ["", ""]
        assert not browser.run("document.querySelector('#charts svg')")
        press(browser, "#steer-left")
        browser.until("page.round()?.running === false")
        browser.until("/no rewards/.test(document.getElementById('round').textContent)")
        press(browser, "#tasks button[value='center']")
        browser.until(f"page.state.task.name === 'center' && {OPEN}")
        browser.until("document.querySelector('#charts svg')")
        assert not browser.errors


@pytest.mark.parametrize("action", ACTIONS)
def test_its_worlds_are_those_of_the_native_environment_except_for_rewards(task, action):
    host_module = pytest.importorskip("tests.browser.host", reason="needs wasmtime")
    env = ParticleGrid(task, action, agents=40, height=32, width=32, lifespan=12)
    host = host_module.Host(code(), world(env))
    host.reset(SEED)
    env.reset(SEED)
    for _ in range(30):
        host.call(f"draw_{action}", "session", "actions")
        assert host.step() == 0
        env.step(host["actions.actions"])
        assert host["session.observations"][:, :-1].tobytes() == env.observations[:, :-1].tobytes()
        assert host["session.truncations"].tobytes() == env.truncations.tobytes()
    assert not host["session.rewards"].any()
    assert np.any(env.rewards)


NET = """
from particle_grid.learn.policy import MLP


class Net(MLP):
    \"\"\"A network that might compute anything.\"\"\"
"""


@pytest.mark.parametrize("command", [web, play])
@pytest.mark.parametrize(
    ("action", "policy", "options", "reason"),
    [
        ("discrete", "our_net:Net", {}, "has no network for Net: use conv_lstm, conv or mlp."),
        ("continuous", "mlp", {"head": "beta"}, "has no BetaHead: use discrete actions, policy.head=hurdle or bins."),
    ],
)
def test_a_policy_that_the_module_cannot_compute_is_named_with_the_reason_and_another_way_to_watch_it(
    command, action, policy, options, reason, invoke, tmp_path, monkeypatch
):
    (tmp_path / "our_net.py").write_text(NET)
    monkeypatch.syspath_prepend(tmp_path)
    config = RunConfig("center", action, policy, policy_options={"hidden": 8, **options}, world=World(agents=64))
    trainer = Trainer(
        ParticleGrid("center", action, agents=64), build_policy(config), TrainerConfig(), run_config=config.to_dict()
    )
    checkpoint.save(tmp_path / "mine.pt", trainer.state_dict())
    code, out, err = invoke(command.main, "checkpoint=mine.pt", "allow=our_net:Net")
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert "The page cannot play " in err
    assert reason in err
    assert "record it: replay=PATH of eval" in err
