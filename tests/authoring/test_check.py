"""`python -m particle_grid check` passes what ships, and finds what is broken."""

import re

import pytest

from particle_grid import __main__ as module
from particle_grid.authoring import check_head, check_policy, check_task
from particle_grid.authoring.check import check, kind_of
from particle_grid.evaluation import match
from particle_grid.learn.heads import HEADS
from particle_grid.learn.policy import POLICIES
from particle_grid.settings.run_config import RunConfig
from particle_grid.sim import tasks
from particle_grid.sim.world import World
from particle_grid.support.errors import UserError

TINY = ["world.worlds=1", "world.agents=60", "world.height=48", "world.width=48"]
SETTINGS = {"puffer": [*TINY, "task.text=P"], "herd": [], "optimize": []}  # scripts that need more room


@pytest.fixture
def short(monkeypatch):
    """Let checks take less time than those of users."""
    monkeypatch.setattr(match, "STEPS", 64)
    monkeypatch.setattr(check_head, "DRAWS", 4000)
    monkeypatch.setattr(check_task, "SECONDS", 0.01)
    monkeypatch.setattr(check_policy, "TOWN", {"agents": 32, "height": 32, "width": 32})


@pytest.mark.slow
@pytest.mark.parametrize("name", tasks.names())
def test_every_registered_task_passes(name, short, capsys):
    assert check(name, SETTINGS.get(name, TINY)), capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("name", POLICIES)
def test_every_registered_policy_passes(name, short, capsys):
    assert check(name, ["policy.hidden=16", "trainer.fast=off"]), capsys.readouterr().out


@pytest.mark.parametrize("name", HEADS)
def test_every_registered_head_passes(name, short, capsys):
    assert check(name), capsys.readouterr().out
    assert capsys.readouterr().out.count("  ok  ") == len(check_head.CHECKS)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "settings"), [("task", []), ("policy", ["policy.hidden=16", "trainer.threads=1"]), ("head", [])]
)
def test_new_files_pass(kind, settings, written, short, call):
    code, out, err = call(module.main, "check", written(kind), *settings)
    assert (code, err) == (0, ""), out
    assert f"mine:Mine is a {kind}" in out
    assert "wrong" not in out


IN_REWARD = "rewards[:] = np.maximum(self.score(state, layout) / self.wanted, -1)"
BROKEN_TASKS = [
    (check_task.builds, "    unit: ClassVar", "    units: ClassVar", "lacks unit"),
    (check_task.builds, "ClassVar[int] = 1", "ClassVar[int] = 3", "has teams=3"),
    (check_task.builds, "layout.mix_colours(1)", "layout.mix_colours(9)", "colours=9 is out of range"),
    (check_task.builds, "wanted: int = 4", "wanted: int = 0", "wanted=0 is out of range: give 1 or more"),
    (check_task.gives_rewards, IN_REWARD, "rewards[:] = 7", "the reward 7.0: scale it into [-1, 1]"),
    (check_task.gives_rewards, IN_REWARD, "rewards[:] = np.nan", "the reward nan: look for a division by 0"),
    (check_task.gives_rewards, "bool] = True", "bool] = False", "uses state.own_in_sight, which is not"),
    (check_task.gives_rewards, IN_REWARD, "rewards = self.score(state, layout)", "rewards[:] = ..."),
    (check_task.gives_rewards, "astype(np.float32)", "mean(keepdims=True)", "scores of shape [1]"),
    (check_task.gives_rewards, "aim[in_sight > self.wanted] *= -1", "aim[:] = np.inf", "write finite numbers"),
    (check_task.writes_all_rewards, IN_REWARD, "rewards[state.position[0] < 20] = 0.25", "write all of them"),
    (check_task.script_beats_random, "in_sight > self.wanted", "in_sight >= 0", "let the script do clearly better"),
    (check_task.repeats, IN_REWARD, "rewards[:] = np.random.random(len(rewards))", "the same seed differ"),
    (
        check_task.repeats,
        IN_REWARD,
        'vars(self)["n"] = vars(self).get("n", 0) + 1; rewards[:] = 1 / vars(self)["n"]',
        "after another reset with the same seed it plays otherwise",
    ),
    (
        check_task.continues,
        IN_REWARD,
        'vars(self)["n"] = vars(self).get("n", 0) + 1; rewards[:] = 1 / vars(self)["n"]',
        "a restored state continues otherwise",
    ),
]
IN_FORWARD = "average = average.masked_fill(start[:, None], 0.0)"
BROKEN_POLICIES = [
    (
        check_policy.has_shapes,
        "return (self.decay.new_zeros(n, self.hidden),)",
        "return [self.decay]",
        "returns a list",
    ),
    (check_policy.has_shapes, "new_zeros(n, self", "new_zeros(1, self", "should be float32[5, 128]"),
    (check_policy.has_shapes, "return *self.decide(x), (average,)", "return self.decide(x)", "three things"),
    (check_policy.has_shapes, "*self.decide(x), (average,)", "*self.decide(x.log()), (average,)", "NaN or infinite"),
    (
        check_policy.has_shapes,
        "*self.decide(x), (average,)",
        "*self.decide(x[-1:]), (average,)",
        "out is float32[1, 5, ",
    ),
    (check_policy.repeats, "averages = []", "averages = []; x = F.dropout(x)", "give other outputs"),
    (
        check_policy.repeats,
        "torch.full((hidden,), decay)",
        'torch.tensor([__import__("random").random()] * hidden)',
        "decay starts",
    ),
    (check_policy.computes_steps_alike, "(average,) = state", "average = 0 * state[0]", "one by one"),
    (check_policy.forgets_at_starts, IN_FORWARD, "pass", "replace the memory by the initial one"),
    (check_policy.forgets_at_starts, IN_FORWARD, "average = average * 0 if start.any() else average", "a start of one"),
    (check_policy.forgets_at_starts, "decay = self.decay.sigmoid()", "decay = 0 * self.decay", "changes nothing"),
    (check_policy.keeps_agents_apart, "self.decide(x)", "self.decide(x - x.mean(1, True))", "keep agents apart"),
    (check_policy.has_gradients, "decay = self.decay.sigmoid()", "decay = 0.5", "no gradient reaches decay"),
]
BROKEN_HEADS = [
    (check_head.builds, "def mode(", "def best(", "lacks mode"),
    (check_head.has_shapes, "return logp.sum(-1), entropy", "return logp, entropy", "should be float32[4] here"),
    (
        check_head.acts_in_range,
        "        return sample\n",
        "        return sample[..., 0]\n",
        "`to_action` is float32[1000]",
    ),
    (check_head.uses_its_generator, "generator=generator, ", "", "pass generator=generator"),
    (check_head.has_a_density, "return sample, ", "sample = sample.clamp(-1, 1); return sample, ", "are exactly"),
    (check_head.has_a_density, "return sample, ", "sample = sample.round(); return sample, ", "are exactly"),
    (
        check_head.repeats_log_probs,
        "return sample, self",
        "return sample.clamp(-0.1, 0.1), self",
        "before it is clipped",
    ),
    (check_head.is_a_distribution, " - self.log_scale\n", "\n", "add up to"),
    (check_head.knows_its_entropy, "self.log_scale + 2)", "self.log_scale + 1)", "correct one of them"),
    (check_head.sizes_first_actions, "math.log(rms *", "math.log(2 * rms *", "root mean square of"),
    (
        check_head.has_gradients,
        "self.log_scale = nn",
        "self.unused = nn.Parameter(torch.ones(1)); self.log_scale = nn",
        "unused",
    ),
]


def run_configs(**settings):
    """Return settings of a run in each action form, without composing them."""
    policy = settings.pop("policy", "mlp")
    return {form: RunConfig(action=form, policy=policy, **settings) for form in ("discrete", "continuous")}


def assert_found(test, module, subject, problem):
    assert test in [each.test for each in module.CHECKS]
    with pytest.raises(UserError, match=re.escape(problem)):
        test(subject)


@pytest.mark.parametrize(("test", "old", "new", "problem"), BROKEN_TASKS)
def test_a_broken_task_is_found(test, old, new, problem, written, short):
    subject = check_task.TaskClass(written("task", (old, new)), ())
    vars(subject)["configs"] = run_configs(task=subject.place, world=World(agents=40, height=32, width=32))
    assert_found(test, check_task, subject, problem)


@pytest.mark.parametrize(("test", "old", "new", "problem"), BROKEN_POLICIES)
def test_a_broken_policy_is_found(test, old, new, problem, written):
    subject = check_policy.PolicyClass(written("policy", (old, new)), ())
    vars(subject)["configs"] = run_configs(task="center", policy=subject.place)
    assert_found(test, check_policy, subject, problem)


@pytest.mark.parametrize(("test", "old", "new", "problem"), BROKEN_HEADS)
def test_a_broken_head_is_found(test, old, new, problem, written, short):
    assert_found(test, check_head, check_head.HeadClass(written("head", (old, new)), ()), problem)


def test_a_crash_shows_the_traceback_from_the_users_line_on_and_ends_the_list(written, call):
    place = written("task", (IN_REWARD, "rewards[:] = 1 / (self.wanted - self.wanted)"))
    code, out, err = call(module.main, "check", place, *TINY)
    assert (code, err) == (1, "")
    assert out.count("Traceback") == 1
    trace = out[out.index("Traceback") :].splitlines()
    assert re.match(r'  File ".*mine.py", line \d+, in reward', trace[1])
    assert "ZeroDivisionError: division by zero. Correct line 3" in out
    assert out.splitlines()[-1].strip() == "The checks after this one were left out."


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "import nowhere",
            "wrong  can be imported: The class mine:Mine cannot be imported (No module named 'nowhere'): "
            "correct that import in mine, or install what it needs.\n",
        ),
        ("x = (", "cannot be imported ('(' was never closed (mine.py, line 1)): correct the syntax there.\n"),
        ("1 / 0", "ZeroDivisionError: division by zero. Correct line 1 of mine.py"),
        ("class Mine: pass", "mine:Mine is neither a task, nor a policy, nor a head"),
    ],
)
def test_a_file_without_such_a_class_is_reported(text, problem, written, tmp_path, call):
    place = written("task")
    (tmp_path / "mine.py").write_text(text, "utf-8")
    code, out, err = call(module.main, "check", place)
    assert code == 1
    assert problem in out + err


@pytest.mark.parametrize(
    ("kind", "old", "new", "line"),
    [
        ("task", IN_REWARD, "rewards[:] = np.random.random(len(rewards))", "the same seed gives the same trajectory"),
        ("task", "layout.mix_colours(1)", "layout.mix_colours(np.random.randint(1, 4))", "the same seed gives"),
        ("policy", "averages = []", "averages = []; x = F.dropout(x)", "the same seed and observations give"),
        ("head", "return sample, ", "sample = sample.clamp(-1, 1); return sample, ", "samples are neither clipped nor"),
    ],
)
def test_what_follows_from_a_fault_is_not_reported(kind, old, new, line, written, short, call):
    code, out, err = call(module.main, "check", written(kind, (old, new)))
    assert (code, err) == (1, "")
    assert out.count("  wrong  ") == 1
    assert f"  wrong  {line}" in out


def test_an_unknown_name_is_refused_with_all_that_can_be_checked(call):
    code, _, err = call(module.main, "check", "grup")
    assert code == 1
    assert err.startswith("error: There is no task, policy or head 'grup'. Did you mean group? There are: ")
    assert {*tasks.names(), *POLICIES, *HEADS} == set(err.partition("are: ")[2].partition(".")[0].split(", "))
    assert err.endswith("Name a class of your own as module:Class.\n")


def test_without_arguments_only_what_is_missing_is_named(call):
    code, _, err = call(module.main, "check")
    assert code == 2
    assert err.endswith("error: the following arguments are required: module:Class\n")


@pytest.mark.parametrize(
    ("name", "setting", "problem"),
    [
        ("center", "world.agnets=3", "There is no key 'agnets' in world. Did you mean agents?"),
        ("center", "world.agents=x", "world.agents=x is invalid: give a whole number"),
        (
            "center",
            "task=group",
            "task=group is not for check, which takes center and both action forms: leave it out.",
        ),
        ("mlp", "policy=conv", "policy=conv is not for check"),
        ("beta", "policy.head=bins", "policy.head=bins is not for check"),
        ("center", "action=discrete", "action=discrete is not for check"),
        ("center", "allow=[mine:Mine]", "allow=[mine:Mine] is not a setting of a run"),
    ],
)
def test_an_invalid_setting_is_refused_before_the_class_is_checked(name, setting, problem, call):
    code, out, err = call(module.main, "check", name, setting)
    assert code == 1
    assert err.startswith(f"error: {problem}")
    assert len(err.splitlines()) == 1
    assert "wrong" not in out


def test_an_invalid_setting_of_the_class_itself_is_found_by_its_checks(written, call):
    code, out, err = call(module.main, "check", written("task", ('"agents": 256', '"agnets": 256')), "seed=1")
    assert (code, err) == (1, "")
    assert "  wrong  parts, parameters and layout: There is no key 'agnets' in world. Did you mean agents?" in out


def test_the_kind_of_a_class_is_recognised_although_a_part_is_missing(written):
    assert kind_of(written("head", ("def init_bias", "def bias"))) == "head"
