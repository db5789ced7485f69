"""Files of earlier versions of the program are read with the current names."""

import json

import numpy as np
import pytest

from particle_grid.runs.folder import RunFolder
from particle_grid.runs.results import read_results
from particle_grid.runs.versions import upgraded_checkpoint, upgraded_config, upgraded_overrides
from particle_grid.support.renamed import ARRAYS, SETTINGS


def test_a_renamed_setting_is_found_under_its_new_name():
    for old, new in SETTINGS.items():
        group, _, key = old.partition(".")
        config = upgraded_config({group: {key: 7, "other": 1}, "seed": 3, "resume": None})
        assert config == {group: {new.partition(".")[2]: 7, "other": 1}, "seed": 3}
        assert upgraded_config(config) == config
        assert upgraded_overrides([f"{old}=7", f"+{old}=7", "seed=3"]) == [f"{new}=7", f"+{new}=7", "seed=3"]


def test_renamed_arrays_are_found_in_every_process_of_a_checkpoint():
    envs = [{name: k for k, name in enumerate([*ARRAYS, "grid"])}]
    state = upgraded_checkpoint({"envs": envs, "others": [{"envs": envs}]})
    for part in (state, *state["others"]):
        assert part["envs"] == [{name: k for k, name in enumerate([*ARRAYS.values(), "grid"])}]


@pytest.mark.parametrize(("version", "head"), [(1, "bins"), (2, "bins"), (3, "auto")])
def test_the_head_that_auto_stood_for_is_kept(version, head):
    for policy in ({"name": "mlp", "head": "auto"}, {"name": "mlp"}):
        state = {"version": version, "config": {"action": {"name": "continuous"}, "policy": policy}}
        assert upgraded_checkpoint(state)["config"]["policy"].get("head", "auto") == head
    for action, own in (("continuous", "beta"), ("discrete", "auto")):
        state = {"version": version, "config": {"action": {"name": action}, "policy": {"name": "mlp", "head": own}}}
        assert upgraded_checkpoint(state)["config"]["policy"]["head"] == own


def test_results_of_the_first_version_have_the_current_keys(tmp_path):
    labels = ("random actions", "script", "policy, sampled", "policy, greedy")
    scores = {label: {"scores": [[k]], "normalised_scores": [k / 2]} for k, label in enumerate(labels)}
    (tmp_path / "results.json").write_text(json.dumps(scores))
    results = RunFolder(tmp_path).read_results()
    assert list(results.scores) == ["random", "scripted", "sampled", "greedy"]
    assert results.mean("sampled") == 1.0
    results.write(tmp_path / "again.json")
    again = read_results(tmp_path / "again.json", "")
    assert all(np.array_equal(again.scores[player], results.scores[player]) for player in results.scores)


@pytest.mark.parametrize("version", [0, 3, "2", None])
def test_results_of_an_unknown_version_are_refused(tmp_path, version):
    (tmp_path / "results.json").write_text(json.dumps({"version": version}))
    with pytest.raises(ValueError, match=r"is not a run's results, or of a later version\. Remove this run's folder"):
        RunFolder(tmp_path).read_results()
