"""Arguments that a command cannot use are refused in one sentence of its own, before anything is made."""

import json
from itertools import permutations
from pathlib import Path

import pytest

from particle_grid import train
from particle_grid.settings.arguments import prepared
from tests.test_cli import dummy

MISUSED = [
    (["--config-dir", "none"], "--config-dir=none is not a folder: give one with presets of your own"),
    (["--config-dir"], "--config-dir/-cd: expected one argument; --hydra-help explains"),
    (["--config-name", "eval"], "--config-name is not available: the settings of a command cannot be replaced."),
    (["-cp", "/"], "--config-path is not available: the settings of a command cannot be replaced."),
    (["--experimental-rerun", "job.pickle"], "--experimental-rerun is not available: it unpickles a file"),
    (["--exp", "job.pickle"], "There is no option --exp."),
    (["--cfg", "jobs"], "--cfg/-c: invalid choice: 'jobs' (choose from "),
    (["--cfg"], "--cfg/-c: expected one argument"),
    (["--resolve"], "--resolve belongs to --cfg and --help: add --cfg job"),
    (["-m", "--cfg", "job"], "-m and --cfg exclude each other"),
    (["--task", "group"], "There is no option --task. Settings are written without dashes, as in task=VALUE;"),
    (
        ["--task=group", "seed=1"],
        "There is no option --task=group. Settings are written without dashes, as in task=group;",
    ),
    (["task"], "'task' is not a setting: write KEY=VALUE"),
    (["name=a", "b"], "'b' is not a setting: write KEY=VALUE, and quote a value that has spaces."),
    (["=group"], "=group has no name: write KEY=VALUE"),
    *(
        ([each], f"{each!r} cannot be read: close brackets and quotation marks")
        for each in ("seed=[a", "seed={a", "seed=a]")
    ),
    (["name=a=b"], "'name=a=b' cannot be read: close brackets and quotation marks, and quote a value with special"),
    (["seed=int(x)"], "'seed=int(x)' cannot be read (invalid literal for int() with base 10: 'x')"),
    (["-m", "seed=range(a,b)"], "'seed=range(a,b)' cannot be read"),
    (["seed=1,2"], "seed=1,2 has several values: write seed=[1,2] for a list, or, on the command line, add -m"),
    (["seed=choice(1,2)"], "seed=choice(1,2) has several values: add -m"),
    *(([each], f"{each} would remove a setting") for each in ("~seed", "~trainer", "~trainer.gamma=0.9", "~seedd")),
    (["seed=${oc.env:UNSET_HERE}"], "(\"Environment variable 'UNSET_HERE' not found\"): write a value without ${...}."),
    (["hydra.run=1"], "hydra.run cannot have this value: give each of its keys, as in hydra.run.KEY=VALUE."),
    (["hydra.run.dir="], "hydra.run.dir= is empty: name a folder"),
    (["-m", "hydra.sweep.dir=", "seed=0,1"], "hydra.sweep.dir= is empty: name a folder"),
    *(
        (["-m", f"seed={sweep}"], f"seed={sweep} has no values: give some, as in seed=1,2.")
        for sweep in ("range(3,1)", "shuffle(range(3,1))")
    ),
    (["-m", "logger=csv,tensorboard", "seed=0,1"], "logger= cannot be swept"),
]


@pytest.mark.parametrize(("arguments", "message"), MISUSED, ids=[" ".join(arguments) for arguments, _ in MISUSED])
def test_what_is_misused_is_refused_in_one_sentence_before_anything_is_made(invoke, arguments, message):
    code, out, err = invoke(train.main, *arguments)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert err.startswith("error: ")
    assert message in err
    assert not list(Path().iterdir())


def test_an_interval_needs_a_sweeper_that_draws_from_it(invoke):
    code, _, err = invoke(train.main, "-m", "trainer.gamma=interval(0,1)", "hydra/hydra_logging=disabled")
    assert (code, err) == (
        1,
        "error: An interval is for hydra/sweeper=optuna: add that, or list values, as in KEY=1,2.\n",
    )


def test_options_may_stand_anywhere_among_the_settings():
    orders = [prepared(list(order)) for order in permutations(["-m", "task=center", "+seed=0,1"])]
    assert {order[0] for order in orders} == {"-m"}
    assert {frozenset(order[1:]) for order in orders} == {frozenset({"task=center", "seed=0,1"})}
    assert prepared(["seed=1", "--cfg", "job", "seed=2"]) == ["--cfg", "job", "seed=1", "seed=2"]


def test_a_folder_of_presets_is_found_and_the_last_value_of_a_repeated_key_counts(invoke):
    Path("mine/experiment").mkdir(parents=True)
    Path("mine/experiment/dense.yaml").write_text("# @package _global_\nworld:\n  agents: 99\n")
    code, out, err = invoke(dummy, "--config-dir=mine", "experiment=dense", "seed=6", "seed=7")
    assert (code, err) == (0, "")
    config = json.loads(out)
    assert (config["world"]["agents"], config["seed"]) == (99, 7)
