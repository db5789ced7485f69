"""`python -m particle_grid new` writes files that run, learn and pass the linters, and overwrites nothing."""

import subprocess
import sys
from pathlib import Path

import pytest

from particle_grid import __main__ as module
from particle_grid import train
from particle_grid.authoring.new import NEXT, SMALL, TEMPLATES
from tests.printed import ROOT

QUICK = ["trainer.total_steps=16384", "clips=0", "evaluations=1", "trainer.fast=off"]


def test_every_kind_has_a_template():
    assert {path.stem for path in TEMPLATES.iterdir()} == set(NEXT)


@pytest.mark.parametrize("kind", NEXT)
def test_a_new_file_is_written_once_and_the_next_commands_are_printed(kind, call):
    code, out, err = call(module.main, "new", kind, "my_own")
    assert (code, err) == (0, "")
    text = Path("my_own.py").read_text("utf-8")
    assert "class MyOwn" in text
    assert "Example" not in text
    assert "python -m particle_grid check my_own:MyOwn\n" in out
    assert "python -m particle_grid.train task=" in out
    code, _, err = call(module.main, "new", kind, "my_own")
    assert (code, err) == (1, "error: my_own.py exists: choose another name, or move that file away.\n")
    assert Path("my_own.py").read_text("utf-8") == text


@pytest.mark.parametrize(
    ("kind", "name", "problem"),
    [
        ("taks", "mine", "There is no template 'taks'. Did you mean task?"),
        ("task", "9lives", "'9lives' is not a name of a module"),
        ("task", "my-task", "'my-task' is not a name of a module"),
        ("task", "../mine", "'../mine' is not a name of a module"),
        ("task", "mine.py", "'mine.py' is not a name of a module"),
        ("task", "class", "class is a keyword of Python: choose another name"),
        ("task", "numpy", "numpy.py would hide the module numpy ("),
        ("task", "random", "random.py would hide the module random ("),
        ("task", "none", "None is a keyword of Python: choose another name"),
        ("task", "state", "The class State would hide a name that the file itself uses"),
        ("policy", "policy", "The class Policy would hide a name"),
        ("task", "a" * 41, "has 41 letters: use a name of at most 40"),
    ],
)
def test_other_names_are_refused_in_one_sentence(kind, name, problem, call, tmp_path):
    code, out, err = call(module.main, "new", kind, name)
    assert (code, out) == (1, "")
    assert problem in err
    assert len(err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", NEXT)
def test_new_files_pass_the_linter_and_the_formatter(kind, call, tmp_path):
    call(module.main, "new", kind, "a_name_of_forty_letters_for_the_line_end"[:40])
    for tool in (["check"], ["format", "--check"]):
        command = [sys.executable, "-m", "ruff", *tool, "--config", str(ROOT / "pyproject.toml"), str(tmp_path)]
        process = subprocess.run(command, capture_output=True, text=True)
        assert process.returncode == 0, process.stdout


@pytest.mark.slow
def test_new_files_pass_the_type_checker(call, tmp_path):
    for kind in NEXT:
        call(module.main, "new", kind, f"my_{kind}")
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--config-file",
        str(ROOT / "pyproject.toml"),
        *map(str, tmp_path.glob("*.py")),
    ]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert process.returncode == 0, process.stdout


@pytest.mark.slow
@pytest.mark.parametrize("action", ["discrete", "continuous"])
@pytest.mark.parametrize("kind", NEXT)
def test_new_files_train_as_printed(kind, action, written, invoke):
    command = NEXT[kind].format(place=written(kind), small=SMALL).split()[3:]
    if kind == "head" and action == "discrete":
        return  # its distribution is of continuous actions
    code, out, err = invoke(train.main, *command, f"action={action}", *QUICK)
    assert code == 0, err
    assert "policy, greedy" in out
