"""Play among the agents: python -m particle_grid.play task=predator_prey (see --help)."""

from dataclasses import fields, replace

import numpy as np
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from particle_grid.cli import command
from particle_grid.evaluation.interactive import FIELD, Game, GameSettings
from particle_grid.evaluation.players import policy_player, scripted_player
from particle_grid.evaluation.request import Request
from particle_grid.learn.distributed import choose_device
from particle_grid.runs.build import build_env, trained_policy
from particle_grid.settings.checks import check_paths, check_whole_number
from particle_grid.settings.compose import typed
from particle_grid.settings.invocation import Invocation
from particle_grid.view.panel import WIDTH
from particle_grid.view.window import Window


@command("play")
def main(config: DictConfig, call: Invocation) -> None:
    """Open a window with a game, until the user closes it."""
    settings = typed(GameSettings, OmegaConf.masked_copy(config, [field.name for field in fields(GameSettings)]))
    check_whole_number("seed", settings.seed, 0)
    check_paths(config, "checkpoint")
    device = choose_device(config.device)
    request = Request.from_dict(OmegaConf.to_container(config, resolve=True))  # type: ignore[arg-type]
    saved = request.load(config.checkpoint) if config.checkpoint else None
    run = saved.config if saved else request.untrained()
    chosen = {key.removeprefix("world.") for key in call.chosen()}
    env = build_env(replace(run, world=run.world.within(FIELD, chosen)))
    others = policy_player(trained_policy(saved, device)) if saved else scripted_player
    game = Game(env, others, "the policy" if saved else "the script", settings)
    window = Window(f"particle_grid: {env.task_name}")
    try:
        side = game.camera.size
        window.show(np.zeros((side, side + WIDTH, 3), np.uint8))  # at once: without a screen there is no game
        Console().print(f"{env.task_name}, {env.num_agents} agents: H in the window shows the keys.", soft_wrap=True)
        play(game, window, settings.fps)
    finally:
        window.close()


def play(game: Game, window: Window, fps: float) -> None:
    """Run a game until the user ends it."""
    game.start()
    while game.open:
        for event in window.show(game.picture()):
            game.handle(event)
        game.advance(window.wait(fps))


if __name__ == "__main__":
    main()
