"""Write a web page that plays the tasks in a browser: python -m particle_grid.web out=page.html (see --help)."""

from omegaconf import DictConfig
from rich.console import Console

from particle_grid.browser import page
from particle_grid.cli import command
from particle_grid.runs.load import single_names
from particle_grid.settings.checks import check_paths
from particle_grid.settings.invocation import Invocation
from particle_grid.view.replay import check_page


@command("web")
def main(config: DictConfig, call: Invocation) -> None:
    """Write one self-contained page with tasks, their policies, and the simulator."""
    check_paths(config, "out")
    path = check_page(str(config.out))
    tasks = page.chosen_tasks(config.task.name if config.get("task") else None)
    players = page.own_players(single_names(config.checkpoint, []) if config.checkpoint else [])
    page.write(path, tasks, players)
    Console(markup=False).print(f"Saved: {path} ({path.stat().st_size / 1e6:.2f} MB)", soft_wrap=True)


if __name__ == "__main__":
    main()
