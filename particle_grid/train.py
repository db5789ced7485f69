"""Train a policy: python -m particle_grid.train task=group action=continuous (--help says more)."""

from omegaconf import DictConfig

from particle_grid.cli import command
from particle_grid.experiments.sweep import assist_once, ending, run_once
from particle_grid.experiments.training import assist, prepared, train
from particle_grid.runs.folder import RunFolder
from particle_grid.runs.load import load_checkpoint
from particle_grid.settings.checks import check_paths, check_switch
from particle_grid.settings.compose import resumed_config, run_config
from particle_grid.settings.invocation import AUTO, Invocation
from particle_grid.support.errors import UserError


@command("train")
def main(config: DictConfig, call: Invocation) -> float | None:
    """Return the final normalised score of sampled actions, which a sweeper maximises.

    It is None for a run that was pruned or has no evaluations.
    """
    check_paths(config, "resume")
    check_switch(config, "watch")
    resume = None if config.resume == AUTO else config.resume
    saved = load_checkpoint(resume, resume=True) if resume else None
    run = resumed_config(saved.config, call.overrides) if saved else run_config(config)
    if call.swept and config.watch:
        raise UserError("watch=true shows a single run: leave it out of a sweep (-m).")
    if call.trial and run.evaluations == 0:
        raise UserError("evaluations=0 leaves no score for hydra/sweeper=optuna to compare: give 1 or more.")
    folder = RunFolder(call.folder)
    with prepared(run) as group:
        if group.rank:  # only the first process has a folder
            assist_once(run, group) if call.repeatable else assist(run, saved, group)
            return None
        if call.swept or call.repeatable:
            score = run_once(run, call, saved, group, config.watch)
            if call.swept and not call.side_by_side:  # otherwise the process that started all runs prints it
                print(f"{folder.name}: {ending(score, folder)}", flush=True)
            return score
        with folder.for_new_run(resume):
            return train(run, call, saved, group, config.watch)


if __name__ == "__main__":
    main()
