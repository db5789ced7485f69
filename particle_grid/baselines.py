"""Measures what random actions and the scripts score in every task's own setting, and stores it with the package.

python -m particle_grid.baselines             # all tasks in both action forms
python -m particle_grid.baselines task=group
"""

import json

from hydra import compose
from omegaconf import DictConfig, OmegaConf

from particle_grid.cli import command
from particle_grid.env import ACTIONS
from particle_grid.evaluation import scores
from particle_grid.runs.build import build_env
from particle_grid.sim import tasks
from particle_grid.support import atomic


@command("baselines")
def main(config: DictConfig) -> None:
    names = [config.task.name] if config.get("task") else tasks.names()
    entries = json.loads(scores.STORED.read_text("utf-8")) if scores.STORED.exists() else []
    for name in names:
        for action in ACTIONS:
            # The setting that `train task=NAME action=FORM` has.
            run = OmegaConf.to_container(compose("train", [f"task={name}", f"action={action}"]), resolve=True)
            env = build_env(run)  # type: ignore[arg-type]
            key = scores.settings(env) | {"seeds": list(scores.SEEDS), "steps": scores.steps_for(env)}
            baseline = scores.measure(env)
            entries = [e for e in entries if (e["settings"]["task"], e["settings"]["action"]) != (name, action)]
            entries.append({"settings": key, "random": baseline.random, "scripted": baseline.scripted})
            means = f"random {row(baseline.random)}   script {row(baseline.scripted)}"
            print(f"{name:14s} {action:11s} {means}   {env.unit}")
            entries.sort(key=lambda e: (e["settings"]["task"], e["settings"]["action"]))
            atomic.write(scores.STORED, (json.dumps(entries, indent=1) + "\n").encode())


def row(values: list[list[float]]) -> str:
    """Mean over seeds for each side."""
    return " / ".join(f"{sum(side) / len(side):9.4f}" for side in zip(*values, strict=True))


if __name__ == "__main__":
    main()
