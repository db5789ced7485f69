"""The plans of studies: those that ship run to their end, and those that are invalid are refused in one sentence."""

import csv
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from particle_grid import study, study_config
from particle_grid.command import config_folder
from particle_grid.plan import load_plan

FOLDER = config_folder() / "study"
SMOKE = (FOLDER / "smoke.yaml").read_text("utf-8")
PLANS = sorted(path.stem for path in FOLDER.glob("*.yaml"))
SMALL = [
    *("world.worlds=1", "world.agents=32", "world.height=48", "world.width=48", "world.lifespan=20"),
    *("policy.hidden=16", "trainer.horizon=8", "trainer.minibatch=64", "trainer.total_steps=2000", "evaluations=1"),
]


def shrunk(name, arms, tasks, variants):
    """Write a plan with the first few arms, tasks and variants of a shipped one, and two seeds, on small worlds."""
    plan = OmegaConf.to_container(OmegaConf.load(FOLDER / f"{name}.yaml"))
    kept = list(dict.fromkeys([plan["reference"], plan["scale"], *plan["arms"]]))[:arms]
    plan["arms"] = {arm: plan["arms"][arm] for arm in kept}
    for arm in plan["arms"].values():
        arm["overrides"] += SMALL
    plan["tasks"] = {key: plan["tasks"][key] for key in list(plan["tasks"])[-tasks:]}
    plan["variants"] = {key: plan["variants"][key] for key in list(plan["variants"])[-variants:]}
    plan["seeds"] = plan["seeds"][:2]
    tuning = plan["tuning"]
    tuning |= {"tasks": list(plan["tasks"])[-1:] if tuning["tasks"] else [], "seeds": tuning["seeds"][:1]}
    tuning["draws"] = min(tuning["draws"], 2)
    OmegaConf.save(OmegaConf.create(plan), f"{name}.yaml")
    return f"{name}.yaml"


def runs_to_its_end(plan):
    command = [sys.executable, "-m", "particle_grid.study", plan, "--out", "out"]
    process = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert process.returncode == 0, process.stdout + process.stderr
    assert "report.html" in process.stdout
    with Path("out/summary.csv").open() as file:
        assert {line["arm"] for line in csv.DictReader(file)} == set(OmegaConf.load(plan).arms)
    assert Path("out/report.html").stat().st_size > 100_000


@pytest.mark.slow
def test_a_shipped_plan_that_tunes_nothing_runs_to_its_end(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    runs_to_its_end(shrunk("axes", arms=2, tasks=1, variants=1))


@pytest.mark.release
@pytest.mark.parametrize("name", PLANS)
def test_every_shipped_plan_runs_to_its_end(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    runs_to_its_end(shrunk(name, arms=3, tasks=2, variants=2))
