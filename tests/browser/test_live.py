"""A run is shown while it trains: to this machine only, with the policies that it has at each moment."""

import json
import urllib.error
import urllib.request
from dataclasses import replace

import pytest
import torch

from bench.chromium import Page
from particle_grid import train
from particle_grid.browser import live
from particle_grid.browser.live import MOMENTS, NORMALISED, Live
from particle_grid.browser.networks import policy_description
from particle_grid.learn.config import TrainerConfig
from particle_grid.runs.build import build_policy
from particle_grid.settings.run_config import RunConfig
from particle_grid.sim.world import World
from tests.browser.test_page import change
from tests.cases import needs_browser
from tests.test_train import FEW, TINY

TOTAL = 10_000
WORLD = World(agents=64, height=64, width=64)
TRAINER = TrainerConfig(total_steps=TOTAL)
RUN = RunConfig("group", "discrete", "conv", policy_options={"hidden": 16}, world=WORLD, trainer=TRAINER, name="mine")


@pytest.fixture
def policy():
    return build_policy(RUN)


@pytest.fixture
def served(policy, monkeypatch):
    monkeypatch.setattr(live, "PAUSE", 0.0)
    with Live(RUN, policy, 0) as each:
        yield each


def get(served, path, host=None):
    request = urllib.request.Request(f"{served.address}{path}", headers={"Host": host} if host else {})
    with urllib.request.urlopen(request) as answer:
        return answer.read()


def change_weights(policy):
    with torch.no_grad():
        policy.actor.bias += 1


def test_the_policy_of_each_moment_is_served_as_it_was(served, policy):
    first = policy_description(policy)
    change_weights(policy)
    served.log(TOTAL // MOMENTS, {NORMALISED: 0.25})
    second = policy_description(policy)
    change_weights(policy)
    news = json.loads(get(served, "news?step=0"))
    assert news == {
        "steps": TOTAL // MOMENTS,
        "scores": [[TOTAL // MOMENTS, {NORMALISED: 0.25}]],
        "moments": [0, TOTAL // MOMENTS],
        "latest": TOTAL // MOMENTS,
    }
    assert json.loads(get(served, "policy?step=0")) == first
    assert json.loads(get(served, f"policy?step={TOTAL // MOMENTS}")) == second != first


def test_weights_between_moments_are_copied_only_for_a_page_that_asks(served):
    served.log(10, {})
    assert json.loads(get(served, "news?step=0"))["latest"] == 0
    served.log(20, {})
    assert json.loads(get(served, "news?step=0"))["latest"] == 20
    served.log(30, {})
    assert json.loads(get(served, "news?step=0"))["latest"] == 30
    with pytest.raises(urllib.error.HTTPError, match="404"):
        get(served, "policy?step=20")


def test_no_weights_are_copied_soon_after_others_except_the_last_of_a_run(served, monkeypatch):
    monkeypatch.setattr(live, "PAUSE", 60.0)
    get(served, "news?step=0")
    served.log(TOTAL // 2, {})
    assert json.loads(get(served, "news?step=0"))["latest"] == 0
    served.log(TOTAL, {})
    assert json.loads(get(served, "news?step=0"))["latest"] == TOTAL


@pytest.mark.parametrize(
    ("path", "host", "status"),
    [
        ("", "elsewhere.example", 403),
        ("news", "127.0.0.1.elsewhere.example:80", 403),
        ("checkpoint.pt", None, 404),
        ("policy?step=-1", None, 404),
        ("policy?step=7", None, 404),
        ("../../etc/hostname", None, 404),
    ],
)
def test_only_this_machine_gets_the_page_and_nothing_but_the_page(path, host, status, served):
    assert served.address.startswith("http://127.0.0.1:")
    with pytest.raises(urllib.error.HTTPError, match=str(status)):
        get(served, path, host)


@needs_browser
def test_the_page_follows_a_run_and_goes_back_to_its_moments(served, policy, tmp_path):
    with Page(served.address, tmp_path / "profile", (1440, 900)) as page:
        page.until("document.getElementById('moment-at')?.textContent")
        assert [side["player"] for side in page.run("page.state.sides")] == ["at0", "latest"]
        steps = page.run("page.state.steps")
        change_weights(policy)
        served.log(TOTAL // MOMENTS, {NORMALISED: 0.5})
        page.until("document.getElementById('moment-at').textContent.includes('500')")
        page.until("document.querySelector('#run-charts polyline')")
        page.until("page.state.task.players.discrete.length === 3")
        assert page.run("page.state.steps") >= steps  # the world goes on
        change(page, "moment", "1")
        assert page.run("page.state.sides[1].player") == f"at{TOTAL // MOMENTS}"
        served.__exit__()
        page.until("document.getElementById('run-at').textContent.startsWith('The run has ended')")
        assert not page.errors


def test_the_command_prints_where_to_watch_and_trains_as_without(call):
    def trained(*arguments):
        code, out, err = call(train.main, *TINY, "policy=conv", FEW, "clips=0", "evaluations=0", *arguments)
        assert (code, err) == (0, "")
        return out

    assert "To watch, in a browser" not in trained("hydra.run.dir=plain")
    assert "To watch, in a browser on this machine: http://127.0.0.1:" in trained("watch=true", "hydra.run.dir=shown")
    plain, shown = (torch.load(f"{name}/checkpoint.pt", weights_only=True)["policy"] for name in ("plain", "shown"))
    assert all(torch.equal(plain[name], shown[name]) for name in plain)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["watch=maybe"], "watch=maybe is invalid: give true or false."),
        (["watch=true", "action=continuous", "policy.head=beta"], "The module has no BetaHead: use discrete actions, "),
        (["-m", "watch=true", "seed=0,1"], "watch=true shows a single run: leave it out of a sweep (-m)."),
    ],
)
def test_runs_that_cannot_be_watched_are_refused_in_one_sentence(arguments, reason, call):
    code, _, err = call(train.main, *TINY, FEW, *arguments)
    assert code == 1
    assert reason in err


def test_a_policy_that_the_module_cannot_compute_is_refused_before_a_port_is_opened():
    other = replace(RUN, action="continuous", policy_options={"head": "beta"})
    with pytest.raises(ValueError, match="no BetaHead"):
        Live(other, build_policy(other), 0)
