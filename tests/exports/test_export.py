"""The command that exports policies: what it writes, what reads it, and what it refuses."""

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from safetensors.torch import load_file, save_file

import particle_grid
from particle_grid import eval as evaluation
from particle_grid import export
from particle_grid.exports import exporter
from particle_grid.learn import checkpoint
from particle_grid.runs.load import load_checkpoint, load_shipped, shipped_path
from particle_grid.runs.results import Results
from tests.cases import CASES


@pytest.fixture
def run_folder(tmp_path):
    """Return the folder of a finished run with two teams."""
    folder = tmp_path / "hunt"
    folder.mkdir()
    checkpoint.save(folder / "checkpoint.pt", checkpoint.load(shipped_path("predator_prey", "discrete")))
    scores = {"random": [[1.0, -1.0]], "scripted": [[3.0, -0.5]], "sampled": [[2.0, -0.75]], "greedy": [[3.0, -1.0]]}
    arrays = {player: np.array(values) for player, values in scores.items()}
    normalised = {"random": [0.0], "scripted": [1.0], "sampled": [0.5], "greedy": [0.5]}
    Results(arrays, {player: np.array(values) for player, values in normalised.items()}).write(folder / "results.json")
    return folder


def test_one_command_exports_every_policy_that_ships(call):
    code, out, err = call(export.main, "checkpoint=pretrained", "format=safetensors", "path=all")
    assert (code, err) == (0, "")
    names = sorted(f"{task}-{action}" for task, action in CASES)
    assert sorted(path.stem for path in Path("all").glob("*.safetensors")) == names
    assert sorted(path.stem for path in Path("all").glob("*.md")) == names
    assert out.count("Saved: ") == 2 * len(CASES)
    for task, action in CASES:
        read = load_checkpoint(f"all/{task}-{action}.safetensors")
        shipped = load_shipped(task, action)
        assert (read.config, read.steps) == (shipped.config, shipped.steps)
        assert all((read.weights[name] == x).all() for name, x in shipped.weights.items())


def test_the_files_of_a_run_lie_beside_its_checkpoint_and_hold_its_scores(call, run_folder, monkeypatch):
    code, out, err = call(export.main, f"checkpoint={run_folder}/checkpoint.pt", "format=safetensors")
    assert (code, err) == (0, "")
    assert out == f"Saved: {run_folder}/hunt.safetensors\nSaved: {run_folder}/hunt.md\n"
    card = (run_folder / "hunt.md").read_text("utf-8")
    front = yaml.safe_load(card.split("---\n")[1])
    assert front["model-index"][0]["results"][0]["metrics"][0]["value"] == 0.5
    assert {"predator_prey", "safetensors"} <= set(front["tags"])
    assert "| policy, sampled | predator | 2.000 ± 0.000 | 0.500 ± 0.000 |" in card
    assert "| policy, greedy | prey | -1.000 ± 0.000 | 0.000 ± 0.000 |" in card
    names = {}
    monkeypatch.chdir(run_folder)
    exec(re.search(r"```python\n(.*?)```", card, re.DOTALL)[1], names)
    assert names["env"].task_name == "predator_prey"


def test_other_commands_read_an_exported_file_like_a_checkpoint(call):
    particle_grid.export_policy(particle_grid.load_policy("pretrained/center-continuous"), "center.safetensors")
    code, out, err = call(evaluation.main, "checkpoint=center.safetensors", "seeds=1", "steps=4", "world.agents=64")
    assert (code, err) == (0, "")
    assert "center, continuous" in out
    assert "license: mit" in Path("center.md").read_text("utf-8")


def test_task_and_action_choose_among_the_policies_that_ship(call):
    code, out, _ = call(export.main, "checkpoint=pretrained", "task=group", "action=discrete", "format=safetensors")
    assert (code, out) == (0, "Saved: group-discrete.safetensors\nSaved: group-discrete.md\n")


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["checkpoint=pretrained/grup-discrete"], "Did you mean pretrained/group-discrete?"),
        (
            ["checkpoint=pretrained", "task=grup"],
            "There is no task 'grup'. Did you mean group?",
        ),
        (["checkpoint=pretrained", "action=jump"], "There is no action 'jump'."),
        (["checkpoint=own.pt", "task=group"], "task= and action= choose among the policies that ship"),
        (["checkpoint=new/own.pt"], "There is no checkpoint new/own.pt"),
        (["checkpoint=own.pt", "path=new"], "There is no checkpoint own.pt"),
        (["checkpoint=none/*.pt"], "matches no file"),
        (["checkpoint="], "is invalid: give a list of paths"),
        (["checkpoint=pretrained", "format=onx"], "There is no format onx. Did you mean onnx?"),
        (["checkpoint=pretrained", "format=[]"], "names no format: choose from onnx, safetensors"),
        (["checkpoint=pretrained", "path=all.onnx"], "path=all.onnx names one file, and there are 16 to write"),
        (["checkpoint=pretrained/group-discrete", "path=group.pt"], "path=group.pt does not end in .onnx"),
        (["checkpoint=pretrained/group-discrete", "path=''"], "is not a path"),
        (["checkpoint=[a/x.pt,b/x.pt]", "path=."], "x.onnx would be written twice"),
    ],
)
def test_a_request_that_cannot_be_met_is_refused_in_a_sentence_and_nothing_is_written(call, arguments, reason):
    code, out, err = call(export.main, *arguments)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert reason in err
    assert not list(Path().iterdir())


@pytest.mark.parametrize("path", ["new", "new/own", "new/own.safetensors"])
def test_an_export_that_does_not_happen_makes_no_folder(call, monkeypatch, path):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(exporter.safetensors, "encode", interrupted)
    request = ["checkpoint=pretrained/group-discrete", "format=safetensors", f"path={path}"]
    assert call(export.main, *request)[0] == 130
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)  # makes its import fail
    assert call(export.main, *request)[0] == 1
    assert not list(Path().iterdir())


@pytest.mark.parametrize(("format", "library"), [("onnx", "onnxscript"), ("safetensors", "safetensors.torch")])
def test_a_missing_library_is_named_with_the_command_that_installs_it(call, monkeypatch, format, library):
    monkeypatch.setitem(sys.modules, library, None)  # makes its import fail
    code, _, err = call(export.main, "checkpoint=pretrained/group-discrete", f"format={format}")
    assert code == 1
    assert re.search(
        rf'format={format} needs {library.partition(".")[0]}, .*pip install "particle-grid\[export\]"', err
    )


def rewritten(path, change):
    """Write a file in which the contract has been changed."""
    particle_grid.export_policy(particle_grid.load_policy("pretrained/center-discrete"), path)
    contract = checkpoint.load(shipped_path("center", "discrete"))
    metadata = {"version": contract["version"], "config": contract["config"], "steps": contract["steps"]}
    change(metadata)
    save_file(load_file(path), path, {"particle_grid": json.dumps(metadata)})


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda values: values.pop("config"), "it has no config"),
        (lambda values: values.update(version=99), "has checkpoint version 99"),
        (lambda values: values.pop("version"), "was not saved by particle_grid"),
        (lambda values: values["config"]["policy"].update(hidden=64), "The weights do not fit the policy"),
        (lambda values: values["config"]["policy"].update(name="mine:Mine"), "add allow=[mine:Mine]"),
        (lambda values: values.update(steps="many"), "not a whole number"),
    ],
)
def test_a_file_whose_content_is_unsound_is_refused(tmp_path, change, reason):
    path = tmp_path / "own.safetensors"
    rewritten(path, change)
    with pytest.raises(particle_grid.UserError, match=re.escape(reason)):
        particle_grid.load_policy(path)


@pytest.mark.parametrize("content", [b"", b"no weights", b"\xff" * 64])
def test_a_file_that_is_damaged_or_missing_is_refused(tmp_path, content):
    path = tmp_path / "own.safetensors"
    with pytest.raises(particle_grid.UserError, match="There is no file"):
        particle_grid.load_policy(path)
    path.write_bytes(content)
    with pytest.raises(particle_grid.UserError, match=r"is not a \.safetensors file or is damaged"):
        particle_grid.load_policy(path)


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        (["checkpoint="], "checkpoint= is invalid"),
        (["checkpoint=nowhere*.pt"], "checkpoint=nowhere*.pt matches no file"),
        (["checkpoint=pretrained", "format=[]"], "format=[] names no format: choose from onnx, safetensors."),
    ],
)
def test_messages_of_the_command_name_its_own_settings(settings, problem, call):
    code, _, err = call(export.main, *settings)
    assert code == 1
    assert problem in err
