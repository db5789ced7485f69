"""The pictures of the README, and a page with a run of each policy that ships: docs/assets/*.gif, docs/gallery.html.

python bench/gallery.py             # a minute
"""

import argparse
import math
from pathlib import Path

from interrupt import until_interrupted
from timing import announced

from particle_grid.env import ACTIONS, ParticleGrid
from particle_grid.evaluation.results import Show
from particle_grid.evaluation.scores import match
from particle_grid.runs import pretrained
from particle_grid.runs.build import build_env, build_policy, policy_player
from particle_grid.sim import tasks
from particle_grid.view.replay import Replay, write_page
from particle_grid.view.video import Video

# A world for the eye: one in which single agents can be told apart, and as dense as where they were trained.
FIELD, PIXELS, SEED = 96, 288, 3
FILM, EVERY = 260, 2  # steps that are filmed, and how many a frame stands for
REPLAY = 300  # steps on the page


def world_for(config: dict) -> dict:
    """The world to show a policy in: one only, and smaller than in training where that was large. Puffer's must hold
    its word."""
    world = config["world"]
    if config["task"]["name"] == "puffer" or max(world["height"], world["width"]) <= FIELD:
        return world | {"worlds": 1, "max_episode_steps": 0}
    agents = round(world["agents"] * FIELD**2 / (world["height"] * world["width"]))
    return world | {"worlds": 1, "height": FIELD, "width": FIELD, "agents": max(agents, 100)}


def show(task: str, action: str, film: Path) -> Replay:
    """Plays a policy that ships; writes the film and returns the replay."""
    saved = pretrained.load(task, action)
    config = saved["config"] | {"world": world_for(saved["config"])}
    env: ParticleGrid = build_env(config)
    policy = build_policy(config, env)
    policy.load_state_dict(saved["policy"])
    size = max(env.world.height, env.world.width)
    camera = Show(pixels=math.ceil(PIXELS / size) * size, legend=False).camera(env)
    title = f"{task}, {action} actions: {env.num_agents} agents after {saved['steps'] / 1e6:.0f} million steps"
    replay, steps = Replay(env.world, title, env.legend()), 0
    with Video(film, 20) as video:

        def watch() -> None:
            nonlocal steps
            if steps < FILM and steps % EVERY == 0:
                video.add(camera.look(env.state))
            replay.add(env.state, env.rewards, env.score())
            steps += 1

        match(env, [policy_player(policy)], SEED, REPLAY, watch)
    return replay


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("docs"), help="folder of the page and of assets/")
    out = parser.parse_args().out
    (out / "assets").mkdir(parents=True, exist_ok=True)
    cases = [(task, action) for task in tasks.names() for action in ACTIONS]
    replays = [
        show(task, action, out / "assets" / f"{task}-{action}.gif") for task, action in announced("Playing", cases)
    ]
    write_page(out / "gallery.html", replays)
    print(f"Saved: {out}/gallery.html ({(out / 'gallery.html').stat().st_size / 1e6:.1f} MB), {out}/assets/*.gif")


if __name__ == "__main__":
    until_interrupted(main)
