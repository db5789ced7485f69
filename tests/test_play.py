"""The command play serves a page on which one agent is selected, to be steered."""

import signal
import subprocess
import sys
import urllib.request
from functools import partial

import pytest

from bench.chromium import Page
from particle_grid import play
from particle_grid.browser.serve import Server
from particle_grid.env import ACTIONS
from tests.browser.test_page import data_of
from tests.cases import needs_browser


@pytest.fixture
def served(invoke, monkeypatch, tmp_path):
    """Run the command, and return its output and the page that it serves meanwhile."""
    path = tmp_path / "game.html"

    def fetch(server, announce):
        announce()
        with urllib.request.urlopen(server.address) as answer:
            path.write_bytes(answer.read())

    monkeypatch.setattr(Server, "wait", fetch)

    def run(*arguments):
        code, out, err = invoke(play.main, *arguments)
        assert (code, err) == (0, "")
        return out, path

    return run


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("checkpoint", [None, "pretrained"])
def test_the_page_has_the_world_and_the_policy_that_were_asked_for(served, action, checkpoint):
    extra = [f"checkpoint={checkpoint}"] if checkpoint else []
    out, path = served("task=predator_prey", f"action={action}", "agent=5", "seed=3", *extra)
    assert out.startswith("To play, in a browser on this machine: http://127.0.0.1:")
    known = data_of(path)
    [task] = known["tasks"]
    assert task["name"] == "predator_prey"
    assert [size["agents"] for size in task["sizes"]] == [256]
    assert len(known["policies"]) == bool(checkpoint)
    others = "policy" if checkpoint else "script"
    usual = {"left": f"{action}:{others}", "right": f"{action}:script", "agent": 5, "seed": 3}
    assert usual.items() <= known["usual"].items()


def test_a_large_world_is_cut_unless_its_size_is_chosen(served):
    [size] = data_of(served("task=group")[1])["tasks"][0]["sizes"]
    assert size["agents"] == 256
    [size] = data_of(served("task=group", "world.agents=9", "world.height=40", "world.width=50")[1])["tasks"][0][
        "sizes"
    ]
    assert (size["agents"], size["discrete"]["height"], size["continuous"]["width"]) == (9, 40, 50)


@needs_browser
def test_the_page_opens_with_the_agent_that_was_asked_for(served, tmp_path):
    _, path = served("task=group", "agent=5", "seed=3", "checkpoint=pretrained")
    with Page(path.as_uri(), tmp_path / "profile", (1440, 900)) as page:
        assert page.run("[page.state.agent, page.state.seed, page.state.speed]") == [5, 3, 0]
        page("Emulation.setDeviceMetricsOverride", width=1200, height=713, deviceScaleFactor=1, mobile=False)
        assert page.run("document.getElementById('intro').getBoundingClientRect().height") > 0, "the rules of the game"
        assert page.run("page.state.sides.map(({ player }) => player)") == ["policy", "script"]
        page.until("document.getElementById('steer-left').getBoundingClientRect().width > 0")
        assert not page.errors


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 0), (signal.SIGTERM, 143)])
def test_ctrl_c_ends_the_page_well_and_another_signal_as_in_every_command(number, code, tmp_path):
    line = [sys.executable, "-u", "-m", "particle_grid.play", "task=center"]
    heed = partial(signal.signal, signal.SIGINT, signal.default_int_handler)  # which tests in the background ignore
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(line, cwd=tmp_path, preexec_fn=heed, **pipes) as process:
        assert "To play" in process.stdout.readline()
        process.send_signal(number)
        assert process.wait(60) == code


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["agent=256"], "agent=256 is out of range: agents are numbered 0 to 255"),
        (["agent=-1"], "agent=-1 is invalid: give a whole number, 0 or more"),
        (["agent=first"], "agent=first is invalid: give a whole number"),
        (["seed=-1"], "seed=-1 is invalid: give a whole number, 0 or more"),
        (["seed=99999999999999999999"], "seed=99999999999999999999 is invalid: give at most 9007199254740991"),
        (["checkpoint=5"], "checkpoint=5 is not a path: give one, or leave it out"),
        (["agnt=1"], "There is no key 'agnt'. Did you mean agent?"),
        (["world.agnts=1"], "There is no key 'agnts' in world. Did you mean agents?"),
        (["task=grup"], "There is no task 'grup'. Did you mean group?"),
        (["checkpoint=none.pt"], "There is no checkpoint none.pt"),
    ],
)
def test_invalid_arguments_give_one_sentence(invoke, arguments, message):
    code, out, err = invoke(play.main, *arguments)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert message in err
