"""hydra/sweeper=optuna: Optuna chooses the next runs by the scores of earlier ones, and ends bad ones early.

Hydra's own plugin (hydra-optuna-sweeper 1.3.0) requires Optuna 2, cannot prune, and starts an interrupted sweep from
the beginning.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, RangeSweep, Transformer
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from particle_grid.settings.invocation import TRIAL


class OptunaSweeper(Sweeper):
    """Searches with Optuna. conf/hydra/sweeper/optuna.yaml explains the settings."""

    hydra_context: HydraContext
    config: DictConfig
    launcher: Launcher

    def __init__(self, trials: int, jobs: int | None, params: DictConfig | None, sampler: DictConfig, **_: Any) -> None:
        self.trials = trials
        self.jobs = jobs
        self.params = params
        self.sampler = sampler

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context, self.config = hydra_context, config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> list[JobReturn]:
        from particle_grid.experiments.pruning import load_study
        from particle_grid.learn.fast import cores
        from particle_grid.support.errors import UserError

        sweeper = self.config.hydra.sweeper
        folder = Path(self.config.hydra.sweep.dir)
        study = load_study(folder, sweeper.storage, sweeper.pruner)  # first: it reports whether Optuna is installed
        fixed, space = self.split(arguments)
        OmegaConf.save(self.config, folder / "multirun.yaml")
        jobs = self.jobs or (1 if self.config.hydra.runtime.choices["hydra/launcher"] == "basic" else cores())
        returns: list[JobReturn] = []
        try:
            with FileLock(folder / ".lock", timeout=0):
                keep(study, sorted([*fixed, *(f"{key}={space[key]}" for key in space)]), folder)
                # It must not repeat the draws from before an interruption.
                study.sampler = instantiate(self.sampler, seed=self.sampler.seed + len(study.trials))
                while trials := self.next(study, jobs, space):
                    returns += self.run(study, trials, fixed)
        except Timeout:
            raise UserError(
                f"{folder} is in use by another process: wait for it, or choose another hydra.sweep.dir."
            ) from None
        say_best(study, fixed)
        for each in returns:
            _ = each.return_value  # raises the error of a failed job, but only after all have run
        return returns

    def split(self, arguments: list[str]) -> tuple[list[str], dict[str, Any]]:
        """Return the overrides of all runs, and the distribution of each searched key.

        These are the keys to which the command line gives several values or an interval, or else those of the preset.
        """
        from particle_grid.support.errors import UserError

        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        given = parser.parse_overrides(arguments)
        searched = [override for override in given if override.is_sweep_override()]
        if not searched:
            named = {override.key_or_group for override in given}
            preset = [f"{key!s}={value}" for key, value in (self.params or {}).items() if key not in named]
            searched = [override for override in parser.parse_overrides(preset) if override.is_sweep_override()]
        if not searched:
            raise UserError("There is nothing to search: give a key several values, such as seed=0,1, or an interval.")
        fixed = [str(override.input_line) for override in given if not override.is_sweep_override()]
        return fixed, {override.get_key_element(): distribution(override) for override in searched}

    def next(self, study: Any, jobs: int, space: dict[str, Any]) -> list[Any]:
        """Return the trials to run now: interrupted ones if there are any, else new ones until there are enough."""
        from optuna.trial import Trial, TrialState

        done = study.get_trials(deepcopy=False)
        running = [Trial(study, trial._trial_id) for trial in done if trial.state == TrialState.RUNNING]
        return running[:jobs] or [study.ask(space) for _ in range(min(jobs, self.trials - len(done)))]

    def run(self, study: Any, trials: list[Any], fixed: list[str]) -> Sequence[JobReturn]:
        """Run trials, and report their scores to the study."""
        from optuna.trial import TrialState

        own = [[f"{key}={value}" for key, value in trial.params.items()] for trial in trials]
        batch = [[*fixed, *values, f"+{TRIAL}={trial.number}"] for trial, values in zip(trials, own, strict=True)]
        self.validate_batch_is_legal(batch)
        returns = self.launcher.launch(batch, initial_job_idx=trials[0].number)
        for trial, values, each in zip(trials, own, returns, strict=True):
            score = each.return_value if each.status == JobStatus.COMPLETED else math.nan
            state = TrialState.PRUNED if score is None else None if math.isfinite(score) else TrialState.FAIL
            study.tell(trial, None if state else score, state=state)
            what = f"{score:.3f}" if state is None else state.name.lower()
            print(f"trial {trial.number + 1} of {self.trials}: {what} with {' '.join(values)}", flush=True)
        return returns


def distribution(override: Override) -> Any:
    """Return the values that a key of the command line may take: a choice, a range or an interval.

    An interval is log-uniform with tag(log, ...).
    """
    from optuna import distributions

    value: Any = override.value()
    if override.is_interval_sweep():
        whole = isinstance(value.start, int) and isinstance(value.end, int)
        kind = distributions.IntDistribution if whole else distributions.FloatDistribution
        return kind(value.start, value.end, log="log" in value.tags)
    if isinstance(value, RangeSweep) and not value.shuffle:
        values = [float(x) for x in override.sweep_string_iterator()]
        kind = distributions.IntDistribution if type(value.step) is int else distributions.FloatDistribution
        return kind(values[0], values[-1], step=value.step)  # the end of a range is not one of its values
    return distributions.CategoricalDistribution(list(override.sweep_iterator(transformer=Transformer.encode)))


def keep(study: Any, arguments: list[str], folder: Path) -> None:
    """Store what a study searches. Raise UserError if it searches something else."""
    from particle_grid.support.errors import UserError

    there = study.user_attrs.get("arguments", arguments)
    if differ := sorted(set(there) ^ set(arguments)):
        raise UserError(
            f"The study in {folder} is about other runs ({differ[0]} is not in both): choose another hydra.sweep.dir."
        )
    study.set_user_attr("arguments", arguments)


def say_best(study: Any, fixed: list[str]) -> None:
    """Print the best trial, and the overrides that repeat it."""
    if any(trial.value is not None and trial.state.name == "COMPLETE" for trial in study.get_trials(deepcopy=False)):
        best = study.best_trial
        overrides = " ".join([*fixed, *(f"{key}={value}" for key, value in best.params.items())])
        print(f"Best: {best.value:.3f}, of trial {best.number + 1}: {overrides}", flush=True)
