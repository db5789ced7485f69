"""Plays a trained policy and tells what it is worth: python -m particle_grid.eval checkpoint=PATH (see --help)."""

from omegaconf import DictConfig
from rich.console import Console

from particle_grid.cli import check_paths, command, printable, typed, whole
from particle_grid.evaluation import results, scores
from particle_grid.evaluation.transfer import several, transfer
from particle_grid.learn.trainer import choose_device
from particle_grid.runs.build import build_env
from particle_grid.runs.load import load_asked, load_policy
from particle_grid.view.replay import check_page
from particle_grid.view.video import check_video


@command("eval")
def main(config: DictConfig) -> None:
    whole("seeds", config.seeds, 1, scores.MOST_EPISODES)
    whole("seed", config.seed, 0)
    if config.steps is not None:
        whole("steps", config.steps, 1)
    check_paths(config, "video", "replay", "table")
    if several(config):
        return transfer(config)
    if config.table:
        raise ValueError(f"table={config.table} is for a table: name tasks too, as in tasks=all.")
    console, saved = Console(markup=False), load_asked(config)
    run = saved["config"]
    show = typed(results.Show, config.show)
    if config.video:
        check_video(config.video, show.fps)  # now, not when minutes of work are done
    if config.replay:
        check_page(config.replay)
    device = choose_device(config.device)
    seeds = tuple(range(config.seed, config.seed + config.seeds))
    env = build_env(run)
    show.camera(env)  # likewise
    policy = load_policy(saved, env, device)
    console.print(f"{printable(config.checkpoint)}: {run['name']} after {saved['steps']} steps", soft_wrap=True)
    steps = config.steps or scores.steps_for(env)
    baseline = results.baseline_for(env, console, seeds, steps)
    rows = results.evaluate_policy(env, policy, baseline, console, seeds, steps)
    results.show_scores(env, rows, baseline, console, steps)
    if config.video or config.replay:
        title = f"{env.task_name}, {run['action']['name']} actions, after {saved['steps'] / 1e6:.1f} million steps"
        results.record(env, policy, console, show, config.video, config.replay, title)


if __name__ == "__main__":
    main()
