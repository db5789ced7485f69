"""The settings of a study's runs equal those that Hydra composes."""

from pathlib import Path

import pytest

from particle_grid.experiments.study.config import check_runs, composed, study_config
from particle_grid.experiments.study.plan import find_plan, read_plan
from particle_grid.settings.compose import config_folder, run_config

PLANS = sorted(path.stem for path in (config_folder() / "study").glob("*.yaml"))


@pytest.mark.parametrize("name", PLANS)
def test_the_settings_of_a_plan_equal_those_that_hydra_composes(name):
    plan = read_plan(find_plan(name))
    jobs = [*plan.tuning_jobs(Path()).values(), *plan.test_jobs(Path(), dict.fromkeys(plan.arms, 0)).values()]
    for job in [jobs[0], jobs[len(jobs) // 3], jobs[-1]]:
        assert study_config(job.overrides) == run_config(composed(job.overrides))


@pytest.mark.parametrize(
    "overrides",
    [
        ("world={agents: 7, height: 20}", "task=forage"),
        ("policy=mlp", "world=default", "trainer=default", "policy.hidden=16"),
        ("experiment=smoke", "trainer.rollout_length=16", "task=puffer", "task.text='a=b, [c]'"),
        ("clips=0", "++evaluations=2"),
        ("name=${task.name}-x", "action=continuous", "policy.head=beta"),
    ],
)
def test_overrides_of_every_kind_have_the_same_meaning_as_in_hydra(overrides):
    assert study_config(overrides) == run_config(composed(overrides))


@pytest.mark.parametrize("name", [pytest.param(x, marks=pytest.mark.slow) if x == "full" else x for x in PLANS])
def test_every_run_of_a_shipped_plan_can_be_composed(name):
    assert check_runs(read_plan(find_plan(name)), Path()) > 0
