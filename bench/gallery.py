"""Draw the films of the README, and a page that replays each shipped policy: docs/assets/*.gif, docs/gallery.html.

python bench/gallery.py             # a minute
"""

import argparse
import math
from pathlib import Path

from interrupt import until_interrupted
from timing import announced

from particle_grid import load_policy
from particle_grid.env import ACTIONS
from particle_grid.evaluation.baseline import measure
from particle_grid.evaluation.match import match
from particle_grid.evaluation.players import policy_player
from particle_grid.evaluation.record import Show, about, record_learning, stage
from particle_grid.runs.build import build_policy
from particle_grid.sim import tasks
from particle_grid.view.replay import Replay, write_page
from particle_grid.view.video import Video

PIXELS = 288
FIRST = "group", "discrete"  # what the first command of the README trains, and its first picture shows
SEED = 3
FILM = 260  # steps in a film
EVERY = 2  # steps per frame
REPLAY = 300  # steps on the page


def film_first(path: Path) -> None:
    """Write the film that the README starts with: what its first command leaves as policy.gif."""
    policy = load_policy(*FIRST)
    untrained = build_policy(policy.config)
    env = policy.make_env()
    trained = f"after {policy.steps / 1e6:.1f}M steps: score {policy.score:.2f} (0: random, 1: script)"
    record_learning(env, untrained, policy.policy, path, trained)


def show(task: str, action: str, film: Path) -> Replay:
    """Play a shipped policy, write the film, and return the replay."""
    policy = load_policy(task, action)
    env = stage(policy.make_env())
    size = max(env.world.height, env.world.width)
    camera = Show(pixels=math.ceil(PIXELS / size) * size, legend=False).camera(env)
    title = f"{task}, {action} actions: {env.num_agents} agents after {policy.steps / 1e6:.0f} million steps"
    replay = Replay(env.world, title, env.legend(), about=about(env, measure(env, steps=REPLAY)))
    steps = 0
    with Video(film, 20) as video:

        def watch() -> None:
            nonlocal steps
            if steps < FILM and steps % EVERY == 0:
                video.add(camera.look(env.state))
            replay.add(env.state, env.rewards, env.score(replay.agents))
            steps += 1

        match(env, [policy_player(policy.policy)], SEED, REPLAY, watch)
    return replay


def main() -> None:
    """Write the films and the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("docs"), help="folder for the page and assets/")
    out = parser.parse_args().out
    (out / "assets").mkdir(parents=True, exist_ok=True)
    cases = [(task, action) for task in tasks.names() for action in ACTIONS]
    replays = [
        show(task, action, out / "assets" / f"{task}-{action}.gif") for task, action in announced("Playing", cases)
    ]
    film_first(out / "assets" / "group.gif")
    write_page(out / "gallery.html", replays)
    print(f"Saved: {out}/gallery.html ({(out / 'gallery.html').stat().st_size / 1e6:.1f} MB), {out}/assets/*.gif")


if __name__ == "__main__":
    until_interrupted(main)
