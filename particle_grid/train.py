"""Trains a policy: python -m particle_grid.train task=group action=continuous (--help says more)."""

from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numba
import numpy as np
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from particle_grid.cli import check_name, check_paths, command, typed
from particle_grid.evaluation import results, scores
from particle_grid.evaluation.clips import Clips
from particle_grid.experiments import sweep
from particle_grid.experiments.pool import CHECKPOINT, RESULT, resuming
from particle_grid.learn.dashboard import Dashboard
from particle_grid.learn.distributed import ProcessGroup, joined, ranks
from particle_grid.learn.tensorboard import Logger
from particle_grid.learn.trainer import Result, Trainer, TrainerConfig, choose_device
from particle_grid.runs.build import build_env, build_env_splits, build_policy, load_run, opponents_for, places
from particle_grid.sim.world import World
from particle_grid.support import atomic

TORCH_THREADS = torch.get_num_threads()  # before a run in this process is given others


@command("train")
def main(config: DictConfig) -> float | None:
    """Returns the final normalised score of sampled actions, what a sweeper makes large; None for a run
    that was pruned, or has no evaluations."""
    resume = config.resume
    check_paths(config, "resume")
    saved = load_run(resume) if resume else None
    if saved:
        config = resumed(OmegaConf.create(saved["config"]), list(HydraConfig.get().overrides.task))
    settings = typed(TrainerConfig, config.trainer)
    plain: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    plain["world"] = asdict(typed(World, config.world))
    if sweep.is_trial() and not scores.seeds(config.evaluations):
        raise ValueError("evaluations=0 leaves no score for hydra/sweeper=optuna to compare: give 1 or more.")
    plain["name"] = check_name(plain["name"])
    plain.pop("allow", None)  # it is about this command, not about the run
    folder = Path(HydraConfig.get().runtime.output_dir)
    if ranks()[0]:  # has no folder
        return train(plain, settings, saved)
    if not sweep.swept():
        with sweep.alone(folder, resume):
            return train(plain, settings, saved)
    with sweep.turn(folder, plain):
        if not sweep.ended(folder):
            own = folder / CHECKPOINT
            train(plain, settings, load_run(own) if own.exists() else saved)
        score = sweep.score(folder)
        if not sweep.side_by_side():  # else the process that all runs come from says it
            print(f"{folder.name}: {sweep.ending(score, folder)}", flush=True)
        return score


def train(plain: dict[str, Any], settings: TrainerConfig, saved: dict[str, Any] | None) -> float | None:
    """Trains from the start, or from what was saved, alone or as one process of several."""
    limit = numba.config.NUMBA_NUM_THREADS  # of this process
    numba.set_num_threads(min(settings.threads or limit, limit))
    torch.set_num_threads(settings.threads or TORCH_THREADS)
    with joined(choose_device(settings.device).type == "cuda") as group:
        if group.rank:
            assist(plain, settings, saved, group)
            return None
        folder = Path(HydraConfig.get().runtime.output_dir)
        with sweep.console_for(folder) as console:
            return lead(plain, settings, saved, group, folder, console)


def assist(plain: dict[str, Any], settings: TrainerConfig, saved: dict[str, Any] | None, group: ProcessGroup) -> None:
    """What a process does that another one leads: it learns along, and leaves no trace."""
    env = build_env(plain)
    policy = build_policy(plain, env, saved["policy"] if saved else None)
    splits = build_env_splits(plain, env, settings)
    trainer = Trainer(splits, policy, settings, group=group, opponents=opponents_for(policy, settings))
    if saved:
        trainer.load_state_dict(saved)
    trainer.run()


def lead(
    plain: dict[str, Any],
    settings: TrainerConfig,
    saved: dict[str, Any] | None,
    group: ProcessGroup,
    folder: Path,
    console: Console,
) -> float | None:
    """Trains, shows, saves and evaluates."""
    env = build_env(plain)
    policy = build_policy(plain, env, saved["policy"] if saved else None)
    splits = build_env_splits(plain, env, settings)
    # Of a resumed run too, unlike Hydra's own copy.
    atomic.write(folder / sweep.CONFIG, OmegaConf.to_yaml(OmegaConf.create(plain)).encode())
    if not saved:  # one that goes on keeps what it was begun with
        atomic.write(folder / sweep.OVERRIDES, OmegaConf.to_yaml(HydraConfig.get().overrides.task).encode())
    clips, seeds = plain.get("clips", 0), scores.seeds(plain.get("evaluations", len(scores.SEEDS)))
    steps = scores.steps_for(env)
    baseline = results.baseline_for(env, console, seeds or scores.SEEDS, steps)
    start = saved["steps"] if saved else 0
    say = partial(console.print, soft_wrap=True)

    def learn(logger: Logger, dashboard: Dashboard) -> Result:
        # Where two sides oppose each other, their scores in self-play say nothing about success.
        normalise = _normaliser(baseline) if env.task.teams == 1 else None
        with Clips(splits[0], logger, clips, settings.total_steps, start) as films:
            trainer = Trainer(
                splits,
                policy,
                settings,
                [logger, dashboard, films, *sweep.pruning(settings.total_steps)],
                folder / CHECKPOINT,
                plain,
                normalise,
                group=group,
                opponents=opponents_for(policy, settings),
                watch=films.watch,
            )
            say(trainer.how)
            if saved:
                trainer.load_state_dict(saved)
            if start < settings.total_steps:  # results of before are not those of what follows
                for name in (RESULT, sweep.PRUNED):
                    (folder / name).unlink(missing_ok=True)
            return trainer.run()

    size = sum(parameter.numel() for parameter in policy.parameters())
    if start > settings.total_steps:
        asked = f"trainer.total_steps={settings.total_steps}"
        say(f"Trained for {start} steps, more than {asked}: only its scores are new.")
    say(f"{plain['name']}: {env.num_agents} agents, {size} parameters, in {folder}")
    say("The first figures come after one rollout. On a machine's first run the simulator is compiled before.")
    with Logger(folder, start) as logger:
        logger.hyperparameters(sweep.hyperparameters(plain, HydraConfig.get().overrides.task))
        with Dashboard(settings.total_steps, start, console) as dashboard:
            result = learn(logger, dashboard)
        if result.reason:
            atomic.write(folder / sweep.PRUNED, f"{result.reason}\n".encode())
            say(f"Pruned: {result.reason}")
            return None
        if result.interrupted:
            allow = f" allow=[{','.join(places(plain))}]" if places(plain) else ""
            say(f"Stopped at {result.steps} steps. To go on: {resuming(folder / CHECKPOINT)}{allow}")
            raise KeyboardInterrupt
        rows = results.evaluate_policy(env, policy, baseline, console, seeds, steps) if seeds else {}
        means = results.save_results(folder / RESULT, rows, baseline)
        logger.log(
            result.steps, {f"eval/{label.split()[-1]}": mean for label, mean in means.items() if "policy" in label}
        )
        logger.finished()
    if rows:  # shown when they are saved
        results.show_scores(env, rows, baseline, console, steps)
    if clips:
        results.record(env, policy, console, video=folder / "policy.gif")
    say(f"Saved: {folder}/ checkpoint.pt, results.json. To watch: tensorboard --logdir outputs")
    return means.get("policy, sampled")


def _normaliser(baseline: scores.Baseline) -> Callable[[float], float]:
    return lambda score: float(baseline.normalise(np.array([score])))


def resumed(saved: DictConfig, overrides: list[str]) -> DictConfig:
    """The config of a run that goes on: its own, but for `trainer.*`. Raises ValueError for other overrides, and for a
    seed: the random generators go on."""
    values = [override for override in overrides if not override.startswith(("resume=", "allow="))]
    if other := [value for value in values if not value.startswith("trainer.") or value.startswith("trainer.seed=")]:
        raise ValueError(
            f"{other[0]} cannot be changed in a run that goes on, only trainer.* but for its seed: leave it out, or "
            f"train anew."
        )
    config = saved.copy()
    for override in OverridesParser.create().parse_overrides(values):  # as Hydra reads them: off is a word
        OmegaConf.update(config, override.key_or_group, override.value(), force_add=True)
    return config


if __name__ == "__main__":
    main()
