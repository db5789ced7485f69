"""Rank policies that oppose each other: python -m particle_grid.rank checkpoints=[...] (see --help)."""

from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from particle_grid.cli import command
from particle_grid.evaluation import match, ratings, tournament
from particle_grid.evaluation.request import Request
from particle_grid.learn.distributed import choose_device
from particle_grid.runs.folder import held
from particle_grid.runs.load import load_all
from particle_grid.settings.checks import check_paths, check_whole_number
from particle_grid.settings.invocation import Invocation
from particle_grid.sim.task import team_names
from particle_grid.support.errors import UserError


@command("rank")
def main(config: DictConfig, call: Invocation) -> None:
    """Play the missing matches, and print and save the ratings."""
    check(config)
    console = Console(markup=False)
    ratings.load_libraries()  # now, before hours of play
    request = Request.from_dict(OmegaConf.to_container(config, resolve=True))  # type: ignore[arg-type]
    policies = tournament.admitted(load_all(config.checkpoints, [str(request.task)]), request, console)
    env = tournament.arena(policies)
    device = choose_device(config.device)
    entrants = [tournament.entrant(name, saved, device, config.greedy) for name, saved in policies.items()]
    entrants = list({each.id: each for each in (tournament.SCRIPT, tournament.RANDOM, *entrants)}.values())
    steps = config.steps or match.steps_for(env)
    settings = env.setting() | {"steps": steps, "greedy": config.greedy}
    folder = tournament.MatchFolder(Path(str(config.out))) if config.out else tournament.MatchFolder.default(settings)
    folder.path.mkdir(parents=True, exist_ok=True)
    seeds = range(config.seed, config.seed + config.seeds)
    with held(folder.lock, "plays there: wait for it, or choose another out=FOLDER."):
        folder.check_settings(settings)
        scores = tournament.play_all(env, entrants, seeds, steps, folder, console)
    ranking = ratings.ranked([entrant.name for entrant in entrants], team_names(env.task), scores)
    ranking.save(folder.path)
    size = f"{len(entrants)} x {len(entrants)} x {len(seeds)} matches of {steps} steps and {env.num_agents} agents"
    console.print(f"{env.task_name}, {settings['action']}: {size}; rating ± standard deviation", soft_wrap=True)
    console.print(ranking.table(), ranking.meaning(), sep="\n")
    for name in (folder.matches.name, *ratings.FILES):
        console.print(f"Saved: {folder.path / name}", soft_wrap=True)


def check(config: DictConfig) -> None:
    """Raise UserError for a value that is invalid."""
    check_paths(config, "out")
    for key, least in (("seeds", 1), ("steps", 1), ("seed", 0)):
        if config[key] is not None or key != "steps":
            check_whole_number(key, config[key], least)
    if not isinstance(config.greedy, bool):
        raise UserError(f"greedy={config.greedy} is invalid: give true or false.")


if __name__ == "__main__":
    main()
