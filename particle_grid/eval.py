"""Evaluate a trained policy: python -m particle_grid.eval checkpoint=PATH (see --help)."""

from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from particle_grid.cli import command
from particle_grid.evaluation.evaluator import Evaluator
from particle_grid.evaluation.record import Show
from particle_grid.evaluation.request import Request
from particle_grid.learn.distributed import choose_device
from particle_grid.runs.load import is_pattern
from particle_grid.settings.checks import MOST_EPISODES, check_paths, check_whole_number
from particle_grid.settings.compose import typed
from particle_grid.settings.invocation import Invocation
from particle_grid.support import atomic
from particle_grid.support.errors import UserError


@command("eval")
def main(config: DictConfig, call: Invocation) -> None:
    """Print the scores of one policy, or a table of several policies on several tasks."""
    check_whole_number("seeds", config.seeds, 1, MOST_EPISODES)
    check_whole_number("seed", config.seed, 0)
    if config.steps is not None:
        check_whole_number("steps", config.steps, 1)
    check_paths(config, "video", "replay", "table")
    request = Request.from_dict(OmegaConf.to_container(config, resolve=True))  # type: ignore[arg-type]
    seeds = range(config.seed, config.seed + config.seeds)
    evaluator = Evaluator(request, seeds, config.steps, choose_device(config.device))
    one = isinstance(config.checkpoint, str) and not is_pattern(config.checkpoint)
    if one and config.tasks is None:
        if config.table:
            raise UserError(f"table={config.table} needs several tasks: name them, as in tasks=all.")
        evaluator.one(config.checkpoint, typed(Show, config.show), config.video, config.replay)
    else:
        tabulate(evaluator, config)


def tabulate(evaluator: Evaluator, config: DictConfig) -> None:
    """Print the scores of several policies on several tasks, and write them if asked to."""
    if given := [key for key in ("task", "action", "video", "replay") if config.get(key)]:
        raise UserError(f"{given[0]}= is for one checkpoint on one task: leave it out, or give no list.")
    if config.table:
        atomic.check_place(Path(config.table))
    table = evaluator.several(config.checkpoint, config.tasks)
    table.show(evaluator.console)
    if config.table:
        table.write(Path(config.table))
        evaluator.console.print(f"Saved: {config.table}", soft_wrap=True)


if __name__ == "__main__":
    main()
