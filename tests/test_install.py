"""The installed package works for users: the wheel by itself, and its types under their type checkers."""

import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
FOLDERS = ROOT / "particle_grid", ROOT / "hydra_plugins"
# A user's file, which asserts the type of each value that it gets from the package.
USER = """
import numpy as np

import particle_grid.adapters
from particle_grid import ParticleGrid
from particle_grid.learn.policy import make_policy
from particle_grid.learn.config import TrainerConfig
from particle_grid.learn.trainer import Result, Trainer

env: ParticleGrid = ParticleGrid(task="group", action="continuous", agents=64, height=32, width=32)
observations, infos = env.reset(seed=0)
observations, rewards, terminals, truncations, infos = env.step(np.zeros((env.num_agents, 2), np.float32))
score: np.ndarray = env.score() + env.rewards
policy = make_policy("conv_lstm", env.vision, env.single_action_space)
result: Result = Trainer(env, policy, TrainerConfig(total_steps=10_000)).run()
best: float = result.scalars["episode/reward"]
"""
WRONG = {
    "ParticleGrid(agents='many')": "arg-type",
    "ParticleGrid().step(3)": "arg-type",
    "result.nothing": "attr-defined",
    "TrainerConfig(total_steps='all')": "arg-type",
}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    [path] = folder.glob("*.whl")
    return path


def test_the_wheel_contains_the_package_and_its_configs(wheel):
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    package = {str(path.relative_to(ROOT)) for folder in FOLDERS for path in folder.rglob("*") if path.is_file()}
    configs = {f"particle_grid/{path.relative_to(ROOT)}" for path in (ROOT / "conf").rglob("*.[py]*")}
    assert configs
    assert held == {name for name in package if "__pycache__" not in name} | configs


def test_workflows_run_what_developers_run():
    jobs = {}
    for path in (ROOT / ".github" / "workflows").glob("*.yml"):
        content = yaml.safe_load(path.read_text("utf-8"))
        assert content["permissions"] == {"contents": "read"}, path.name  # a job asks for more by itself
        jobs |= {f"{path.stem} {name}": job for name, job in content["jobs"].items()}
    assert jobs["ci run"]["steps"][-1]["run"] == ".ci/run"
    stages = re.search(
        r"for stage in \$stages; do\n    case \$stage in\n        (.*?)\)", (ROOT / ".ci/full").read_text()
    )
    assert sorted(jobs["full stage"]["strategy"]["matrix"]["stage"]) == sorted(stages[1].split(" | "))


@pytest.mark.slow
def test_the_wheel_trains_evaluates_and_lists_outside_the_repository(wheel, tmp_path):
    site, here = tmp_path / "site", tmp_path / "here"
    here.mkdir()
    install = ["-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(site), str(wheel)]
    subprocess.run([sys.executable, *install], check=True, capture_output=True)

    def command(*arguments):
        environment = os.environ | {"PYTHONPATH": str(site), "NUMBA_CACHE_DIR": str(tmp_path / "cache")}
        whole = [sys.executable, *arguments]
        process = subprocess.run(whole, cwd=here, env=environment, capture_output=True, text=True)
        assert process.returncode == 0, process.stdout + process.stderr
        return process.stdout

    assert str(site) in command("-c", "import particle_grid; print(particle_grid.__file__)")
    assert "herd" in command("-m", "particle_grid")
    command("-m", "particle_grid.train", "task=herd", "experiment=smoke", "hydra.run.dir=run")
    assert json.loads((here / "run" / "results.json").read_text())
    few = ["task=center", "seeds=1", "steps=20"]
    assert "normalised" in command("-m", "particle_grid.eval", "checkpoint=pretrained", *few)


def check(folder, text):
    """Return mypy's report on a user's file, and its exit code."""
    (folder / "theirs.py").write_text(text, "utf-8")
    process = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "theirs.py"], cwd=folder, capture_output=True, text=True
    )
    return process.returncode, process.stdout


@pytest.mark.release
def test_the_code_of_users_is_checked_against_the_types_of_the_package(tmp_path):
    code, out = check(tmp_path, USER)
    assert code == 0, out
    code, out = check(tmp_path, USER + "\n".join(WRONG) + "\n")
    first = len(USER.splitlines()) + 1
    for line, error in enumerate(WRONG.values(), first):
        assert any(f":{line}:" in said and f"[{error}]" in said for said in out.splitlines()), out
