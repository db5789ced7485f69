"""The code in docs/own.md works as printed: a task, a policy and a head in files outside the package."""

import importlib
import json
import re
import shlex
import sys
from pathlib import Path

import pytest
import torch
from gymnasium.spaces import Box, MultiDiscrete

from particle_grid import ParticleGrid, eval, train
from particle_grid import __main__ as main
from particle_grid.authoring import check_head, check_policy
from particle_grid.evaluation import match
from particle_grid.learn.heads import make_head
from particle_grid.learn.policy import make_policy
from particle_grid.support import registry
from particle_grid.support.errors import UserError
from tests.cases import play
from tests.printed import commands

PAGE = (Path(__file__).parents[1] / "docs" / "own.md").read_text("utf-8")
FILES = dict(re.findall(r"<!-- file: (\w+\.py) -->\n```python\n(.*?)```", PAGE, re.DOTALL))
COMMANDS = [item.text for item in commands("docs/own.md") if item.text.startswith("python -m particle_grid")]
QUICK = ["experiment=smoke", "trainer.total_steps=16384", "clips=0", "evaluations=1", "trainer.fast=off"]
BOX = Box(-1.0, 1.0, (2,))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The folder that the page tells readers to make, on Python's path like the current one. Evaluations are short."""
    monkeypatch.setattr(match, "STEPS", 8)
    for name, text in FILES.items():
        (tmp_path / name).write_text(text, "utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    yield tmp_path
    for name in FILES:
        sys.modules.pop(name.removesuffix(".py"), None)


def test_the_page_has_a_task_a_policy_and_a_head():
    assert list(FILES) == ["corners.py", "deeper.py", "gru.py", "compiled.py", "laplace.py"]
    assert len(COMMANDS) == 11


@pytest.mark.slow
def test_every_command_of_the_page_runs_as_printed(folder, invoke, monkeypatch):
    for line in COMMANDS:
        _, _, module, *arguments = shlex.split(line)
        if module == "particle_grid":
            settings = ["world.agents=64", "world.height=64", "world.width=64"] if "check" in arguments else []
            with monkeypatch.context() as patch:
                patch.setattr(match, "STEPS", 128)  # in shorter episodes, a script gets nowhere
                code, out, err = invoke(main.main, *arguments, *settings)
            assert code == 0, out + err
            continue
        if module == "particle_grid.eval":
            [run] = [path for path in Path("outputs").iterdir() if "laplace" in (path / "config.yaml").read_text()]
            assert "_Corners_continuous_seed0" in run.name
            printed = [argument.replace("outputs/RUN", str(run)) for argument in arguments]
            code, out, err = invoke(eval.main, *printed, "seeds=1", "steps=20")
        else:
            assert module == "particle_grid.train"
            code, out, err = invoke(train.main, *arguments, *QUICK)
        assert code == 0, err
        assert "policy, greedy" in out
    assert len(list(Path("outputs").iterdir())) == sum("particle_grid.train" in line for line in COMMANDS)


def test_the_command_line_starts_from_the_defaults_of_a_users_task_class(folder, invoke):
    code, out, err = invoke(train.main, "--cfg", "job", "task=corners:Corners", "world.width=100")
    assert code == 0, err
    assert "agents: 512\n" in out
    assert "width: 100\n" in out
    assert "total_steps: 1000000\n" in out


@pytest.mark.slow
def test_several_classes_make_a_sweep(folder, invoke):
    sweep = ["-m", "task=corners:Corners,center", "policy=deeper:Deeper", "hydra/hydra_logging=disabled"]
    code, _, err = invoke(train.main, *sweep, *QUICK)
    assert code == 0, err
    [folder] = Path("outputs").iterdir()
    assert {path.name.split("_")[0] for path in folder.iterdir() if path.is_dir()} == {"Corners", "center"}
    results = [json.loads(path.read_text()) for path in folder.glob("*/results.json")]
    assert [result.keys() >= {"sampled"} for result in results] == [True, True]


def test_the_script_of_the_page_clearly_beats_random_actions(folder):
    env = ParticleGrid("corners:Corners", "continuous", agents=20, height=48, width=48, lifespan=0)
    *_, _ = play(env, 100)
    random = env.score()
    env.reset(0)
    for _ in range(100):
        env.step(env.scripted_actions(env.state.rng[:1].copy()))
    assert env.score() > random / 3  # both are negative


def test_the_head_of_the_page_has_the_density_that_it_reports(folder):
    head = make_head(BOX, "laplace:Laplace")
    generator = torch.Generator().manual_seed(0)
    out = torch.zeros(200_000, 2)
    action, logp = head.sample(out, generator)
    again, entropy = head.log_prob_and_entropy(out, action)
    assert torch.equal(logp, again)
    assert -logp.mean().item() == pytest.approx(entropy[0].item(), abs=0.02)
    x = torch.linspace(-20, 20, 200_001)
    density = head.log_prob_and_entropy(torch.zeros(len(x), 2), torch.stack([x, torch.zeros_like(x)], 1))[0].exp()
    at_0 = head.log_prob_and_entropy(torch.zeros(1, 2), torch.zeros(1, 2))[0].exp() ** 0.5  # of the other component
    assert (density.sum() * 2e-4 / at_0).item() == pytest.approx(1, abs=1e-3)


def test_every_policy_and_head_of_the_page_passes_its_checks(folder, monkeypatch):
    monkeypatch.setattr(check_head, "DRAWS", 4000)
    for place in ("deeper:Deeper", "gru:GRU"):
        subject = check_policy.PolicyClass(place, ["policy.hidden=16"])
        for each in check_policy.CHECKS:
            if each.test is not check_policy.measures_speed:
                each.test(subject)
    for each in check_head.CHECKS:
        each.test(check_head.HeadClass("laplace:Laplace", []))


def test_the_compiled_policy_of_the_page_computes_what_it_was_written_for(folder):
    torch.manual_seed(0)
    plain = make_policy("gru:GRU", 2, BOX, hidden=16)
    policy = make_policy("compiled:CompiledGRU", 2, BOX, hidden=16)
    policy.load_state_dict(plain.state_dict())
    obs = check_policy.observations(plain)
    starts = torch.rand(obs.shape[:2]) < 0.3
    state = check_policy.memory(plain)
    expected = plain(obs, starts, state)
    with torch.compiler.set_stance("force_eager"):  # compiling takes a minute
        torch.testing.assert_close(policy(obs, starts, state), expected)


@pytest.mark.parametrize(
    ("text", "place", "problem"),
    [
        ("", "mine:", "is not a class: mine defines the classes none"),
        ("class Other: pass\n", "mine:Task", "is not a class: mine defines the classes Other"),
        ("Task = 3\n", "mine:Task", "is not a class"),
        ("class Task:\n    unit = ''\n", "mine:Task", "lacks teams, sight, init, reward, score, scripted"),
        ("def broken(:\n", "mine:Task", "cannot be imported (invalid syntax (mine.py, line 1))"),
        ("import nowhere\n", "mine:Task", "cannot be imported (No module named 'nowhere')"),
        ("", "no_such_module:Task", "cannot be imported (No module named 'no_such_module')"),
        ("", ":Task", "no module before the colon"),
        ("", ".mine:Task", "no module before the colon"),
        ("raise ValueError('of its own')\n", "mine:Task", "of its own"),
        (
            "class Task:\n    unit = teams = sight = init = reward = score = scripted = 0\n",
            "mine:Task",
            "is not a dataclass",
        ),
    ],
)
def test_invalid_classes_are_refused_in_one_sentence(tmp_path, monkeypatch, invoke, text, place, problem):
    (tmp_path / "mine.py").write_text(text, "utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    with pytest.raises(ValueError, match=re.escape(problem)):
        ParticleGrid(place)
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    code, _, err = invoke(train.main, f"task={place}")
    assert code == 1
    assert len(err.splitlines()) == 1
    monkeypatch.delitem(sys.modules, "mine", raising=False)


TASK = """
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Task:
    {field}
    unit = ""
    sight = False
    {attribute}

    def init(self, layout):
        {init}

    def reward(self, state, layout, rewards): ...
    def score(self, state, layout): ...
    def scripted(self, observations, layout, rng, aim): ...
"""


@pytest.fixture
def write_task(tmp_path, monkeypatch):
    """Return a function that defines the class mine:Task from some parts, until the test ends."""

    def write(field="", attribute="teams = 1", init="pass"):
        (tmp_path / "mine.py").write_text(TASK.format(field=field, attribute=attribute, init=init), "utf-8")
        importlib.invalidate_caches()
        sys.modules.pop("mine", None)

    monkeypatch.syspath_prepend(tmp_path)
    yield write
    sys.modules.pop("mine", None)


@pytest.mark.parametrize(
    ("part", "text", "problem"),
    [
        ("attribute", "teams = 3", "Task mine:Task has teams=3: use 1, or 2 teams that play against each other"),
        ("attribute", "teams = 0", "has teams=0"),
        ("attribute", "teams, sight = 1, None", "has sight=None: use True if it uses the agents in sight, or False."),
        ("attribute", "teams = 1; kinds = 5", "Task mine:Task has kinds=5: give a tuple of names"),
        ("attribute", "teams = 1; settings = {'wrld': {}}", "Did you mean world? There are: task, trainer, world."),
        (
            "attribute",
            "teams = 1; settings = {'trainr': {}}",
            "There is no group 'trainr' of settings for the task mine",
        ),
        ("attribute", "teams = 1; settings = [3]", "The task mine:Task has settings=[3]: give a dict of dicts"),
        ("attribute", "teams = 1; settings = {'world': 3}", "has settings={'world': 3}: give a dict of dicts"),
        ("field", "x: float", "The parameter x of the task mine:Task has no number or text as its default"),
        ("field", "x: tuple = (1, 2)", "The parameter x of the task mine:Task has no number or text"),
        ("field", "agents: int = 3", "The parameter agents of task mine:Task is a setting of every task: rename it"),
        ("init", "return 5", "`init` of task mine:Task returns a int"),
        ("init", "layout.food = 'a'", "layout.food is a str: give a number"),
        ("init", "layout.food = None", "layout.food is a NoneType: give a number"),
        ("init", "layout.food = np.zeros(3)", "layout.food is a ndarray: give a number"),
        ("init", "layout.spawn = np.ma.masked_array(layout.spawn)", "layout.spawn is a MaskedArray: give a plain"),
        ("init", "layout.mix_colours('a')", "colours='a' is not a whole number"),
        ("init", "layout.mix_colours(2.5)", "colours=2.5 is not a whole number"),
        ("init", "layout.blob('a')", "packing='a' is not a finite number"),
        ("init", "layout.blob(0.5, row=np.nan)", "row=nan is not a finite number"),
    ],
)
def test_invalid_tasks_and_layouts_are_refused_in_one_sentence(write_task, part, text, problem):
    write_task(**{part: text})
    with pytest.raises((ValueError, TypeError), match=re.escape(problem)):
        ParticleGrid("mine:Task", agents=6, height=20, width=20)


def test_a_misspelt_group_of_settings_is_refused_by_commands(write_task, invoke):
    write_task(attribute="teams = 1; settings = {'wrld': {}}")
    for command, *arguments in ((train.main, "task=mine:Task"), (main.main, "check", "mine:Task")):
        code, out, err = invoke(command, *arguments)
        assert code == 1
        assert "Did you mean world?" in out + err


EXIT = "(mine.py, line {line}) ends the program with SystemExit(0): raise another error"


@pytest.mark.parametrize(
    ("field", "init", "problem"),
    [
        ("raise SystemExit(0)", "pass", f"The {{kind}} mine:Task cannot be imported: Task {EXIT.format(line=9)}"),
        ("", "raise SystemExit(0)", f"Task.init {EXIT.format(line=15)}"),
    ],
)
def test_an_exit_in_a_users_class_is_an_error_that_names_it(write_task, invoke, field, init, problem):
    write_task(field=field, init=init)
    for kind, command, *arguments in (
        ("task", train.main, "task=mine:Task", *QUICK),
        ("class", main.main, "check", "mine:Task"),
    ):
        sys.modules.pop("mine", None)
        code, out, err = invoke(command, *arguments)
        assert code == 1
        assert problem.format(kind=kind) in out + err


def test_colours_without_names_and_blobs_without_bounds_are_rendered(write_task):
    write_task(attribute="teams = 1; kinds = ('one',)", init="layout.mix_colours(3); layout.blob(5e-324)")
    env = ParticleGrid("mine:Task", agents=6, height=20, width=20)
    env.reset(0)
    assert list(env.legend().values()) == ["one", "orange", "yellow"]


def test_a_class_that_is_not_a_policy_is_refused(folder):
    with pytest.raises(ValueError, match="The policy laplace:Laplace lacks initial_state"):
        make_policy("laplace:Laplace", 5, BOX)
    with pytest.raises(ValueError, match=r"no option 'leyers'. The options are: .*, layers"):
        make_policy("deeper:Deeper", 5, BOX, leyers=3)
    with pytest.raises(
        ValueError, match=r"laplace:Laplace gives torch.float32, which are not actions in MultiDiscrete"
    ):
        make_head(MultiDiscrete([3, 3]), "laplace:Laplace")
    with pytest.raises(ValueError, match="head deeper:Deeper lacks sample"):
        make_head(BOX, "deeper:Deeper")


@pytest.mark.parametrize(
    ("constructor", "problem"),
    [
        ("def __init__(self, vision): super().__init__(vision, None, 3)", "takes other arguments: let it be __init__("),
        ("def __init__(self, vision, head, hidden): pass", "lacks its parts: call super().__init__(vision, head, hid"),
        ("def __init__(self, vision, head, hidden): self.x = torch.nn.Linear(1, 1)", "lacks its parts: call super()"),
    ],
)
def test_an_invalid_constructor_of_a_policy_is_refused(tmp_path, monkeypatch, constructor, problem):
    head = "import torch\nfrom particle_grid.learn.policy import Policy\n\n\nclass Mine(Policy):\n"
    (tmp_path / "constructed.py").write_text(f"{head}    {constructor}\n\n    forward = None\n", "utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    monkeypatch.delitem(sys.modules, "constructed", raising=False)
    with pytest.raises(UserError, match=f"policy constructed:Mine {re.escape(problem)}") as raised:
        make_policy("constructed:Mine", 2, BOX)
    assert len(str(raised.value).splitlines()) == 1
    monkeypatch.delitem(sys.modules, "constructed")


def test_a_constructor_of_a_head_with_other_arguments_is_refused(tmp_path, monkeypatch):
    methods = "sample = log_prob_and_entropy = mode = to_action = init_bias = None"
    (tmp_path / "headless.py").write_text(f"class Mine:\n    def __init__(self, a, b): ...\n    {methods}\n", "utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    with pytest.raises(
        UserError, match=r"of head headless:Mine takes other arguments: let it be __init__\(self, space"
    ):
        make_policy("mlp", 2, BOX, head="headless:Mine")


@pytest.mark.parametrize("key", ["task", "policy", "policy.head"])
@pytest.mark.parametrize("typed", ["corner_task", "corner_task.py"])
def test_the_name_of_a_file_is_answered_by_the_names_of_its_classes(invoke, key, typed):
    Path("corner_task.py").write_text("raise KeyError\n\n\nclass Helper: ...\n\n\nclass Corner: ...\n", "utf-8")
    code, out, err = invoke(train.main, f"{key}={typed}")
    assert (code, out, err.count("\n")) == (1, "", 1)
    sentence = "A class in corner_task.py is named with its module: corner_task:Helper or corner_task:Corner."
    assert err.endswith(f"{sentence}\n")


@pytest.mark.parametrize("kind", ["task", "policy", "head"])
def test_an_installed_package_can_name_its_classes(folder, monkeypatch, kind):
    places = {"task": "corners:Corners", "policy": "deeper:Deeper", "head": "laplace:Laplace"}
    monkeypatch.setattr(registry, "registered", lambda asked: {"theirs": places[kind]} if asked == kind else {})
    match kind:
        case "task":
            assert ParticleGrid("theirs", agents=10).task.colours == 4
        case "policy":
            assert len(make_policy("theirs", 5, BOX, layers=2).layers) == 2
        case "head":
            assert make_policy("mlp", 5, BOX, head="theirs").head.outputs == 2


def test_the_contrib_tasks_are_registered_like_those_of_any_package():
    assert registry.registered("task")["herd"] == "particle_grid.contrib.herd:Herd"
    assert registry.registered("task")["optimize"] == "particle_grid.contrib.optimize:Optimize"
