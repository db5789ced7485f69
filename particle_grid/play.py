"""Plays along: python -m particle_grid.play task=predator_prey (see --help)."""

from dataclasses import asdict, fields
from typing import Any

import numpy as np
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from particle_grid.cli import check_paths, command, config_folder, typed, whole
from particle_grid.evaluation.interactive import Game, Settings
from particle_grid.evaluation.scores import scripted_player
from particle_grid.learn.trainer import choose_device
from particle_grid.runs.build import build_env, policy_player
from particle_grid.runs.load import TASK, load_asked, load_policy, set_up
from particle_grid.sim.world import World
from particle_grid.view.panel import WIDTH
from particle_grid.view.window import Window

SIDE = 128  # cells along each side of a larger world whose size nobody chose


@command("play")
def main(config: DictConfig) -> None:
    settings = typed(Settings, OmegaConf.masked_copy(config, [field.name for field in fields(Settings)]))
    whole("seed", settings.seed, 0)
    check_paths(config, "checkpoint")
    device = choose_device(config.device)
    saved = load_asked(config) if config.checkpoint else {"config": untrained(config)}
    run = saved["config"]
    chosen = {override.partition("=")[0] for override in HydraConfig.get().overrides.task}
    run["world"] = at_hand(run["world"], {key.removeprefix("world.") for key in chosen})
    env = build_env(run)
    maker = policy_player(load_policy(saved, env, device)) if config.checkpoint else scripted_player
    game = Game(env, maker, "the policy" if config.checkpoint else "the script", settings)
    window = Window(f"particle_grid: {env.task_name}")
    try:
        side = game.camera.size
        window.show(np.zeros((side, side + WIDTH, 3), np.uint8))  # at once: without a screen there is no game
        Console().print(f"{env.task_name}, {env.num_agents} agents: H in the window shows the keys.", soft_wrap=True)
        play(game, window, settings.fps)
    finally:
        window.close()


def untrained(config: DictConfig) -> dict[str, Any]:
    """A run's config without a policy: the task and world that are asked for."""
    world = asdict(typed(World, OmegaConf.load(config_folder() / "world" / "default.yaml")))  # type: ignore[arg-type]
    run = {"task": {"name": TASK}, "action": {"name": config.action.name}, "world": world, "seed": config.seed}
    set_up(run, config)
    return run


def at_hand(world: dict[str, Any], chosen: set[str]) -> dict[str, Any]:
    """The settings of a world to play in by hand: one world that fits a window, as dense as it was; what was chosen
    stays as it is."""
    size = {side: world[side] if side in chosen else min(world[side], SIDE) for side in ("height", "width")}
    share = size["height"] * size["width"] / (world["height"] * world["width"])
    agents = world["agents"] if "agents" in chosen else max(1, round(share * world["agents"]))
    return world | size | {"agents": agents, "worlds": world["worlds"] if "worlds" in chosen else 1}


def play(game: Game, window: Window, fps: float) -> None:
    """Until the user has enough."""
    game.start()
    while game.open:
        for event in window.show(game.picture()):
            game.handle(event)
        game.advance(window.wait(fps))


if __name__ == "__main__":
    main()
