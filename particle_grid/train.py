"""Train a policy: python -m particle_grid.train task=group action=continuous (--help says more)."""

from omegaconf import DictConfig

from particle_grid.cli import command
from particle_grid.experiments.sweep import ending, run_in_sweep
from particle_grid.experiments.training import train
from particle_grid.learn.ranks import ranks
from particle_grid.runs.folder import RunFolder
from particle_grid.runs.load import load_checkpoint
from particle_grid.settings.checks import check_paths, check_switch
from particle_grid.settings.compose import resumed_config, run_config
from particle_grid.settings.invocation import Invocation
from particle_grid.support.errors import UserError


@command("train")
def main(config: DictConfig, call: Invocation) -> float | None:
    """Return the final normalised score of sampled actions, which a sweeper maximises.

    It is None for a run that was pruned or has no evaluations.
    """
    check_paths(config, "resume")
    check_switch(config, "watch")
    saved = load_checkpoint(config.resume, resume=True) if config.resume else None
    run = resumed_config(saved.config, call.overrides) if saved else run_config(config)
    if call.swept and config.watch:
        raise UserError("watch=true shows a single run: leave it out of a sweep (-m).")
    if call.trial and run.evaluations == 0:
        raise UserError("evaluations=0 leaves no score for hydra/sweeper=optuna to compare: give 1 or more.")
    if ranks().rank:  # only the first process has a folder
        return train(run, call, saved)
    folder = RunFolder(call.folder)
    if call.swept:
        score = run_in_sweep(run, call, saved)
        if not call.side_by_side:  # otherwise the process that started all runs prints it
            print(f"{folder.name}: {ending(score, folder)}", flush=True)
        return score
    with folder.for_new_run(config.resume):
        return train(run, call, saved, config.watch)


if __name__ == "__main__":
    main()
