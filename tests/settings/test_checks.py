"""Single values of the command line that cannot be used are refused in one sentence."""

import re
from dataclasses import replace

import pytest

from particle_grid import UserError, export, make_config, play, rank, train
from particle_grid import eval as evaluation
from particle_grid.settings.checks import check_places
from particle_grid.settings.compose import composed, resumed_config
from particle_grid.settings.run_config import GROUPS


@pytest.mark.parametrize("value", ["{a:1}", "", "null", "true", "5", "[csv,[a]]", "[null]", "[csv,5]"])
def test_what_does_not_name_loggers_is_refused_in_a_sentence(invoke, value):
    code, out, err = invoke(train.main, f"logger={value}")
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert err.startswith("error: logger")
    assert "as in logger=[" in err


@pytest.mark.parametrize("value", ["5", "[5]", "center", "[mine:Mine,center]", "{a:1}"])
@pytest.mark.parametrize("command", [train, evaluation, play, rank, export], ids=lambda each: each.__name__)
def test_what_does_not_name_classes_is_not_allowed(invoke, command, value):
    name = "checkpoints=[pretrained]" if command is rank else "checkpoint=pretrained"
    code, out, err = invoke(command.main, *([] if command is train else [name]), f"allow={value}")
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert err.startswith("error: allow=")
    assert "does not name classes: give module:Class, or a list of them." in err


@pytest.mark.parametrize("value", ["mine:Mine", ["mine:Mine"], ("mine:Mine",), {"mine:Mine"}])
def test_a_class_is_allowed_alone_or_in_a_list(value):
    assert check_places(value) == ("mine:Mine",)
    assert check_places(None) == ()


@pytest.mark.parametrize("group", GROUPS)
def test_a_list_is_not_a_choice_of_a_group(invoke, group):
    choice = {"task": "group", "action": "discrete", "policy": "mlp"}.get(group, "default")
    sentence = f"{group}=[{choice}] is a list: choose one, as in {group}=NAME."
    with pytest.raises(UserError, match=re.escape(sentence)):
        make_config(f"{group}=[{choice}]")
    assert invoke(train.main, f"{group}=[{choice}]") == (1, "", f"error: {sentence}\n")


def test_what_does_not_change_learning_may_be_changed_in_a_resumed_run():
    saved = composed(["task=center"])
    run = resumed_config(saved, ["resume=run/checkpoint.pt", "evaluations=0", "clips=1", "logger=csv"])
    assert (run.evaluations, run.clips, run.logger) == (0, 1, ("csv",))
    assert replace(run, evaluations=saved.evaluations, clips=saved.clips, logger=saved.logger) == saved
    for fixed in ("seed=1", "trainer.seed=1", "task=group"):
        with pytest.raises(UserError, match=f"{fixed} cannot be changed in a resumed run, only logger, clips, eval"):
            resumed_config(saved, [fixed])
