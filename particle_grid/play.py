"""Play among the agents: python -m particle_grid.play task=predator_prey (see --help)."""

from dataclasses import replace
from functools import partial

from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from particle_grid.browser import page
from particle_grid.browser.serve import HTML, Server
from particle_grid.cli import command
from particle_grid.evaluation.request import Request
from particle_grid.settings.checks import check_paths, check_whole_number
from particle_grid.settings.invocation import Invocation

FIELD = 128  # cells: height and width, at most, of a world whose size the user has not chosen


@command("play")
def main(config: DictConfig, call: Invocation) -> None:
    """Serve a page with a game on this machine, until Ctrl-C."""
    seed = check_whole_number("seed", config.seed, 0, page.LARGEST_SEED)
    agent = check_whole_number("agent", config.agent, 0)
    check_paths(config, "checkpoint")
    request = Request.from_dict(OmegaConf.to_container(config, resolve=True))  # type: ignore[arg-type]
    saved = request.load(config.checkpoint) if config.checkpoint else None
    run = saved.config if saved else request.untrained()
    chosen = {key.removeprefix("world.") for key in call.chosen()}
    run = replace(run, world=run.world.within(FIELD, FIELD, chosen))
    game = page.game(run, saved, agent, seed).encode()
    with Server(lambda path, _: (HTML, game) if path == "/" else None) as server:
        where = f"To play, in a browser on this machine: {server.address} (Ctrl-C ends this command)"
        server.wait(partial(Console(markup=False).print, where, soft_wrap=True, highlight=False))


if __name__ == "__main__":
    main()
